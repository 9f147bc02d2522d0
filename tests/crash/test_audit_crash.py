"""The sequencer is killed before and after each of its commits; the next one goes on, and there is one chain."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bridge.audit.trail import Against, verify_registry
from bridge.model.records import System
from bridge.store.open import RegistryStore, open_registry
from compose.real.postgresql import RealPostgresql
from tests.crash import sequencing

_PROJECT = Path(__file__).resolve().parents[2]
Count = Callable[[str, int], None]


async def opened(database: str, *, migrate: bool = False) -> RegistryStore:
    where = database if "://" in database else Path(database)
    return await open_registry(where, systems=frozenset(System), quarantine=timedelta(hours=1), migrate=migrate)


async def victim(database: str, folder: Path, die_at: int) -> tuple[int, list[str]]:
    """Let a process seal until its fuse blows; return its status and the boundaries that it reached."""
    journal = folder / "journal"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.crash.sequencing", json.dumps([database, str(journal), die_at]), cwd=_PROJECT
    )
    status = await process.wait()
    return status, [line.partition("\t")[2] for line in journal.read_text().splitlines()]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
async def test_killed_at_every_commit_the_next_goes_on(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, count: Count
) -> None:
    deaths: list[str] = []
    for number in itertools.count():
        folder = tmp_path / str(number)
        folder.mkdir()
        database = str(folder / "registry.sqlite")
        if kind == "postgresql":
            cluster: RealPostgresql = request.getfixturevalue("cluster")
            database = cluster.create_database()
        store = await opened(database, migrate=True)
        await sequencing.prepare(store)
        status, reached = await victim(database, folder, number)
        # In the very moment of the death: all that is sealed is good, the rest waits, nothing is lost.
        at_death = await verify_registry(store, Against())
        assert (at_death.good, at_death.entries + (at_death.unsealed or 0)) == (True, sequencing.ENTRIES), str(reached)
        # Another server, as soon as the dead one's turn is over.
        heir = sequencing.sequencer(store, lambda: datetime.now(UTC) + timedelta(seconds=31))
        while await heir.step():
            pass
        await heir.finish()
        after = await verify_registry(store, Against())
        assert (after.good, after.entries, after.unsealed) == (True, sequencing.ENTRIES, 0), str(reached)
        await store.close()
        if status == 0:
            break
        assert status == -signal.SIGKILL
        deaths.append(reached[-1])
    assert deaths == reached
    assert len(deaths) >= 2 * len(["turn", "seal", "seal", "turn given back"])
    count(f"deaths of the sequencer, {kind}", len(deaths))
