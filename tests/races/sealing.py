"""A process that writes entries and seals what it finds: ``python -m tests.races.sealing '[DATABASE, NAME, N]'``."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bridge.model.records import System
from bridge.ports.registry import Entry
from bridge.store.open import RegistryStore, open_registry
from tests.crash.sequencing import sequencer


async def work(database: str, name: str, entries: int) -> None:
    """Write all; give the turn back again and again, so that both have it; leave nothing unsealed of one's own."""
    where = database if "://" in database else Path(database)
    store = await open_registry(where, systems=frozenset(System), quarantine=timedelta(hours=1), migrate=False)
    one = sequencer(store, lambda: datetime.now(UTC))
    writing = asyncio.create_task(_write(store, name, entries))
    while not writing.done():
        await one.finish()
        await asyncio.sleep(0)
    await writing
    while await store.read(lambda tx: tx.unsealed_count()):
        await one.finish()
    await store.close()


async def _write(store: RegistryStore, name: str, entries: int) -> None:
    for number in range(entries):
        entry = Entry(datetime.now(UTC), name, "act", None, {"number": number})
        await store.write(lambda tx, e=entry: tx.audit(e))  # type: ignore[misc]


if __name__ == "__main__":
    asyncio.run(work(*json.loads(sys.argv[1])))
