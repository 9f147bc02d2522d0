"""PostgreSQL: units in a pool of threads and connections, for several bridge processes on one database.

Transactions are READ COMMITTED, and whoever writes about a device first locks its row; SERIALIZABLE would fail every
second enrollment on the pool's one counter. Two writers of a device that is not there yet meet at its primary key: the
second unit is run again and then sees the first one's row. Reading units are REPEATABLE READ: one snapshot.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.engine import make_url

from bridge.errors import StoreUnavailable
from bridge.ports.registry import Transaction
from bridge.store.bell import Bell
from bridge.store.drivers import PsycopgDriver
from bridge.store.faults import DATABASE_ERRORS, is_transient, unavailable
from bridge.store.jobs import Job, tell
from bridge.store.session import ConflictingWrite, Rules
from bridge.store.transaction import SqlTransaction

T = TypeVar("T")

CONNECTIONS: Final = 16
TRIES: Final = 8
"""Runs of one unit that meets others on the same rows, or a connection that had died, before it is given up."""
PAUSE_SECONDS: Final = 0.002
"""Before the second run; doubled before each further one."""
LOCK_TIMEOUT_MS: Final = 5000
CHANNEL: Final = "iot_bridge"
POLL_SECONDS: Final = 0.2
_log = logging.getLogger(__name__)


def make_engine(url: str, connections: int = CONNECTIONS) -> Engine:
    """Return the engine; no connection is made yet."""
    return create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        isolation_level="READ COMMITTED",
        pool_size=connections,
        max_overflow=0,
        connect_args={
            "connect_timeout": 5,
            "application_name": "iot-bridge",
            "options": f"-c lock_timeout={LOCK_TIMEOUT_MS}",
        },
    )


class PostgresqlStore:
    """The registry in a PostgreSQL database. Implements :class:`bridge.ports.registry.Registry`."""

    def __init__(self, url: str, rules: Rules, *, connections: int = CONNECTIONS) -> None:
        self.engine = make_engine(url, connections)
        """Each commit goes through its ``dialect.do_commit``."""
        self._reading = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._rules = rules
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="registry")
        self._closed = threading.Event()
        self._bell = Bell()
        self._listener: _Listener | None = None

    async def write(self, unit: Callable[[Transaction], T]) -> T:
        """Run the unit and commit it durably before returning. If it raises, nothing of it is kept."""
        return await self._submit(self._write, unit)

    async def read(self, unit: Callable[[Transaction], T]) -> T:
        """Run a unit that writes nothing, on one snapshot."""
        return await self._submit(self._read, unit)

    async def _submit(self, way: Callable[[Callable[[Transaction], T]], T], unit: Callable[[Transaction], T]) -> T:
        if self._closed.is_set():
            raise StoreUnavailable("the registry is closed")
        job = Job(unit)
        self._threads.submit(_do, way, job)
        return await job.future

    def _write(self, unit: Callable[[Transaction], T]) -> T:
        return self._repeated(lambda: self._commit(unit))

    def _read(self, unit: Callable[[Transaction], T]) -> T:
        return self._repeated(lambda: self._look(unit))

    def _repeated(self, once: Callable[[], T]) -> T:
        """Run until it neither meets another transaction on the same rows nor finds its connection dead."""
        for run in range(TRIES):
            try:
                return once()
            except (*DATABASE_ERRORS, ConflictingWrite) as e:
                if not (is_transient(e) or isinstance(e, _Dead)) or run + 1 == TRIES:
                    raise unavailable(e) from e
            time.sleep(PAUSE_SECONDS * 2**run)
        raise AssertionError("the last run returns or raises")

    def _look(self, unit: Callable[[Transaction], T]) -> T:
        with self._reading.connect() as connection:
            return self._guarded(connection, lambda: unit(self._transaction(connection, writing=False)))

    def _commit(self, unit: Callable[[Transaction], T]) -> T:
        with self.engine.connect() as connection:
            transaction = self._transaction(connection, writing=True)
            result = self._guarded(connection, lambda: self._run(connection, transaction, unit))
            try:
                connection.commit()
            except DATABASE_ERRORS as e:
                # Whether it was committed is not known any more, so the unit must not be run again here.
                if not is_transient(e):
                    raise unavailable(e) from e
                raise
        if transaction.stirred:
            self._bell.ring()
            if self._listener is not None:
                self._listener.tell_others()
        return result

    def _run(self, connection: Connection, transaction: SqlTransaction, unit: Callable[[Transaction], T]) -> T:
        connection.begin()
        result = unit(transaction)
        if transaction.doomed is not None:
            raise transaction.doomed
        driver = _driver(connection)
        # The first statement opens the transaction; a unit that had none has nothing to commit.
        if driver.info.transaction_status is TransactionStatus.INERROR:
            raise StoreUnavailable("the database gave the transaction up")
        if transaction.stirred and self._listener is None:
            # A process that listens tells the others after its commit, many in one: NOTIFY inside takes a lock that
            # lets one commit at a time through. A command may be gone by then, and has time.
            driver.execute(f"NOTIFY {CHANNEL}")
        return result

    def _guarded(self, connection: Connection, work: Callable[[], T]) -> T:
        """Give up the pool's connections when this one turns out to be dead: the others will be, too."""
        try:
            return work()
        except DATABASE_ERRORS as e:
            driver = _driver(connection)
            if driver.closed or driver.broken:
                connection.invalidate()
                self.engine.dispose()
                raise _Dead("the connection had died") from e
            raise

    def _transaction(self, connection: Connection, *, writing: bool) -> SqlTransaction:
        return SqlTransaction(connection, PsycopgDriver(_driver(connection)), self._rules, writing=writing)

    async def changed(self, seconds: float) -> bool:
        """Wait until any process may have committed something, at most ``seconds``; True if so.

        Meant for one consumer: a commit since its last call returned counts. The first call may return True at once.
        """
        if self._listener is None:
            self._listener = _Listener(self.engine, self._bell.ring)
        return await self._bell.wait(seconds)

    async def close(self) -> None:
        """Finish what was handed over, then end the threads and give the connections back."""
        if self._closed.is_set():
            return
        self._closed.set()
        await asyncio.to_thread(self._threads.shutdown)
        if self._listener is not None:
            await asyncio.to_thread(self._listener.stop)
        await asyncio.to_thread(self.engine.dispose)


class _Dead(psycopg.OperationalError):
    """The connection was dead before anything could be committed: the unit may be run on another one."""


def _driver(connection: Connection) -> psycopg.Connection[Any]:
    driver: Any = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101 - the engine has no other driver
    return driver


def _do(way: Callable[[Callable[[Transaction], T]], T], job: Job[T]) -> None:
    try:
        job.result = way(job.unit)
    except BaseException as e:  # noqa: BLE001 - it belongs to the caller
        job.error = e
    tell((job,))


class _Listener:
    """Hears of other processes' commits, and tells them of ours, on a connection of its own."""

    def __init__(self, engine: Engine, ring: Callable[[], None]) -> None:
        self._engine = engine
        self._ring = ring
        self._stopped = threading.Event()
        self._news = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="registry-listener", daemon=True)
        self._thread.start()

    def tell_others(self) -> None:
        """Send one notification soon, whatever number of commits it stands for."""
        self._news.set()

    def stop(self) -> None:
        """End the thread; what is still to be told is told."""
        self._stopped.set()
        self._thread.join()

    def _loop(self) -> None:
        arguments, named = self._engine.dialect.create_connect_args(self._engine.url)
        while not self._stopped.is_set():
            try:
                with psycopg.connect(*arguments, **named, connect_timeout=5, autocommit=True) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    self._ring()  # what was committed while nobody listened
                    self._listen(connection)
            except psycopg.Error:
                _log.warning("the database cannot be listened to", exc_info=True)
                self._stopped.wait(1.0)

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        own = connection.info.backend_pid
        while True:
            ending = self._stopped.is_set()
            if self._news.is_set():
                self._news.clear()
                connection.execute(f"NOTIFY {CHANNEL}")
            if ending:
                return
            for note in connection.notifies(timeout=POLL_SECONDS, stop_after=1):
                if note.pid != own:
                    self._ring()
