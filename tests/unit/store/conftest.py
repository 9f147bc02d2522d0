"""Two databases, one suite: every test that asks for ``registry`` runs on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from bridge.model.facts import Csr, EnrollmentRequest, Lost, NewAttempt, SignedLeaf, Stored
from bridge.model.identity import DeviceId, Fingerprint, Pem, Serial, WireGuardKey
from bridge.model.records import Installation, Kind, System
from bridge.store.open import RegistryStore, open_registry

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
QUARANTINE = timedelta(hours=1)
SIGN = timedelta(seconds=15)
ALL = frozenset(System)


@dataclass
class Fleet:
    """Makes requests, and walks them through the registry as the use cases do."""

    now: datetime = NOW
    later: datetime = NOW + SIGN
    quarantine: timedelta = QUARANTINE
    serials: int = field(default=0)

    def at(self, **after: float) -> datetime:
        return NOW + timedelta(**after)

    def id(self, name: str) -> DeviceId:
        return DeviceId(name)

    def digest(self, name: str) -> Fingerprint:
        return Fingerprint.of(name.encode())

    def wg_key(self, name: str) -> WireGuardKey:
        return WireGuardKey(base64.b64encode(hashlib.sha256(name.encode()).digest()[:31] + b"\x01").decode())

    def serial(self) -> Serial:
        self.serials += 1
        return Serial((1 << 127) + self.serials)

    def request(self, name: str, /, key: str = "1", wg: str | None = "1", **more: Any) -> EnrollmentRequest:
        spki = f"{name.lower()} {key}".encode()
        csr = Csr(Pem("csr"), Fingerprint.of(b"csr" + spki), Fingerprint.of(spki), b"", spki)
        return EnrollmentRequest(
            DeviceId(name), csr, None if wg is None else self.wg_key(f"{name.lower()} {wg}"), **more
        )

    def attempt(
        self,
        request: EnrollmentRequest,
        *,
        kind: Kind = Kind.FIRST,
        generation: int = 1,
        now: datetime = NOW,
        proven: bool = False,
    ) -> NewAttempt:
        return NewAttempt(request, kind, generation, proven, self.serial(), now + SIGN, now)

    def leaf(self, serial: Serial) -> SignedLeaf:
        return SignedLeaf(
            serial,
            Pem(f"leaf {serial}"),
            Pem("chain"),
            Fingerprint.of(str(serial).encode()),
            NOW - timedelta(minutes=1),
            NOW + timedelta(days=30),
        )

    async def begin(self, registry: RegistryStore, request: EnrollmentRequest, **more: Any) -> Serial:
        attempt = self.attempt(request, **more)
        await registry.write(lambda t: t.begin_attempt(attempt))
        return attempt.serial

    async def store(
        self, registry: RegistryStore, serial: Serial, *, now: datetime = NOW, leaf: Serial | None = None
    ) -> Stored | Lost:
        signed = self.leaf(leaf or serial)
        return await registry.write(lambda t: t.store_certificate(serial, signed, now))

    async def enroll(self, registry: RegistryStore, name: str, **more: Any) -> Stored:
        request = self.request(name, key=more.pop("key", "1"), wg=more.pop("wg", "1"))
        stored = await self.store(registry, await self.begin(registry, request, **more), now=more.get("now", NOW))
        assert isinstance(stored, Stored)
        return stored


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


Opener = Callable[..., Any]


@pytest.fixture
async def opened(database: str | Path) -> AsyncIterator[Opener]:
    """Opens the test's database, as often as wanted; everything is closed at the end."""
    stores: list[RegistryStore] = []

    async def opening(
        systems: frozenset[System] = ALL, *, migrate: bool = True, quarantine: timedelta = QUARANTINE
    ) -> RegistryStore:
        store = await open_registry(database, systems=systems, quarantine=quarantine, migrate=migrate)
        stores.append(store)
        return store

    yield opening
    for store in stores:
        await store.close()


@pytest.fixture
def installed() -> Callable[[RegistryStore, int], Any]:
    """Writes the installation with a pool of so many addresses."""

    async def install(registry: RegistryStore, addresses: int) -> None:
        row = Installation("id-1", "embedded", "acme", Fingerprint.of(b"root"), (Fingerprint.of(b"sub"),))
        first = IPv4Address("10.8.0.2")
        await registry.write(lambda t: t.install(row, first, first + (addresses - 1), NOW))

    return install


@pytest.fixture
async def registry(opened: Opener, installed: Callable[[RegistryStore, int], Any]) -> RegistryStore:
    """All systems on, and a pool of 50 addresses."""
    store: RegistryStore = await opened()
    await installed(store, 50)
    return store


@pytest.fixture
def refused_by_database() -> Callable[[RegistryStore, str], bool]:
    """Tells whether the database itself refuses a statement (which is rolled back anyway)."""

    def refused(registry: RegistryStore, statement: str) -> bool:
        with registry.engine.connect() as connection:
            transaction = connection.begin()
            try:
                connection.execute(text(statement))
            except IntegrityError:
                return True
            finally:
                transaction.rollback()
        return False

    return refused
