"""A small world of records for the decision table: one device, its keys, and whatever a row needs."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from bridge.admission import RegisteredOnly
from bridge.enrollment.csr import parse_csr
from bridge.enrollment.decision import Rules
from bridge.enrollment.service import Enrollment, Terms
from bridge.model.facts import Csr, EnrollmentRequest, Facts, SignedLeaf
from bridge.model.identity import DeviceId, Fingerprint, Pem, Serial, WireGuardKey
from bridge.model.records import (
    Device,
    DeviceState,
    Installation,
    Issuance,
    IssuanceState,
    KeyOwner,
    Kind,
    Lease,
    System,
    Window,
    WireGuardKeyOwner,
)
from bridge.ports.authority import SigningOrder
from bridge.ports.registry import Registration
from bridge.store.open import RegistryStore, open_registry

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class World:
    """Builds records that fit together; every part can be changed by name."""

    now: datetime = NOW
    name: str = "dev-1"

    def digest(self, text: str) -> Fingerprint:
        return Fingerprint.of(text.encode())

    def wg(self, text: str) -> WireGuardKey:
        return WireGuardKey(base64.b64encode(b"\x00" + hashlib.sha256(text.encode()).digest()[1:31] + b"\x11").decode())

    def csr(self, key: str = "new") -> Csr:
        return Csr(Pem(f"csr of {key}"), self.digest(f"csr {key}"), self.digest(f"key {key}"), b"csr", b"key")

    def request(self, key: str = "new", **changes: Any) -> EnrollmentRequest:
        return EnrollmentRequest(**({"device": DeviceId(self.name), "csr": self.csr(key)} | changes))

    def device(self, state: DeviceState = DeviceState.ACTIVE, **changes: Any) -> Device:
        made = Device(
            id=DeviceId(self.name),
            state=state,
            epoch=4,
            generation=0 if state is DeviceState.REGISTERED else 1,
            proven=False,
            name=None,
            type=None,
            key_digest=None,
            voucher_hash=None,
            admission_expires_at=None,
            registered=True,
            created_at=NOW,
            first_connected_at=None,
        )
        return replace(made, **changes)

    def issuance(self, key: str, state: IssuanceState = IssuanceState.CURRENT, **changes: Any) -> Issuance:
        signed = state is not IssuanceState.INTENT
        made = Issuance(
            serial=Serial((1 << 127) + len(key)),
            device=DeviceId(self.name),
            epoch=3,
            generation=1,
            kind=Kind.FIRST,
            spki=self.digest(f"key {key}"),
            state=state,
            deadline=NOW + timedelta(seconds=15),
            refused=False,
            wg_key=None,
            leaf=Pem(f"leaf of {key}") if signed else None,
            chain=Pem("chain") if signed else None,
            leaf_sha256=self.digest(f"leaf {key}") if signed else None,
            not_before=NOW - timedelta(days=10) if signed else None,
            not_after=NOW + timedelta(days=80) if signed else None,
        )
        return replace(made, **changes)

    def owner(self, name: str | None = None, generation: int | None = 1) -> KeyOwner:
        return KeyOwner(DeviceId(name or self.name), generation)

    def wg_owner(self, name: str | None = None, generation: int = 1) -> WireGuardKeyOwner:
        return WireGuardKeyOwner(DeviceId(name or self.name), generation)

    def window(self, **changes: Any) -> Window:
        made = Window(DeviceId(self.name), 1, "operator:x", NOW, NOW + timedelta(hours=1), None, None, False)
        return replace(made, **changes)

    def lease(self, key: WireGuardKey | None = None) -> Lease:
        return Lease(IPv4Address("10.8.0.7"), DeviceId(self.name), key)

    def facts(self, **changes: Any) -> Facts:
        nothing = Facts(NOW, None, None, None, None, None, None, None, None)
        return replace(nothing, **changes)

    def active(self, key: str = "old", **changes: Any) -> Facts:
        """Return what is known when a device comes back with another key than its current one."""
        return self.facts(**({"device": self.device(), "current": self.issuance(key)} | changes))

    def returning(self, stored: Issuance, **changes: Any) -> Facts:
        """Return what is known when a device comes with the key of a certificate that it has."""
        current = stored if stored.state is IssuanceState.CURRENT else None
        known = {
            "device": self.device(generation=stored.generation),
            "key_owner": self.owner(generation=stored.generation),
            "stored": stored,
            "current": current,
        }
        return self.facts(**(known | changes))


@pytest.fixture
def world() -> World:
    return World()


# -- the use case over a real registry, with a CA that does what it is told --------------------------------------
@dataclass
class HandClock:
    moment: datetime = NOW

    def now(self) -> datetime:
        return self.moment

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


class Dice:
    def octets(self, count: int) -> bytes:
        return os.urandom(count)

    def fraction(self) -> float:
        return 0.5


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class ProgrammableCa:
    """The port of the issuing CA: real certificates, or whatever the test has laid in wait."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.script: list[BaseException] = []
        """Raised one after the other, each instead of an answer."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()
        self.orders: list[SigningOrder] = []
        self.signed: list[Serial] = []

    async def sign(self, order: SigningOrder) -> SignedLeaf:
        self.orders.append(order)
        self.asked.set()
        await self.gate.wait()
        if self.script:
            raise self.script.pop(0)
        leaf = (
            x509.CertificateBuilder(
                _named("Workshop CA"),
                _named(order.device.value),
                x509.load_der_x509_csr(order.csr.der).public_key(),
                order.serial.value,
            )
            .not_valid_before(NOW)
            .not_valid_after(NOW + order.lifetime)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(order.device.value)]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.signed.append(order.serial)
        digest = Fingerprint.of(leaf.public_bytes(Encoding.DER))
        pem = Pem(leaf.public_bytes(Encoding.PEM).decode())
        return SignedLeaf(order.serial, pem, Pem("chain"), digest, NOW, NOW + order.lifetime)


def new_csr(name: str) -> Csr:
    request = x509.CertificateSigningRequestBuilder(_named(name)).sign(
        ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()
    )
    return parse_csr(request.public_bytes(Encoding.PEM).decode(), DeviceId(name))


@dataclass
class Bench:
    """The use case with everything around it in the test's hands."""

    registry: RegistryStore
    ca: ProgrammableCa
    clock: HandClock
    enrollment: Enrollment
    terms: Terms

    async def register(self, name: str = "dev-1") -> None:
        registration = Registration(DeviceId(name), self.clock.now())
        assert await self.registry.write(lambda tx: tx.register(registration))

    def request(self, name: str = "dev-1", **changes: Any) -> EnrollmentRequest:
        return EnrollmentRequest(**({"device": DeviceId(name), "csr": new_csr(name)} | changes))

    def another_process(self, **changes: Any) -> Enrollment:
        return Enrollment(self.registry, self.ca, replace(self.terms, **changes), self.clock, Dice())

    async def states(self, name: str = "dev-1") -> list[str]:
        found = await self.registry.read(lambda tx: tx.issuances(DeviceId(name)))
        return [one.state.value for one in found]

    async def known_serials(self, name: str = "dev-1") -> set[Serial]:
        return {one.serial for one in await self.registry.read(lambda tx: tx.issuances(DeviceId(name)))}

    async def sweep(self) -> int:
        return await self.registry.write(lambda tx: tx.sweep_attempts(self.clock.now(), 10))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = await open_registry(
        tmp_path / "registry.db", systems=frozenset(System), quarantine=timedelta(hours=1), migrate=True
    )
    root = Fingerprint.of(b"root")
    installation = Installation("inst", "embedded", "tenant", root, (root,))
    first, last = IPv4Address("10.8.0.2"), IPv4Address("10.8.0.3")
    await store.write(lambda tx: tx.install(installation, first, last, NOW))
    clock, ca = HandClock(), ProgrammableCa()
    terms = Terms(Rules(RegisteredOnly()), timedelta(days=90), timedelta(seconds=15), patience=timedelta(seconds=5))
    made = Bench(store, ca, clock, Enrollment(store, ca, terms, clock, Dice()), terms)
    try:
        yield made
    finally:
        ca.gate.set()
        await made.enrollment.drain()
        await store.close()
