"""One CA under test, the embedded one or a real step-ca, and a bench of tools to talk to it."""

import asyncio
import importlib.util
import secrets
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from ca.bootstrap import context_for
from ca.check import Expected
from ca.client import StepCaClient
from ca.models import Provisioner, TrustAnchor, new_serial
from ca.provisioner_key import ProvisionerKey, decrypt_key
from ca.standin import StandInCa, StandInSettings
from ca.token import TokenSigner

PROJECT = Path(__file__).resolve().parents[3]
LIFETIME = timedelta(days=30)


def _script(name: str) -> ModuleType:
    path = PROJECT / "compose" / "real" / f"{name}.py"
    specification = importlib.util.spec_from_file_location(f"compose_real_{name}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


@dataclass(frozen=True, slots=True)
class Server:
    """A running CA: where it is, what it trusts, what opens its keys."""

    kind: str
    url: str
    anchor: TrustAnchor
    password: str
    device_provisioner: str
    server_provisioner: str


@pytest.fixture(scope="session")
def step_ca_script() -> ModuleType:
    return _script("step_ca")


@pytest.fixture(scope="session")
def step_ca(step_ca_script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with step_ca_script.real_step_ca(tmp_path_factory.mktemp("step-ca"), extra_provisioners=120) as running:
        yield running


@pytest.fixture
def real_server(step_ca: Any) -> Server:
    return Server(
        "real",
        step_ca.url,
        step_ca.anchor,
        step_ca.password,
        step_ca.device_provisioner,
        step_ca.server_provisioner,
    )


@pytest.fixture(scope="session")
def standin_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The embedded CA in a thread with its own loop: one for all tests, as the real one."""
    names = ("localhost", "bridge.example.com")
    ca = StandInCa(
        StandInSettings(tmp_path_factory.mktemp("ca") / "ca", server_names=names), clock=lambda: datetime.now(UTC)
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(ca.start(), loop).result(10)
    try:
        yield Server("standin", ca.url, ca.anchor, ca.password, ca.device_provisioner, ca.server_provisioner)
    finally:
        asyncio.run_coroutine_threadsafe(ca.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture(params=["standin", pytest.param("real", marks=pytest.mark.real)])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=context_for(server.anchor)) as client:
        yield client


@pytest.fixture
def client(server: Server, http: httpx.AsyncClient) -> StepCaClient:
    return StepCaClient(http, server.url)


@dataclass
class Device:
    """A key, a CSR for it, and a serial chosen for its certificate."""

    name: str
    sans: list[x509.GeneralName] | None = None
    common_name: str | None = None
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    serial: int = field(default_factory=lambda: new_serial(secrets.token_bytes))

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.common_name or self.name)])
        builder = x509.CertificateSigningRequestBuilder().subject_name(name)
        if self.sans:
            builder = builder.add_extension(x509.SubjectAlternativeName(self.sans), critical=False)
        self.csr = builder.sign(self.key, hashes.SHA256())

    @property
    def pem(self) -> str:
        return self.csr.public_bytes(Encoding.PEM).decode()

    @property
    def der(self) -> bytes:
        return self.csr.public_bytes(Encoding.DER)

    @property
    def expected(self) -> Expected:
        spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return Expected(self.name, spki, self.serial, LIFETIME)


@pytest.fixture
def make_device() -> Callable[..., Device]:
    return Device


@dataclass
class Bench:
    """The device provisioner opened, its tokens, and raw requests to the CA."""

    server: Server
    http: httpx.AsyncClient
    provisioner: Provisioner
    key: ProvisionerKey
    tokens: TokenSigner

    def forge(self, claims: dict[str, Any], *, without: tuple[str, ...] = (), **options: Any) -> str:
        """A token with our own claims over the usual ones, by our own key where one is given."""
        now = int(datetime.now(UTC).timestamp())
        usual = {
            "iss": self.provisioner.name,
            "aud": f"{self.server.url}/1.0/sign",
            "sub": "dev-1",
            "sans": ["dev-1"],
            "iat": now,
            "nbf": now,
            "exp": now + 300,
            "jti": secrets.token_hex(16),
            "serial": str(new_serial(secrets.token_bytes)),
        }
        merged = {name: value for name, value in (usual | claims).items() if name not in without}
        return jwt.encode(
            merged,
            options.get("key", self.key.key),
            algorithm="ES256",
            headers={"kid": options.get("kid", self.key.kid)},
        )

    async def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return await self.http.post(self.server.url + path, json=body, **options)

    async def sign(self, device: Device, token: str, **more: Any) -> httpx.Response:
        return await self.post("/1.0/sign", {"csr": device.pem, "ott": token, "notAfter": "720h"} | more)


@pytest.fixture
async def bench(server: Server, http: httpx.AsyncClient, client: StepCaClient) -> Bench:
    provisioner = await client.provisioner(server.device_provisioner)
    key = decrypt_key(provisioner, await client.encrypted_key(provisioner.kid), server.password)
    tokens = TokenSigner(
        key,
        issuer=provisioner.name,
        url=server.url,
        clock=lambda: datetime.now(UTC),
        randomness=secrets.token_bytes,
    )
    return Bench(server, http, provisioner, key, tokens)
