"""A victim that seals the audit trail: ``python -m tests.crash.sequencing '[DATABASE, JOURNAL, DIE_AT]'``."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.adapters.runtime import SystemRandomness
from bridge.adapters.signing import FileSigner
from bridge.audit.sequencer import Pace, Sequencer
from bridge.model.identity import DeviceId, Fingerprint
from bridge.model.records import Installation, System
from bridge.ports.registry import Entry
from bridge.store.open import RegistryStore, open_registry
from tests.crash.fuse import Fuse, GuardedRegistry

ENTRIES: Final = 8
_BATCH: Final = 3
_SIGNER: Final = FileSigner(Ed25519PrivateKey.from_private_bytes(b"\x07" * 32))


async def prepare(store: RegistryStore) -> None:
    """Install the registry and write the entries."""
    now = datetime.now(UTC)
    row = Installation("crash", "real", "crash", Fingerprint.of(b"root"), (Fingerprint.of(b"sub"),))
    await store.write(lambda tx: tx.install(row, IPv4Address("10.8.0.2"), IPv4Address("10.8.0.9"), now))
    await store.write(lambda tx: tx.trust_signing_key(_SIGNER.public_key, now))
    for number in range(ENTRIES):
        entry = Entry(now, "device", "certificate.first", DeviceId(f"cam-{number}"), {"number": number})
        await store.write(lambda tx, e=entry: tx.audit(e))  # type: ignore[misc]


def sequencer(registry: Any, now: Callable[[], datetime]) -> Sequencer:
    """Return a sequencer by that clock."""
    clock: Any = SimpleNamespace(now=now)
    return Sequencer(registry, _SIGNER, clock, SystemRandomness(), "crash", Pace(batch=_BATCH))


async def live(database: str, journal: Path, die_at: int) -> None:
    """Seal everything and end in order, or die on the way."""
    where = database if "://" in database else Path(database)
    store = await open_registry(where, systems=frozenset(System), quarantine=timedelta(hours=1), migrate=False)
    fuse = Fuse(die_at, journal, lambda: 0.0, both_sides=True)
    one = sequencer(GuardedRegistry(store, fuse), lambda: datetime.now(UTC))
    fuse.live = True
    await one.finish()
    fuse.live = False
    await store.close()


if __name__ == "__main__":
    _database, _journal, _die_at = json.loads(sys.argv[1])
    asyncio.run(live(_database, Path(_journal), _die_at))
