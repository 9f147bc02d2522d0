"""What the embedded CA remembers: used tokens, revocations, and every serial it ever signed.

One SQLite file. A used token or a signed serial survives the death of the process (WAL); a revocation
also the loss of power. Not responsible for meaning. Used from one thread.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS used_token (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revoked (
    serial TEXT PRIMARY KEY, at INTEGER NOT NULL, reason_code INTEGER NOT NULL, reason TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS signed (
    id INTEGER PRIMARY KEY, serial TEXT NOT NULL, name TEXT NOT NULL, provisioner TEXT NOT NULL,
    sha256 TEXT NOT NULL, not_after INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS crl (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL);
INSERT OR IGNORE INTO crl VALUES (1, 0);
"""


@dataclass(frozen=True, slots=True)
class Signed:
    """One certificate that this CA signed over HTTP, in the order of signing."""

    serial: int
    name: str
    provisioner: str
    sha256: str
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Revoked:
    """One revocation."""

    serial: int
    at: datetime
    reason_code: int


class Store:
    """The file at ``path``, made where it is missing. ``close()`` ends its use."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def use_token(self, token_id: str) -> bool:
        """Take a token; False if it was taken before. One statement, so that two requests cannot both win."""
        statement = "INSERT OR IGNORE INTO used_token VALUES (?)"
        return self._db.execute(statement, (token_id,)).rowcount == 1

    def add_signed(self, signed: Signed) -> None:
        """Write down a certificate; call it before the certificate leaves."""
        row = (str(signed.serial), signed.name, signed.provisioner, signed.sha256, int(signed.not_after.timestamp()))
        self._db.execute("INSERT INTO signed VALUES (NULL, ?, ?, ?, ?, ?)", row)

    def revoke(self, serial: int, at: datetime, reason_code: int, reason: str) -> bool:
        """Write down a revocation; False if the serial was revoked before."""
        self._db.execute("PRAGMA synchronous=FULL")
        try:
            statement = "INSERT OR IGNORE INTO revoked VALUES (?, ?, ?, ?)"
            row = (str(serial), int(at.timestamp()), reason_code, reason)
            return self._db.execute(statement, row).rowcount == 1
        finally:
            self._db.execute("PRAGMA synchronous=NORMAL")

    def revoked(self) -> tuple[Revoked, ...]:
        """Return every revocation."""
        rows = self._db.execute("SELECT serial, at, reason_code FROM revoked").fetchall()
        return tuple(Revoked(int(s), datetime.fromtimestamp(at, UTC), code) for s, at, code in rows)

    def next_crl_number(self) -> int:
        """Return a number greater than every earlier one."""
        row = self._db.execute("UPDATE crl SET number = number + 1 RETURNING number").fetchone()
        return int(row[0])

    def signed(self) -> tuple[Signed, ...]:
        """Return every certificate signed over HTTP."""
        return _signed(self._db)


def read_signed(path: Path) -> tuple[Signed, ...]:
    """Read the log of signed certificates from a CA's file, also while the CA runs in another process."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        return _signed(db)


def _signed(db: sqlite3.Connection) -> tuple[Signed, ...]:
    rows = db.execute("SELECT serial, name, provisioner, sha256, not_after FROM signed ORDER BY id").fetchall()
    return tuple(Signed(int(s), n, p, h, datetime.fromtimestamp(at, UTC)) for s, n, p, h, at in rows)
