"""A bridge's HTTP door with the real use case, the real SQLite registry, and a CA made of real certificates."""

from __future__ import annotations

import asyncio
import base64
import copy
import hashlib
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
from jwt import PyJWS

from bridge.admission.policies import OpenDoor, RegisteredOnly
from bridge.enrollment.decision import Rules
from bridge.enrollment.proof import algorithm_of
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
from enroll.wire import PROBLEM_JSON, PROOF_TYPE, Act, Problem

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


@dataclass
class RenewingDevice:
    """A device that signs its proofs with PyJWT, as the agent does, or as an attacker would."""

    house: House
    name: str
    make_csr: Callable[..., str]
    wg_key: str | None = None
    key: Any = None
    """Of the certificate in use."""
    leaf: str = ""
    next_key: Any = None
    next_leaf: str = ""

    @property
    def root(self) -> str:
        return self.house.parts.trust.root_sha256.hex

    async def post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        async with self.house.client() as client:
            return await client.post(path, json=body)

    async def enroll(self, key: Any = None, wg_key: str | None = None) -> httpx.Response:
        self.key, self.wg_key = key or ec.generate_private_key(ec.SECP256R1()), wg_key
        body = {"csr_pem": self.make_csr(self.name, key=self.key), "wg_public_key": wg_key}
        answer = await self.post(f"/devices/{self.name}/enroll", body)
        assert answer.status_code == 201, answer.text
        self.leaf = digest_of(answer)
        return answer

    def claims(self, act: Act, csr: str | None = None, **changes: Any) -> dict[str, Any]:
        """What a sound proof would say."""
        der = None if csr is None else x509.load_pem_x509_csr(csr.encode()).public_bytes(Encoding.DER)
        said = {
            "aud": self.root,
            "act": act.value,
            "device_id": self.name,
            "csr_sha256": None if der is None else hashlib.sha256(der).hexdigest(),
            "wg_public_key": self.wg_key if act is Act.RENEW else None,
            "leaf": self.leaf if act is Act.RENEW else self.next_leaf,
        }
        return said | changes

    def sign(self, claims: Mapping[str, Any], key: Any = None, header: Mapping[str, Any] | None = None) -> str:
        key = key or self.key
        payload = json.dumps(claims).encode()
        return PyJWS().encode(payload, key, algorithm_of(key.public_key()), {"typ": PROOF_TYPE} | dict(header or {}))

    async def renew(self, proof: str | None = None, **body: Any) -> httpx.Response:
        """Ask with a new key, or with the one of the last try; with a sound proof unless another is given."""
        self.next_key = self.next_key or ec.generate_private_key(ec.SECP256R1())
        csr = self.make_csr(self.name, key=self.next_key)
        proof = proof or self.sign(self.claims(Act.RENEW, csr))
        sent = {"csr_pem": csr, "wg_public_key": self.wg_key, "proof": proof} | body
        answer = await self.post(f"/devices/{self.name}/enroll", sent)
        if answer.status_code in {200, 201}:
            self.next_leaf = digest_of(answer)
        return answer

    async def activate(self, proof: str | None = None, prefix: str = "") -> httpx.Response:
        """Ask, with a sound proof unless another is given."""
        proof = proof or self.sign(self.claims(Act.ACTIVATE), self.next_key)
        return await self.post(f"{prefix}/devices/{self.name}/activate", {"proof": proof})

    def promote(self) -> None:
        """Take the new pair into use."""
        self.key, self.leaf, self.next_key, self.next_leaf = self.next_key, self.next_leaf, None, ""

    async def states(self) -> list[str]:
        found = await self.house.registry.read(lambda tx: tx.issuances(DeviceId(self.name)))
        return [one.state.value for one in found]


def digest_of(answer: httpx.Response) -> str:
    """Return the SHA-256 of the DER of the certificate that was answered."""
    return x509.load_pem_x509_certificate(answer.json()["cert"].encode()).fingerprint(hashes.SHA256()).hex()


@pytest.fixture
def pump(open_house: House, new_csr: Callable[..., str]) -> RenewingDevice:
    """A device that may come in, and did not yet."""
    return RenewingDevice(open_house, "pump-7", new_csr)
