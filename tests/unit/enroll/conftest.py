"""A tenant's PKI made of real certificates, and a bridge on loopback that can be told to misbehave."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enroll.agent import Agent, Runtime
from enroll.config import Settings, TunnelMode
from enroll.disk.files import PosixDisk
from enroll.events import Event
from enroll.keys.file import FileKeys
from enroll.names import BridgeUrl, DeviceId, Fingerprint
from enroll.network.transport import HttpsNetwork

NOW = datetime.now(UTC).replace(microsecond=0)
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


def pem(*certificates: x509.Certificate) -> str:
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates).decode()


def digest(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


@dataclass
class Authority:
    """One CA of the tenant: certificate, key, and what it can sign."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def root(cls, name: str) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        return cls(_sign(subject, subject, key.public_key(), key, _ca(None), end=NOW + timedelta(days=3650)), key)

    def sub(self, name: str, *, ca: bool = True, path_length: int | None = None, **dates: datetime) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        extensions = _ca(path_length) if ca else []
        dates = {"end": NOW + timedelta(days=1825)} | dates
        signed = _sign(_name(name), self.certificate.subject, key.public_key(), self.key, extensions, **dates)
        return Authority(signed, key)

    def server(self, *names: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        san = x509.SubjectAlternativeName([_general(n) for n in names])
        extensions = [(san, False), (x509.ExtendedKeyUsage([SERVER]), False)]
        end = NOW + timedelta(days=400)
        return _sign(_name(names[0]), self.certificate.subject, key.public_key(), self.key, extensions, end=end), key

    def leaf(
        self,
        public_key: Any,
        device_id: str,
        *,
        san: list[str] | None = None,
        usages: list[x509.ObjectIdentifier] | None = None,
        ca: bool = False,
        **dates: datetime,
    ) -> x509.Certificate:
        extensions: list[tuple[x509.ExtensionType, bool]] = [(x509.BasicConstraints(ca, None), True)]
        if san != []:
            extensions.append((x509.SubjectAlternativeName([_general(n) for n in san or [device_id]]), False))
        if usages != []:
            extensions.append((x509.ExtendedKeyUsage(usages or [CLIENT]), False))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)])
        return _sign(subject, self.certificate.subject, public_key, self.key, extensions, **dates)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tenant"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )


def _ca(path_length: int | None) -> list[tuple[x509.ExtensionType, bool]]:
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return [(x509.BasicConstraints(ca=True, path_length=path_length), True), (usage, True)]


def _sign(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: Any,
    key: ec.EllipticCurvePrivateKey,
    extensions: list[tuple[x509.ExtensionType, bool]],
    begin: datetime = NOW - timedelta(minutes=5),
    end: datetime = NOW + timedelta(days=30),
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, hashes.SHA256())


class Pki:
    """root -> ICA -> sub-CA, as a provider with one tenant has it."""

    def __init__(self) -> None:
        self.root = Authority.root("Provider Root")
        self.ica = self.root.sub("Provider ICA")
        self.sub = self.ica.sub("Tenant Sub-CA", path_length=0)

    @property
    def chain(self) -> list[x509.Certificate]:
        return [self.sub.certificate, self.ica.certificate]

    @property
    def sha256(self) -> str:
        return digest(self.root.certificate)

    new_root = staticmethod(Authority.root)
    pem = staticmethod(pem)
    digest = staticmethod(digest)
    now = NOW
    client_auth = CLIENT
    server_auth = SERVER

    def server_context(self, folder: Path, *names: str, issuer: Authority | None = None) -> ssl.SSLContext:
        """TLS context of a server with these names, certified by the sub-CA or another authority."""
        by = issuer or self.sub
        certificate, key = by.server(*(names or ("localhost", "127.0.0.1")))
        chain = [] if by is self.root else [by.certificate, self.ica.certificate]
        file = folder / f"server-{certificate.serial_number:x}.pem"
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(secret + pem(certificate, *chain).encode())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


@dataclass
class Reply:
    """What the bridge sends: JSON of an object, or the bytes as they are."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


Responder = Callable[[dict[str, Any]], Reply]


class FakeBridge:
    """An HTTPS server that answers as a bridge does; every part of the answer can be replaced."""

    def __init__(self, pki: Pki, context: ssl.SSLContext) -> None:
        self.pki = pki
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.mqtt: dict[str, Any] | None = None
        self.wg_endpoint = "127.0.0.1:51820"
        self.enroll: Responder = lambda request: Reply(self.answer(request), 201)
        self.activate: Responder = self._activate
        self.script: list[Responder] = []
        self.leaves: dict[str, x509.Certificate] = {}
        self.current: str | None = None
        self.pending: set[str] = set()
        self.root: Callable[[], Reply] = lambda: Reply({"ca": pem(pki.root.certificate)})
        self.intermediates: Callable[[], Reply] = lambda: Reply({"crts": [pem(c) for c in pki.chain]})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"https://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(0.02))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def posts(self) -> list[dict[str, Any]]:
        return [body for method, _, body in self.requests if method == "POST"]

    def answer(self, request: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """The right answer, with changes; ``leaf`` and ``chain`` are certificates, ``wg`` is merged."""
        csr = x509.load_pem_x509_csr(request["csr_pem"].encode())
        device_id = str(csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
        leaf = changes.pop("leaf", None) or self.leaf_for(csr.public_key(), device_id)
        if "proof" in request:
            assert self.claims(request["proof"])["leaf"] == self.current
            self.pending.add(digest(leaf))
        elif digest(leaf) not in self.pending:
            self.current = digest(leaf)
        return self._full_answer(leaf, device_id, **changes)

    def _full_answer(self, leaf: x509.Certificate, name: str, /, **changes: Any) -> dict[str, Any]:
        chain = changes.pop("chain", None) or self.pki.chain
        wg = {
            "address": "10.8.0.7/32",
            "server_public_key": WG_SERVER_KEY,
            "endpoint": self.wg_endpoint,
            "allowed_ips": ["10.8.0.0/24"],
            "persistent_keepalive": 25,
            "config": "[Interface]\nPostUp = touch /tmp/never\n",
        }
        wg |= changes.pop("wg", {})
        return {
            "device_id": name,
            "generation": 1,
            "state": "pending" if digest(leaf) in self.pending - {self.current} else "current",
            "cert": pem(leaf),
            "ca_chain": pem(*chain),
            "not_after": leaf.not_valid_after_utc.isoformat(),
            "renew_after": (NOW + timedelta(days=20)).isoformat(),
            "server_time": NOW.isoformat(),
            "wg": wg,
            "mqtt": self.mqtt,
            "hawkbit": {"url": "https://hawkbit.example", "tenant": "DEFAULT"},
        } | changes

    def leaf_for(self, public_key: Any, device_id: str) -> x509.Certificate:
        """One public key is one certificate, for ever."""
        der = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        spki = hashlib.sha256(der).hexdigest()
        if spki not in self.leaves:
            self.leaves[spki] = self.pki.sub.leaf(public_key, device_id)
        return self.leaves[spki]

    def claims(self, proof: str) -> dict[str, Any]:
        """The proof's claims, verified with the key of the leaf that they name."""
        named = jwt.decode(proof, options={"verify_signature": False})
        leaf = next(c for c in self.leaves.values() if digest(c) == named["leaf"])
        return jwt.decode(proof, leaf.public_key(), algorithms=["ES256"], options={"verify_aud": False})

    def _activate(self, request: dict[str, Any]) -> Reply:
        claims = self.claims(request["proof"])
        assert claims["act"] == "activate"
        self.current = claims["leaf"]
        leaf = next(c for c in self.leaves.values() if digest(c) == self.current)
        key = leaf.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return Reply(self._full_answer(leaf, claims["device_id"]))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        bridge = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                bridge.requests.append(("GET", self.path, {}))
                self._send(bridge.root() if "/root/" in self.path else bridge.intermediates())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                bridge.requests.append(("POST", self.path, body))
                door = bridge.activate if self.path.endswith("/activate") else bridge.enroll
                self._send((bridge.script.pop(0) if bridge.script else door)(body))

            def _send(self, reply: Reply) -> None:
                content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                headers = {"Content-Type": "application/json", "Content-Length": str(len(content))}
                for name, value in (headers | reply.headers).items():
                    self.send_header(name, value)
                self.send_header("Connection", "close")
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(content)
                self.close_connection = True

        return Handler


WG_SERVER_KEY = base64.b64encode(x25519.X25519PrivateKey.generate().public_key().public_bytes_raw()).decode()


class FakeClock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.belief = NOW

    def now(self) -> datetime:
        return self.belief

    def monotonic(self) -> float:
        return sum(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class NoMachine:
    """A machine without wireguard-tools."""

    def is_root(self) -> bool:
        return False

    def find(self, command: str) -> str | None:
        return None

    def has_interface(self, name: str) -> bool:
        return False

    def run(self, arguments: Any) -> Any:
        raise AssertionError(f"nothing may be run here: {arguments}")


@dataclass(frozen=True)
class Inventory:
    hardware: dict[str, Any]
    network: dict[str, Any]


@dataclass
class Device:
    """A device with its own folder, an honest clock and a bridge."""

    bridge: FakeBridge
    folder: Path
    settings: dict[str, Any]
    clock: FakeClock = field(default_factory=FakeClock)
    disk: Any = field(default_factory=PosixDisk)
    machine: Any = field(default_factory=NoMachine)
    network: Any = field(default_factory=lambda: HttpsNetwork({}))
    addresses: dict[str, Any] = field(default_factory=dict)
    set_clock: Any = None
    events: list[Event] = field(default_factory=list)

    def run(self, *, renew_now: bool = False, **changes: Any) -> None:
        settings = Settings(**(self.settings | changes))
        runtime = Runtime(
            clock=self.clock,
            set_clock=self.set_clock,
            uniform=lambda _low, high: high,
            disk=self.disk,
            machine=self.machine,
            network=self.network,
            provider=FileKeys(),
            report=self.events.append,
            addresses=lambda host: self.addresses.get(host, ()),
            inventory=lambda: Inventory({"cpu_cores": 4}, {"hostname": "box"}),
        )
        Agent(settings, runtime, renew_now=renew_now).run()

    def names(self) -> list[str]:
        return [event.name for event in self.events]

    def event(self, name: str) -> dict[str, Any]:
        return next(event.to_json() for event in reversed(self.events) if event.name == name)

    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} if self.folder.exists() else set()

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


@pytest.fixture(scope="session")
def pki() -> Pki:
    return Pki()


@pytest.fixture
def bridge(pki: Pki, tmp_path: Path) -> Iterator[FakeBridge]:
    server = FakeBridge(pki, pki.server_context(tmp_path))
    yield server
    server.close()


@pytest.fixture
def start_bridge(pki: Pki) -> Iterator[Callable[[ssl.SSLContext], FakeBridge]]:
    """Start further bridges with TLS contexts of the test's choice."""
    started: list[FakeBridge] = []

    def start(context: ssl.SSLContext) -> FakeBridge:
        started.append(FakeBridge(pki, context))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def reply() -> type[Reply]:
    return Reply


@pytest.fixture
def problem() -> Callable[..., Reply]:
    """A problem document as the bridge sends it."""

    def make(status: int, code: str, detail: str = "what to do next", **headers: str) -> Reply:
        body = {
            "type": f"urn:iot-bridge:problem:{code}",
            "title": code,
            "status": status,
            "code": code,
            "detail": detail,
        }
        sent = {"Content-Type": "application/problem+json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return Reply(body, status, sent)

    return make


@pytest.fixture
def device(bridge: FakeBridge, pki: Pki, tmp_path: Path) -> Device:
    settings = {
        "bridge": BridgeUrl.parse(bridge.url),
        "device_id": DeviceId("dev-1"),
        "folder": tmp_path / "certs",
        "root_pins": (Fingerprint.parse(pki.sha256),),
        "tunnel": TunnelMode.AUTO,
    }
    return Device(bridge, tmp_path / "certs", settings)
