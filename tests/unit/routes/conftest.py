"""A bridge's HTTP door with the real use case, the real SQLite registry, and a CA made of real certificates."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from fastapi import FastAPI

from bridge.admission.policies import OpenDoor, RegisteredOnly
from bridge.enrollment.decision import Rules
from bridge.enrollment.renewal import Renewal
from bridge.enrollment.service import Enrollment, Terms
from bridge.errors import BridgeError
from bridge.model.facts import SignedLeaf
from bridge.model.identity import DeviceId, Fingerprint, NamingRule, Pem, WireGuardKey
from bridge.model.records import Installation, System
from bridge.ports.authority import SigningOrder
from bridge.ports.registry import Registration, Registry
from bridge.routes.api import build_api
from bridge.routes.meters import Meters
from bridge.routes.parts import (
    AnswerTerms,
    HawkbitTerms,
    MqttTerms,
    Parts,
    TrustAnchors,
    VpnTerms,
    WebhookTerms,
)
from bridge.store.open import open_registry
from enroll.wire import PROBLEM_JSON, Problem

START = datetime(2026, 4, 11, 10, 0, tzinfo=UTC)
LIFETIME = timedelta(days=90)
SECRET, NEXT_SECRET = "first-secret-of-the-webhook", "second-secret-of-the-webhook"
SERVER_KEY = WireGuardKey("HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=")


@dataclass
class TestClock:
    __test__ = False
    moment: datetime = START

    def now(self) -> datetime:
        return self.moment


class SystemRandomness:
    def octets(self, count: int) -> bytes:
        return os.urandom(count)

    def fraction(self) -> float:
        return 0.5


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def pem_of(certificate: x509.Certificate) -> Pem:
    return Pem(certificate.public_bytes(Encoding.PEM).decode())


class WorkshopCa:
    """Root and issuing CA; signs what it is ordered to sign, or raises what it is told to raise."""

    def __init__(self) -> None:
        root_key, self._key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        self.root = self._certificate(_name("Workshop root"), root_key.public_key(), _name("Workshop root"), root_key)
        self.issuer = self._certificate(
            _name("Workshop issuing CA"), self._key.public_key(), self.root.subject, root_key
        )
        self.failure: BridgeError | Exception | None = None
        self.signed = 0

    @staticmethod
    def _certificate(
        subject: x509.Name, key: ec.EllipticCurvePublicKey, issuer: x509.Name, signer: ec.EllipticCurvePrivateKey
    ) -> x509.Certificate:
        return (
            x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
            .not_valid_before(START - timedelta(days=1))
            .not_valid_after(START + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(signer, hashes.SHA256())
        )

    async def sign(self, order: SigningOrder) -> SignedLeaf:
        if self.failure is not None:
            raise self.failure
        self.signed += 1
        csr = x509.load_der_x509_csr(order.csr.der)
        not_after = START + order.lifetime
        leaf = (
            x509.CertificateBuilder(
                self.issuer.subject, _name(order.device.value), csr.public_key(), order.serial.value
            )
            .not_valid_before(START)
            .not_valid_after(not_after)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(order.device.value)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        digest = Fingerprint.of(leaf.public_bytes(Encoding.DER))
        return SignedLeaf(order.serial, pem_of(leaf), pem_of(self.issuer), digest, START, not_after)


def render_wireguard(address: IPv4Address, *, private_key_line: bool) -> str:
    line = "PrivateKey = <REPLACE_WITH_DEVICE_PRIVATE_KEY>\n" if private_key_line else ""
    return (
        f"[Interface]\n{line}Address = {address}/32\n\n[Peer]\nPublicKey = {SERVER_KEY}\n"
        "Endpoint = vpn.example.com:51820\nAllowedIPs = 10.8.0.0/24\nPersistentKeepalive = 25\n"
    )


def event_names(body: bytes, headers: Mapping[str, str]) -> tuple[str, ...]:
    """The real reader is another package's; what matters here is that it never sees more than bytes and headers."""
    try:
        event = json.loads(body)
    except ValueError:
        return ()
    name = event.get("deviceName") if isinstance(event, dict) and event.get("event") == "CONNECT_EVENT" else None
    return (name,) if isinstance(name, str) else ()


@dataclass
class House:
    """A door, and everything behind it that a test may want to look at."""

    parts: Parts
    registry: Registry
    ca: WorkshopCa
    clock: TestClock
    hinted: list[DeviceId] = field(default_factory=list)
    room_for_hints: bool = True

    def look_at(self, devices: Sequence[DeviceId]) -> bool:
        self.hinted.extend(devices)
        return self.room_for_hints

    @property
    def app(self) -> FastAPI:
        return build_api(self.parts)

    def client(self, **changes: Any) -> httpx.AsyncClient:
        app = build_api(replace(self.parts, **changes)) if changes else self.app
        # What a handler raises must come back as an answer, never through the server.
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://bridge.test")

    async def register(self, name: str, **terms: Any) -> None:
        registration = Registration(DeviceId(name), self.clock.now(), **terms)
        assert await self.registry.write(lambda tx: tx.register(registration))

    def counted(self, metric: str, **labels: str) -> float:
        return self.parts.meters.registry.get_sample_value(metric, labels) or 0.0


SYSTEMS = frozenset({System.THINGSBOARD, System.HAWKBIT, System.WIREGUARD})
QUARANTINE = timedelta(days=1)


@pytest.fixture(scope="session")
def workshop() -> WorkshopCa:
    return WorkshopCa()


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory, workshop: WorkshopCa) -> Path:
    """A database file at the present schema, installed, without devices; each test works on a copy."""
    path = tmp_path_factory.mktemp("registry") / "empty.db"
    root_sha256 = Fingerprint.of(workshop.root.public_bytes(Encoding.DER))
    installation = Installation("inst", "embedded", "tenant1", root_sha256, (root_sha256,))

    async def install() -> None:
        store = await open_registry(path, systems=SYSTEMS, quarantine=QUARANTINE, migrate=True)
        await store.write(
            lambda tx: tx.install(installation, IPv4Address("10.8.0.2"), IPv4Address("10.8.0.254"), START)
        )
        await store.close()

    asyncio.run(install())
    return path


@pytest.fixture
async def house(tmp_path: Path, empty_registry: Path, workshop: WorkshopCa) -> AsyncIterator[House]:
    clock, ca = TestClock(), copy.copy(workshop)
    path = shutil.copy(empty_registry, tmp_path / "bridge.db")
    store = await open_registry(Path(path), systems=SYSTEMS, quarantine=QUARANTINE, migrate=False)
    root_sha256 = Fingerprint.of(ca.root.public_bytes(Encoding.DER))
    rules = Rules(RegisteredOnly())
    enrollment = Enrollment(store, ca, Terms(rules, LIFETIME, timedelta(seconds=15)), clock, SystemRandomness())
    built: list[House] = []

    def look_at(devices: Sequence[DeviceId]) -> bool:
        return built[0].look_at(devices)

    parts = Parts(
        enrollment=enrollment,
        renewal=Renewal(store, clock),
        naming=NamingRule(frozenset({"bridge.test", "ca.example.com"})),
        terms=AnswerTerms(
            vpn=VpnTerms((IPv4Network("10.8.0.0/24"),), SERVER_KEY, "vpn.example.com:51820", render_wireguard),
            mqtt=MqttTerms("mqtt.example.com", 8883),
            hawkbit=HawkbitTerms("https://updates.example.com", "DEFAULT"),
        ),
        trust=TrustAnchors(pem_of(ca.root), root_sha256, (pem_of(ca.issuer),)),
        webhook=WebhookTerms((SECRET, NEXT_SECRET), event_names, look_at),
        clock=clock,
        meters=Meters(),
        version="1.2.3",
        path_prefix="/api",
    )
    built.append(House(parts, store, ca, clock))
    try:
        yield built[0]
    finally:
        await enrollment.drain()
        await store.close()


@pytest.fixture
def open_house(house: House) -> House:
    """The same house with the door open for every well-formed id."""
    terms = Terms(Rules(OpenDoor()), LIFETIME, timedelta(seconds=15))
    enrollment = Enrollment(house.registry, house.ca, terms, house.clock, SystemRandomness())
    house.parts = replace(house.parts, enrollment=enrollment)
    return house


@pytest.fixture
def secrets_of_webhook() -> tuple[str, str]:
    return SECRET, NEXT_SECRET


@pytest.fixture
def server_wg_key() -> str:
    return SERVER_KEY.text


@pytest.fixture
def new_wg_key() -> Callable[[], str]:
    """Make a usable WireGuard public key."""

    def make() -> str:
        raw = bytearray(os.urandom(32))
        raw[31] &= 0x7F
        return base64.b64encode(bytes(raw)).decode()

    return make


@pytest.fixture
def new_csr() -> Callable[..., str]:
    """Make a CSR for an id: `names` replaces the CNs, `extensions` are asked for, `key` signs."""

    def make(
        device: str,
        *,
        key: Any = None,
        names: tuple[str, ...] | None = None,
        extensions: tuple[x509.ExtensionType, ...] = (),
        more: tuple[tuple[x509.ObjectIdentifier, str], ...] = (),
    ) -> str:
        key = key or ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in (names or (device,))]
        attributes += [x509.NameAttribute(oid, value) for oid, value in more]
        builder = x509.CertificateSigningRequestBuilder(x509.Name(attributes))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        digest = None if type(key).__name__.startswith("Ed25519") else hashes.SHA256()
        return builder.sign(key, digest).public_bytes(Encoding.PEM).decode()

    return make


@pytest.fixture
def post(open_house: House) -> Any:
    """Post raw bytes and return the problem; whatever was sent, the CA signed nothing and no row was written."""

    async def refused(path: str, content: bytes, status: int = 422) -> Problem:
        async with open_house.client() as client:
            answer = await client.post(path, content=content)
        assert answer.headers["content-type"] == PROBLEM_JSON
        problem = Problem.from_json(answer.status_code, answer.json())
        assert problem is not None, answer.text
        assert problem.status == status == answer.json()["status"]
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert open_house.ca.signed == 0
        page = await open_house.registry.read(lambda tx: tx.devices("", 10, None))
        assert page.devices == ()
        assert open_house.counted("iot_bridge_enrollments_total", outcome=problem.code) == 1
        return problem

    return refused
