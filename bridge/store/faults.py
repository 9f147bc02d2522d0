"""What the databases' errors mean: none of them leaves the store."""

from __future__ import annotations

import sqlite3
from typing import Final

import psycopg
from psycopg import errors
from sqlalchemy import exc

from bridge.errors import StoreUnavailable
from bridge.store.session import ConflictingWrite

DATABASE_ERRORS: Final = (sqlite3.Error, psycopg.Error, exc.SQLAlchemyError)
"""Everything that a connection, or the layer above it, raises."""

_TRANSIENT: Final = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    # Two transactions that both saw a row missing: the second one has to look again.
    errors.UniqueViolation,
    errors.ForeignKeyViolation,
    ConflictingWrite,
)
_TEXTS: Final[tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...]] = (
    (errors.DiskFull, "the database server's disk is full"),
    (errors.LockNotAvailable, "the database is locked by another process"),
    (_TRANSIENT, "the database was too busy with the same rows"),
    (psycopg.Error, "the database server does not answer as it should"),
)
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def cause_of(error: BaseException) -> BaseException:
    """Return the driver's own error, without SQLAlchemy's wrapping."""
    if isinstance(error, exc.DBAPIError) and error.orig is not None:
        return error.orig
    return error


def is_transient(error: BaseException) -> bool:
    """True if the same unit may succeed when it is run again at once."""
    return isinstance(cause_of(error), _TRANSIENT)


def unavailable(error: BaseException) -> StoreUnavailable:
    """Return the error to raise instead. Its text names the kind of trouble, never a statement or its values."""
    cause = cause_of(error)
    if isinstance(cause, (sqlite3.IntegrityError, psycopg.IntegrityError)):
        return StoreUnavailable("the database refused a write that breaks a rule of the registry")
    if isinstance(cause, sqlite3.Error):
        return StoreUnavailable(_sqlite_text(cause))
    for kind, text in _TEXTS:
        if isinstance(cause, kind):
            return StoreUnavailable(text)
    return StoreUnavailable("the database does not take the statement")


def _sqlite_text(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary in _BUSY:
        return "the database is locked by another process"
    if primary == sqlite3.SQLITE_FULL:
        return "the disk, or the database file, is full"
    if primary in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return "the database file is damaged"
    return f"the database file cannot be used ({getattr(error, 'sqlite_errorname', 'SQLite error')})"
