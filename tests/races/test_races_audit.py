"""Two processes write entries and seal them at once: one chain, every entry in it once."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from bridge.audit.trail import Against, verify_registry
from bridge.model.records import System
from bridge.store.open import open_registry
from compose.real.postgresql import RealPostgresql
from tests.crash import sequencing

_PROJECT = Path(__file__).resolve().parents[2]
PROCESSES, ENTRIES = 2, 300
Count = Callable[[str, int], None]


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "registry.sqlite")
        return
    with RealPostgresql() as server:
        yield server.create_database()


@pytest.mark.timeout(200)
@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.real)], indirect=True)
async def test_two_processes_that_write_and_seal_at_once_make_one_chain(database: str, count: Count) -> None:
    where = database if "://" in database else Path(database)
    store = await open_registry(where, systems=frozenset(System), quarantine=timedelta(hours=1), migrate=True)
    await sequencing.prepare(store)
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.races.sealing", json.dumps([database, name, ENTRIES]), cwd=_PROJECT
        )
        for name in "ab"
    ]
    assert [await process.wait() for process in processes] == [0] * PROCESSES
    with store.engine.connect() as connection:
        sealers = Counter(connection.scalars(text("SELECT actor FROM audit WHERE sequence IS NOT NULL")))
    verdict = await verify_registry(store, Against())
    await store.close()
    assert (verdict.good, verdict.unsealed) == (True, 0)
    assert verdict.entries == sequencing.ENTRIES + PROCESSES * ENTRIES
    assert (sealers["a"], sealers["b"]) == (ENTRIES, ENTRIES)
    count("two sequencers at once: entries in one chain", verdict.entries)
    count("two sequencers at once: heads", verdict.heads)
