"""SQLite's writer: group commit, what goes wrong in it, and what other processes notice."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Never, Self

import pytest

from bridge.errors import StoreUnavailable
from bridge.ports.registry import Registration
from bridge.store.faults import cause_of
from bridge.store.migrate import prepare
from bridge.store.session import Rules
from bridge.store.sqlite import SqliteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A store that is told sooner that the database is locked."""
    made = SqliteStore(tmp_path / "registry.db", Rules(frozenset(), timedelta(hours=1)), busy_seconds=0.2)
    await asyncio.to_thread(prepare, made.engine, migrate=True)
    yield made
    await made.close()


@pytest.fixture
def commits(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts commits, as a crash harness would: at the one place that all of them pass."""
    counted = []
    commit = store.engine.dialect.do_commit

    def counting(connection: Any) -> None:
        counted.append(1)
        commit(connection)

    monkeypatch.setattr(store.engine.dialect, "do_commit", counting)
    return counted


class Gate:
    """Holds the writer in a unit, so that everything handed over meanwhile waits for one batch."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._entered, self._open = threading.Event(), threading.Event()

    async def __aenter__(self) -> Self:
        def unit(_t: Any) -> None:
            self._entered.set()
            self._open.wait(10)

        self._task = asyncio.create_task(self._store.write(unit))
        await asyncio.to_thread(self._entered.wait, 10)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open.set()
        await self._task


def registering(fleet: Any, name: str) -> Callable[[Any], bool]:
    return lambda t: t.register(Registration(fleet.id(name), fleet.now))


async def known(store: SqliteStore, fleet: Any, *names: str) -> list[str]:
    return [name for name in names if await store.read(lambda t, n=name: t.device(fleet.id(n))) is not None]


async def test_units_that_wait_together_are_committed_together(
    store: SqliteStore, commits: list[int], fleet: Any
) -> None:
    async with Gate(store):
        tasks = [asyncio.create_task(store.write(registering(fleet, f"cam-{n}"))) for n in range(20)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*tasks) == [True] * 20
    assert len(commits) == 2


async def test_a_unit_that_fails_after_writing_hurts_no_other(
    store: SqliteStore, commits: list[int], fleet: Any
) -> None:
    def fails(t: Any) -> Never:
        t.register(Registration(fleet.id("bad"), fleet.now))
        raise ValueError("mine alone")

    async with Gate(store):
        units = [registering(fleet, "a"), fails, registering(fleet, "b")]
        tasks = [asyncio.create_task(store.write(unit)) for unit in units]
        await asyncio.sleep(0)
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert done[0] is done[2] is True
    assert isinstance(done[1], ValueError)
    assert await known(store, fleet, "a", "bad", "b") == ["a", "b"]


async def test_a_refusal_that_wrote_nothing_does_not_undo_the_batch(
    store: SqliteStore, commits: list[int], fleet: Any
) -> None:
    runs = []

    def refuses(_t: Any) -> Never:
        runs.append(1)
        raise ValueError("refused")

    async with Gate(store):
        units = [registering(fleet, "a"), refuses, registering(fleet, "b")]
        tasks = [asyncio.create_task(store.write(unit)) for unit in units]
        await asyncio.sleep(0)
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[1], ValueError)
    assert (len(runs), len(commits)) == (1, 2)


async def test_a_caller_that_gave_up_breaks_nothing_and_its_unit_stands(store: SqliteStore, fleet: Any) -> None:
    async with Gate(store):
        gone = asyncio.create_task(store.write(registering(fleet, "gone")))
        stays = asyncio.create_task(store.write(registering(fleet, "stays")))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
    assert await stays
    assert gone.cancelled()
    assert await known(store, fleet, "gone", "stays") == ["gone", "stays"]


async def test_nobody_is_told_before_the_commit(
    store: SqliteStore, fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_connection: Any) -> Never:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(store.engine.dialect, "do_commit", fails)
        with pytest.raises(StoreUnavailable) as caught:
            await store.write(registering(fleet, "cam-1"))
    assert isinstance(cause_of(caught.value.__cause__), sqlite3.OperationalError)
    assert await known(store, fleet, "cam-1") == []
    assert await store.write(registering(fleet, "cam-1"))


async def test_a_locked_database_is_said_and_survived(store: SqliteStore, fleet: Any, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    tasks = [asyncio.create_task(store.write(registering(fleet, f"cam-{n}"))) for n in range(5)]
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert {(type(one), str(one)) for one in done} == {(StoreUnavailable, "the database is locked by another process")}
    assert await store.read(lambda t: t.devices(None, 10, None)) is not None
    other.execute("ROLLBACK")
    other.close()
    assert await store.write(registering(fleet, "cam-1"))


async def test_a_full_disk_is_said_and_survived(store: SqliteStore, fleet: Any) -> None:
    def limit(pages: int) -> Callable[[Any], None]:
        def unit(t: Any) -> None:
            t._core.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        return unit

    await store.write(limit(1))  # SQLite takes it for the size that the file has now

    async def fill() -> None:
        for n in range(2000):
            await store.write(registering(fleet, f"{n:04}" + "x" * 60))

    with pytest.raises(StoreUnavailable, match="full"):
        await fill()
    assert await store.read(lambda t: t.devices(None, 1, None)) is not None
    await store.write(limit(1_000_000))
    assert await store.write(registering(fleet, "cam-1"))


async def test_an_empty_commit_wakes_nobody_and_a_real_one_at_once(store: SqliteStore, fleet: Any) -> None:
    await store.changed(0)
    await store.write(lambda _t: None)
    assert not await store.changed(0.05)
    waiting = asyncio.create_task(store.changed(10))
    await asyncio.sleep(0)
    await store.write(registering(fleet, "cam-1"))
    assert await waiting


async def test_a_commit_between_two_waits_is_not_missed(store: SqliteStore, fleet: Any) -> None:
    await store.changed(0)
    await store.write(registering(fleet, "cam-1"))
    assert await store.changed(10)


async def test_closing_finishes_what_was_handed_over(store: SqliteStore, fleet: Any) -> None:
    async with Gate(store):
        task = asyncio.create_task(store.write(registering(fleet, "cam-1")))
        await asyncio.sleep(0)
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
    assert await task
    await closing
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.write(registering(fleet, "cam-2"))


ENDLESS = """
import asyncio, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from bridge.model.identity import DeviceId
from bridge.model.records import System
from bridge.ports.registry import Registration
from bridge.store.open import open_registry

async def main():
    store = await open_registry(Path(sys.argv[1]), systems=frozenset(System), quarantine=timedelta(), migrate=False)
    now = datetime.now(UTC)
    async def one(lane):
        number = 0
        while True:
            await store.write(lambda t: t.register(Registration(DeviceId(f"dev-{lane}-{number}"), now)))
            number += 1
            print(lane, number, flush=True)
    await asyncio.gather(*(one(lane) for lane in range(8)))

asyncio.run(main())
"""


async def test_a_writer_that_is_killed_leaves_everything_that_it_promised(
    store: SqliteStore, fleet: Any, tmp_path: Path
) -> None:
    with subprocess.Popen(  # noqa: ASYNC220 - its output is read line by line
        [sys.executable, "-c", ENDLESS, str(tmp_path / "registry.db")], stdout=subprocess.PIPE, text=True
    ) as process:
        promised: dict[int, int] = {}
        for _ in range(200):
            lane, number = map(int, process.stdout.readline().split())
            promised[lane] = number
        os.kill(process.pid, signal.SIGKILL)
        process.stdout.read()
    check = sqlite3.connect(tmp_path / "registry.db")
    assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert check.execute("PRAGMA foreign_key_check").fetchall() == []
    for lane, number in promised.items():
        pattern = f"dev-{lane}-%"
        (count,) = check.execute("SELECT count(*) FROM device WHERE id LIKE ?", (pattern,)).fetchone()
        assert count >= number
    check.close()
    assert await store.write(registering(fleet, "after"))
