"""The two database drivers behind the few calls that hot statements need."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Protocol

import psycopg

from bridge.store.statement import Statement

Row = tuple[Any, ...]


class Driver(Protocol):
    """Runs hot statements on one connection, inside whatever transaction is open there."""

    locks: bool
    """True where readers of rows that will be written must lock them; False where there is only one writer."""

    def rows(self, statement: Statement, values: Mapping[str, Any]) -> list[Row]:
        """Run it and return all rows."""
        ...

    def row(self, statement: Statement, values: Mapping[str, Any]) -> Row | None:
        """Run it and return the first row."""
        ...

    def run(self, statement: Statement, values: Mapping[str, Any]) -> int:
        """Run an UPDATE, DELETE or INSERT; return the number of rows (not to be relied on for INSERT)."""
        ...


class SqliteDriver:
    """sqlite3; its statement cache keeps every hot statement prepared."""

    locks = False

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, statement: Statement, values: Mapping[str, Any]) -> list[Row]:
        """Run it and return all rows."""
        return self._connection.execute(statement.sqlite, values).fetchall()

    def row(self, statement: Statement, values: Mapping[str, Any]) -> Row | None:
        """Run it and return the first row; all are fetched, since an open cursor would hold the transaction."""
        rows = self._connection.execute(statement.sqlite, values).fetchall()
        return rows[0] if rows else None

    def run(self, statement: Statement, values: Mapping[str, Any]) -> int:
        """Run it and return the number of rows."""
        return self._connection.execute(statement.sqlite, values).rowcount


class PsycopgDriver:
    """psycopg 3, each statement prepared on the server at its first use."""

    locks = True

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self._connection = connection

    def rows(self, statement: Statement, values: Mapping[str, Any]) -> list[Row]:
        """Run it and return all rows."""
        return self._execute(statement, values).fetchall()

    def row(self, statement: Statement, values: Mapping[str, Any]) -> Row | None:
        """Run it and return the first row."""
        return self._execute(statement, values).fetchone()

    def run(self, statement: Statement, values: Mapping[str, Any]) -> int:
        """Run it and return the number of rows."""
        return self._execute(statement, values).rowcount

    def _execute(self, statement: Statement, values: Mapping[str, Any]) -> psycopg.Cursor[Row]:
        return self._connection.execute(statement.postgresql, values, prepare=True)
