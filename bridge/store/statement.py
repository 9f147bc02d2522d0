"""SQL text for both databases, translated once at import.

A statement is written once, with ``:name`` parameters and two markers that only PostgreSQL needs (SQLite has one
writer): ``{for_update}`` and ``{skip_locked}``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

_PARAMETER: Final = re.compile(r"(?<![:\w]):([a-z_][a-z0-9_]*)")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement as each driver wants it."""

    sqlite: str
    postgresql: str

    @classmethod
    def of(cls, text: str) -> Self:
        """Translate ``text``.

        :raises ValueError: it holds a ``%``, which psycopg would take for a parameter.
        """
        if "%" in text:
            raise ValueError("a statement must not contain %")
        line = " ".join(text.split())
        plain = line.replace(" {for_update}", "").replace(" {skip_locked}", "")
        locking = line.replace("{for_update}", "FOR UPDATE").replace("{skip_locked}", "FOR UPDATE SKIP LOCKED")
        return cls(plain, _PARAMETER.sub(r"%(\1)s", locking))
