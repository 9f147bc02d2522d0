"""A running stand-in with real certificates on loopback."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as mqtt
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from thingsboard.client import ThingsBoardClient
from thingsboard.models import Leaf
from thingsboard.standin import EmbeddedThingsBoard

USERNAME, PASSWORD = "tenant@thingsboard.org", "right password"
WAIT = 10.0


@dataclass
class Tls:
    """Root, sub-CA under it, the door's certificate, and leaves on demand."""

    folder: Path
    root: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        self.issuing = self.root.create_child_ca()
        self.server_cert, self.server_key = self.folder / "server.crt", self.folder / "server.key"
        self.new_server_certificate()
        self.root_file = self.folder / "root.crt"
        self.root.cert_pem.write_to_path(str(self.root_file))

    @property
    def root_pem(self) -> str:
        return self.root.cert_pem.bytes().decode()

    def new_server_certificate(self) -> None:
        issued = self.root.issue_cert("localhost", "127.0.0.1")
        issued.private_key_pem.write_to_path(str(self.server_key))
        self.server_cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))

    def leaf(
        self, name: str, *, not_before: datetime | None = None, not_after: datetime | None = None, ca: Any = None
    ) -> "DeviceFiles":
        """Issue a client leaf under the sub-CA, with EKU clientAuth and the dates wanted."""
        issuer = ca or self.issuing
        issuer_cert = x509.load_pem_x509_certificate(issuer.cert_pem.bytes())
        issuer_key = serialization.load_pem_private_key(issuer.private_key_pem.bytes(), None)
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        cert = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer_cert.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before or now - timedelta(hours=1))
            .not_valid_after(not_after or now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(issuer_key, hashes.SHA256())
        )
        return DeviceFiles(self, name, cert, key, issuer.cert_pem.bytes())


class DeviceFiles:
    """A device's certificate and key as files."""

    def __init__(
        self, tls: Tls, name: str, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey, chain: bytes
    ) -> None:
        self.tls, self.name, self.cert = tls, name, cert
        self.leaf = Leaf(cert.public_bytes(serialization.Encoding.DER))
        stem = f"{name}-{cert.serial_number:x}"
        self.cert_file, self.key_file = tls.folder / f"{stem}.crt", tls.folder / f"{stem}.key"
        self.cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM) + chain)
        self.key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.tls.root_file))
        context.load_cert_chain(self.cert_file, self.key_file)
        return context


class Device:
    """A paho client whose callbacks can be awaited."""

    def __init__(self, client_id: str, context: ssl.SSLContext, *, protocol: int = mqtt.MQTTv311) -> None:
        self._loop = asyncio.get_running_loop()
        self.connack: asyncio.Future[int] = self._loop.create_future()
        self.closed: asyncio.Future[int] = self._loop.create_future()
        self.subscribed: asyncio.Future[list[int]] = self._loop.create_future()
        self.messages: list[tuple[str, bytes]] = []
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol, reconnect_on_failure=False
        )
        self.client.tls_set_context(context)
        self.client.on_connect = lambda *a: self._set(self.connack, a[3].value)
        self.client.on_disconnect = lambda *a: self._set(self.closed, a[3].value)
        self.client.on_subscribe = lambda *a: self._set(self.subscribed, [code.value for code in a[3]])
        self.client.on_message = lambda *a: self.messages.append((a[2].topic, a[2].payload))

    def _set(self, future: asyncio.Future[Any], value: Any) -> None:
        self._loop.call_soon_threadsafe(lambda: None if future.done() else future.set_result(value))

    async def connect(self, port: int) -> int:
        """Connect and return the reason code of CONNACK."""
        await asyncio.to_thread(self.client.connect, "localhost", port)
        self.client.loop_start()
        return await asyncio.wait_for(self.connack, WAIT)

    async def wait_closed(self) -> int:
        return await asyncio.wait_for(asyncio.shield(self.closed), WAIT)

    async def stop(self) -> None:
        await asyncio.to_thread(self.client.disconnect)
        await asyncio.to_thread(self.client.loop_stop)


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    folder = tmp_path / "tls"
    folder.mkdir()
    return Tls(folder)


@pytest.fixture
def build(tls: Tls, tmp_path: Path) -> Callable[..., EmbeddedThingsBoard]:
    def make(**more: Any) -> EmbeddedThingsBoard:
        settings = {
            "server_cert": tls.server_cert,
            "server_key": tls.server_key,
            "client_ca": tls.root_pem,
            "username": USERNAME,
            "password": PASSWORD,
        }
        return EmbeddedThingsBoard(tmp_path / "thingsboard", **settings | more)

    return make


@pytest.fixture
async def board(build: Callable[..., EmbeddedThingsBoard]) -> AsyncIterator[EmbeddedThingsBoard]:
    async with build() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as client:
        yield client


@pytest.fixture
def client(board: EmbeddedThingsBoard, http: httpx.AsyncClient) -> ThingsBoardClient:
    return ThingsBoardClient(http, board.rest_url, USERNAME, PASSWORD)


@pytest.fixture
async def device() -> AsyncIterator[Callable[..., Device]]:
    made: list[Device] = []

    def make(files: DeviceFiles, **more: Any) -> Device:
        made.append(Device(more.pop("client_id", files.name), files.context(), **more))
        return made[-1]

    yield make
    for one in made:
        await one.stop()
