"""A registry with a trail, on SQLite and on a real PostgreSQL: entries, a signing key, sequencers, and a check."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.adapters.runtime import SystemRandomness
from bridge.adapters.signing import FileSigner
from bridge.audit.sequencer import Pace, Sequencer
from bridge.audit.trail import Against, Verdict, verify_registry
from bridge.model.identity import DeviceId, Fingerprint
from bridge.model.records import Installation, System
from bridge.ports.registry import Entry
from bridge.store.open import RegistryStore, open_registry

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
INSTALLATION = "0123456789abcdef"


@dataclass
class HandClock:
    """Moves when it is told to."""

    moment: datetime = NOW

    def now(self) -> datetime:
        return self.moment

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@dataclass
class Archive:
    """One registry and what seals it."""

    database: str | Path
    store: RegistryStore
    signer: FileSigner
    clock: HandClock = field(default_factory=HandClock)
    numbers: Iterator[int] = field(default_factory=count)
    others: list[RegistryStore] = field(default_factory=list)

    async def again(self) -> RegistryStore:
        """Open the database as another process would."""
        store = await open_registry(
            self.database, systems=frozenset(System), quarantine=timedelta(hours=1), migrate=False
        )
        self.others.append(store)
        return store

    def sequencer(self, registry: Any = None, *, batch: int = 5, signer: Any = None) -> Sequencer:
        return Sequencer(
            registry or self.store,
            signer or self.signer,
            self.clock,
            SystemRandomness(),
            INSTALLATION,
            Pace(batch=batch, every=timedelta(milliseconds=10), rest=timedelta(milliseconds=1)),
        )

    async def write(self, entries: int, registry: Any = None) -> None:
        """Write so many entries, each unlike all others."""
        for number in (next(self.numbers) for _ in range(entries)):
            device = DeviceId(f"cam-{number % 7}") if number % 5 else None
            request = f"request-{number}" if number % 3 else None
            entry = Entry(self.clock.now(), "operator:é", f"act.{number % 4}", device, {"number": number}, request)
            await (registry or self.store).write(lambda tx, e=entry: tx.audit(e))
            self.clock.advance(0.001)

    async def seal_all(self, sequencer: Sequencer | None = None) -> int:
        """Seal until nothing is left, and give the turn back; return how many entries that were."""
        one, sealed = sequencer or self.sequencer(), 0
        while found := await one.step():
            sealed += found
        await one.finish()
        return sealed

    async def until_sealed(self, entries: int) -> None:
        """Wait for a sequencer that runs beside."""
        async with asyncio.timeout(20):
            verdict = await self.check()
            while verdict.entries < entries:
                await asyncio.sleep(0.01)
                verdict = await self.check()

    async def check(self, **against: Any) -> Verdict:
        return await verify_registry(self.store, Against(**against))


def new_signer() -> FileSigner:
    return FileSigner(Ed25519PrivateKey.generate())


@pytest.fixture
async def archive(database: str | Path) -> AsyncIterator[Archive]:
    """An installed registry with a signing key, and no entry yet."""
    store = await open_registry(database, systems=frozenset(System), quarantine=timedelta(hours=1), migrate=True)
    made = Archive(database, store, new_signer())
    row = Installation(INSTALLATION, "embedded", "acme", Fingerprint.of(b"root"), (Fingerprint.of(b"sub"),))
    await store.write(lambda t: t.install(row, IPv4Address("10.8.0.2"), IPv4Address("10.8.0.9"), NOW))
    await store.write(lambda t: t.trust_signing_key(made.signer.public_key, NOW))
    yield made
    for one in (store, *made.others):
        await one.close()


@pytest.fixture
def another_signer() -> FileSigner:
    return new_signer()
