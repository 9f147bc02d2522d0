"""Opening the registry: which database, at which schema."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Protocol, TypeVar

from sqlalchemy import Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from bridge.errors import Misconfigured
from bridge.model.records import System
from bridge.ports.registry import Registry
from bridge.store.lock import FolderLock
from bridge.store.migrate import prepare
from bridge.store.session import Rules
from bridge.store.sqlite import SqliteStore

__all__ = ["FolderLock", "RegistryStore", "open_registry"]

T = TypeVar("T")


class RegistryStore(Registry, Protocol):
    """A registry that can be closed."""

    engine: Engine
    """Every commit goes through its ``dialect.do_commit``."""

    async def close(self) -> None:
        """Finish what was handed over and give everything back."""
        ...


async def open_registry(
    url_or_path: str | Path, *, systems: frozenset[System], quarantine: timedelta, migrate: bool
) -> RegistryStore:
    """Open the registry in a SQLite file (a path) or a PostgreSQL database (a URL).

    ``systems`` are the outside systems switched on; ``ca`` always is. ``quarantine`` is how long an address rests.
    With ``migrate`` the database is created or brought to the present schema; for a file the caller holds its
    :class:`bridge.store.lock.FolderLock`.

    :raises Misconfigured: the URL is none of ours, or the database is at another schema and ``migrate`` is False.
    :raises bridge.errors.StoreUnavailable: the database does not answer.
    """
    rules = Rules(systems | {System.CA}, quarantine)
    maker = _maker(url_or_path, rules, migrate=migrate)
    store = await asyncio.to_thread(maker)
    try:
        await asyncio.to_thread(prepare, store.engine, migrate=migrate)
        if migrate:
            await store.write(lambda t: t.adopt_systems())  # type: ignore[attr-defined]  # the store's own
    except BaseException:
        await store.close()
        raise
    return store


def _maker(url_or_path: str | Path, rules: Rules, *, migrate: bool) -> Callable[[], RegistryStore]:
    path = url_or_path if isinstance(url_or_path, Path) else _path_of(url_or_path)
    if path is None:
        from bridge.store.postgresql import PostgresqlStore  # noqa: PLC0415 - its driver, only where it is used

        url = str(url_or_path)
        return lambda: PostgresqlStore(url, rules)
    if not migrate and not path.exists():
        raise Misconfigured(f"there is no registry at {path} yet; start `iot-bridge serve` first (BRIDGE_DATA)")
    return lambda: _sqlite(path, rules)


def _sqlite(path: Path, rules: Rules) -> RegistryStore:
    try:
        return SqliteStore(path, rules)
    except OSError as e:
        raise Misconfigured(f"the database file {path} cannot be opened ({e.strerror}); check BRIDGE_DATA") from e


def _path_of(text: str) -> Path | None:
    """Return the file of a ``sqlite`` URL or a bare path; ``None`` for PostgreSQL."""
    if "://" not in text:
        return Path(text)
    try:
        url = make_url(text)
    except ArgumentError as e:
        raise Misconfigured("BRIDGE_DATABASE_URL is not a URL") from e
    if url.drivername in {"postgresql", "postgres", "postgresql+psycopg"}:
        return None
    if url.drivername == "sqlite" and url.database:
        return Path(url.database)
    raise Misconfigured("BRIDGE_DATABASE_URL must begin with postgresql:// or sqlite:///")
