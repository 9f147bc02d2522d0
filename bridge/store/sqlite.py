"""SQLite: one writer thread that commits what waits together, and a few reader threads.

Measured: group commit is worth seven times the enrollments of one commit each, and ``BEGIN IMMEDIATE`` spares half a
million failed attempts when other processes write too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool

from bridge.errors import StoreUnavailable
from bridge.ports.registry import Transaction
from bridge.store.bell import Bell
from bridge.store.drivers import SqliteDriver
from bridge.store.faults import DATABASE_ERRORS, unavailable
from bridge.store.jobs import Job, tell
from bridge.store.session import Rules
from bridge.store.transaction import SqlTransaction

T = TypeVar("T")

BUSY_SECONDS: Final = 5.0
READERS: Final = 3
MOST_UNITS: Final = 64
"""Units in one commit: bounds how long the first of them waits for the last."""
POLL_SECONDS: Final = 0.2
_log = logging.getLogger(__name__)


def connect(path: Path, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Open the database as every process of this project does: durable, with foreign keys, transactions by hand."""
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, cached_statements=256)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY", "cache_size=-32768"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _connect_reading(path: Path, busy_seconds: float) -> sqlite3.Connection:
    connection = connect(path, busy_seconds)
    connection.execute("PRAGMA query_only=ON")
    return connection


def make_engine(path: Path, *, reading: bool = False, busy_seconds: float = BUSY_SECONDS) -> Engine:
    """Return an engine on the file, which is created with mode 0600; a reading one is refused every write."""
    begin = "BEGIN" if reading else "BEGIN IMMEDIATE"
    opening = _connect_reading if reading else connect
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)  # SQLite gives the files beside it (-wal, -shm) the same mode
    engine = create_engine("sqlite+pysqlite://", creator=lambda: opening(path, busy_seconds), poolclass=NullPool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


class _Thread:
    """A thread that owns one connection and takes jobs from a queue until it finds ``None``."""

    def __init__(self, name: str, engine: Engine, jobs: queue.SimpleQueue[Job[Any] | None], rules: Rules) -> None:
        self._engine = engine
        self._jobs = jobs
        self._rules = rules
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            last = self._work(job)
            if last:
                break
        self._drop_connection()

    def _work(self, job: Job[Any]) -> bool:
        """Do the job; return True if the end was found behind it."""
        raise NotImplementedError

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _connected(self) -> bool:
        return self._connection is not None

    def _transaction(self, connection: Connection, *, writing: bool) -> SqlTransaction:
        driver: Any = connection.connection.driver_connection
        return SqlTransaction(connection, SqliteDriver(driver), self._rules, writing=writing)

    def _roll_back(self) -> None:
        """Undo what is open; a connection that cannot even do that is given up."""
        if self._connection is None:
            return
        try:
            self._connection.rollback()
            # After a COMMIT that failed SQLAlchemy holds the transaction for ended, but SQLite does not.
            driver: Any = self._connection.connection.driver_connection
            driver.rollback()
        except DATABASE_ERRORS:
            self._drop_connection()

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.close()
        except DATABASE_ERRORS:
            _log.warning("a database connection could not be closed cleanly", exc_info=True)


class _Reader(_Thread):
    """Runs one unit after another, each on one snapshot."""

    def _work(self, job: Job[Any]) -> bool:
        try:
            connection = self._open()
            connection.begin()
            job.result = job.unit(self._transaction(connection, writing=False))
        except DATABASE_ERRORS as e:
            job.error = unavailable(e)
            job.error.__cause__ = e
        except BaseException as e:  # noqa: BLE001 - it belongs to the caller, and the thread must live
            job.error = e
        self._roll_back()
        tell((job,))
        return False


class _Writer(_Thread):
    """Commits all units that wait, together; each alone if one of them fails."""

    def __init__(
        self, engine: Engine, jobs: queue.SimpleQueue[Job[Any] | None], rules: Rules, committed: Callable[[], None]
    ) -> None:
        self._committed = committed
        super().__init__("registry-writer", engine, jobs, rules)

    def _work(self, job: Job[Any]) -> bool:
        batch, last = [job], False
        while len(batch) < MOST_UNITS and not last:
            try:
                following = self._jobs.get_nowait()
            except queue.Empty:
                break
            if following is None:
                last = True
            else:
                batch.append(following)
        self._commit_all(batch)
        tell(batch)
        return last

    def _commit_all(self, batch: list[Job[Any]]) -> None:
        if self._commit(batch) or len(batch) == 1 or not self._connected():
            return
        # One of them broke the common transaction: now each stands for itself.
        for number, job in enumerate(batch):
            job.error = job.result = None
            if not self._commit([job]) and not self._connected():
                for other in batch[number + 1 :]:
                    other.result, other.error = None, job.error
                return

    def _commit(self, batch: list[Job[Any]]) -> bool:
        """Run and commit them in one transaction; False if nothing was committed (each then carries the error)."""
        try:
            connection = self._open()
            connection.begin()
        except DATABASE_ERRORS as e:
            # Nobody gets further than this now; asking once for each would take the time-out each time.
            self._drop_connection()
            self._fail(batch, e)
            return False
        try:
            before = _changes(connection)
            for job in batch:
                self._run(connection, job)
            written = _changes(connection) != before
            _still_open(connection)
            connection.commit()
        except BaseException as e:  # noqa: BLE001 - it belongs to the callers, and the thread must live
            self._roll_back()
            self._fail(batch, e)
            return False
        if written:
            self._committed()
        return True

    def _run(self, connection: Connection, job: Job[Any]) -> None:
        """Run one unit. An error is the job's alone if it came before the unit wrote anything; else it is raised."""
        before = _changes(connection)
        transaction = self._transaction(connection, writing=True)
        try:
            job.result = job.unit(transaction)
        except DATABASE_ERRORS:
            raise
        except Exception as e:
            if _changes(connection) != before:
                raise
            job.error = e
        if transaction.doomed is not None:
            raise transaction.doomed

    @staticmethod
    def _fail(batch: list[Job[Any]], error: BaseException) -> None:
        if isinstance(error, DATABASE_ERRORS):
            told: BaseException = unavailable(error)
            told.__cause__ = error
        else:
            told = error
        for job in batch:
            job.result, job.error = None, told


def _changes(connection: Connection) -> int:
    """Return how many rows the connection ever wrote."""
    driver: Any = connection.connection.driver_connection
    changes: int = driver.total_changes
    return changes


def _still_open(connection: Connection) -> None:
    """Some errors end the transaction by themselves; a unit that swallowed one must not be taken for committed."""
    driver: Any = connection.connection.driver_connection
    if not driver.in_transaction:
        raise StoreUnavailable("the database gave the transaction up")


class SqliteStore:
    """The registry in one file. Implements :class:`bridge.ports.registry.Registry`."""

    def __init__(self, path: Path, rules: Rules, *, busy_seconds: float = BUSY_SECONDS) -> None:
        self.engine = make_engine(path, busy_seconds=busy_seconds)
        """The writer's; each commit goes through its ``dialect.do_commit``."""
        self._path = path
        self._bell = Bell()
        self._closed = threading.Event()
        self._watch: threading.Thread | None = None
        self._writes: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._reads: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._writer = _Writer(self.engine, self._writes, rules, self._bell.ring)
        reading = make_engine(path, reading=True, busy_seconds=busy_seconds)
        self._readers = [_Reader(f"registry-reader-{n}", reading, self._reads, rules) for n in range(READERS)]

    async def write(self, unit: Callable[[Transaction], T]) -> T:
        """Run the unit and commit it durably before returning. If it raises, nothing of it is kept."""
        return await self._submit(self._writes, unit)

    async def read(self, unit: Callable[[Transaction], T]) -> T:
        """Run a unit that writes nothing, on one snapshot."""
        return await self._submit(self._reads, unit)

    async def _submit(self, jobs: queue.SimpleQueue[Job[Any] | None], unit: Callable[[Transaction], T]) -> T:
        if self._closed.is_set():
            raise StoreUnavailable("the registry is closed")
        job = Job(unit)
        jobs.put(job)
        return await job.future

    async def changed(self, seconds: float) -> bool:
        """Wait until any process may have committed something, at most ``seconds``; True if so.

        Meant for one consumer: a commit since its last call returned counts.
        """
        if self._watch is None:
            self._watch = threading.Thread(target=self._watch_others, name="registry-watch", daemon=True)
            self._watch.start()
        return await self._bell.wait(seconds)

    def _watch_others(self) -> None:
        """Look for other processes' commits: ``data_version`` moves when another connection has written."""
        seen: int | None = None
        connection: sqlite3.Connection | None = None
        while not self._closed.wait(POLL_SECONDS):
            try:
                connection = connection or connect(self._path)
                version = connection.execute("PRAGMA data_version").fetchone()[0]
            except sqlite3.Error:
                _log.warning("the database cannot be watched for changes", exc_info=True)
                continue
            if version != seen:
                if seen is not None:
                    self._bell.ring()
                seen = version
        if connection is not None:
            connection.close()

    async def close(self) -> None:
        """Finish what was handed over, then end the threads and close the file."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._writes.put(None)
        for _ in self._readers:
            self._reads.put(None)
        # Bounded by the units that wait; nothing else of the loop's matters any longer to this store.
        for thread in (self._writer, *self._readers):
            await asyncio.to_thread(thread.join)
        if self._watch is not None:
            await asyncio.to_thread(self._watch.join)
