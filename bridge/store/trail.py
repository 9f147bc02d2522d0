"""The audit trail: sealing entries, one turn at a time, and reading what was sealed, whatever became of it.

Not responsible for appending (:meth:`bridge.store.reading.Reading.audit`, in the act's own transaction), nor for
digests and signatures: what is to be written is handed over.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, bindparam, func, select, update

from bridge.errors import StoreUnavailable
from bridge.model.signing import VerifyKey
from bridge.model.trail import FIELDS
from bridge.ports.trail import Line, Seal, TrailPage, Turn, Wanted
from bridge.store import statements as sql
from bridge.store.rows import micros
from bridge.store.schema import AUDIT, AUDIT_HEAD, AUDIT_SEQUENCER, SIGNING_KEY
from bridge.store.session import Session

_FIRST: Final = -(2**63)
_COLUMNS: Final = tuple(AUDIT.c[name] for name in FIELDS)
_SEALED: Final = select(*_COLUMNS, AUDIT.c.sequence, AUDIT.c.hash.label("chain"))
_HEADS: Final = select(AUDIT_HEAD.c.sequence, AUDIT_HEAD.c.jws)
_MARK: Final = select(AUDIT_SEQUENCER.c.sequence, AUDIT_SEQUENCER.c.hash.label("chain"))
_NUMBER: Final = (
    update(AUDIT)
    .where(AUDIT.c.id == bindparam("entry"), AUDIT.c.sequence.is_(None))
    .values(sequence=bindparam("number"), hash=bindparam("chain"))
)


class Trail(Session):
    """What the sequencer does, and what those who check the trail read."""

    def unsealed(self, limit: int) -> tuple[Line, ...]:
        """Return the oldest entries that are not sealed yet, in order of their ids."""
        return self._lines(select(*_COLUMNS).where(AUDIT.c.sequence.is_(None)).order_by(AUDIT.c.id).limit(limit))

    def unsealed_count(self) -> int:
        """Return how many entries are not sealed yet."""
        return self._core.scalar(select(func.count()).where(AUDIT.c.sequence.is_(None))) or 0

    def take_turn(self, holder: str, genesis: str, now: datetime, until: datetime) -> Turn | None:
        """Take, or prolong, the right to seal; ``None`` while somebody else has it."""
        values = {"holder": holder, "genesis": genesis, "now": micros(now), "until": micros(until)}
        row = self._hot.row(sql.TAKE_TURN, values)
        return None if row is None else Turn(holder, until, row[0], row[1])

    def give_turn_back(self, holder: str) -> None:
        """End the holder's right to seal now, if it has it."""
        self._hot.run(sql.GIVE_TURN_BACK, {"holder": holder})

    def seal(self, turn: Turn, seal: Seal, now: datetime) -> bool:
        """Number and chain the entries and store the head; False, and nothing written, if the turn is over.

        :raises StoreUnavailable: an entry is sealed already or is gone; nothing was written.
        """
        end, end_hash = seal.end
        moved = self._hot.run(
            sql.MOVE_END,
            {
                "holder": turn.holder,
                "now": micros(now),
                "sequence": turn.sequence,
                "hash": turn.chain,
                "end": end,
                "end_hash": end_hash,
            },
        )
        if moved != 1:
            return False
        rows = [{"entry": entry, "number": number, "chain": chain} for entry, number, chain in seal.entries]
        if self._core.execute(_NUMBER, rows).rowcount != len(rows):
            self.doomed = StoreUnavailable("entries of the audit trail were changed while they were being sealed")
            raise self.doomed
        self._core.execute(AUDIT_HEAD.insert().values(sequence=end, jws=seal.head))
        return True

    def trail_page(self, after: Any, limit: int) -> TrailPage:
        """Return at most ``limit`` sealed entries and heads behind ``after``; ``None`` begins."""
        start = _FIRST if after is None else after
        entries = self._lines(_SEALED.where(AUDIT.c.sequence > start).order_by(AUDIT.c.sequence).limit(limit))
        heads = self._lines(_HEADS.where(AUDIT_HEAD.c.sequence > start).order_by(AUDIT_HEAD.c.sequence).limit(limit))
        # A page ends where the shorter of two full lists ends; what lies behind belongs to the next one.
        ends = [_place(lines[-1]) for lines in (entries, heads) if len(lines) == limit]
        end = min(ends, default=None)
        if end is not None:
            entries, heads = (tuple(one for one in lines if _place(one) <= end) for lines in (entries, heads))
        last = max((*entries, *heads), key=_place, default=None)
        marks = self._lines(_MARK)
        return TrailPage(entries, heads, start if last is None else last["sequence"], marks[0] if marks else None)

    def entries(self, wanted: Wanted, limit: int) -> tuple[Line, ...]:
        """Return the newest ``limit`` entries that are wanted, newest first."""
        query = _SEALED.order_by(AUDIT.c.id.desc()).limit(limit)
        if wanted.device is not None:
            # Whatever spelling somebody asks for: entries have the one that was registered first.
            query = query.where(AUDIT.c.device.in_((wanted.device.value, self._spelling(wanted))))
        if wanted.action is not None:
            prefix = wanted.action.endswith(".")
            query = query.where(
                AUDIT.c.action.startswith(wanted.action, autoescape=True) if prefix else AUDIT.c.action == wanted.action
            )
        if wanted.since is not None:
            query = query.where(AUDIT.c.at >= micros(wanted.since))
        if wanted.until is not None:
            query = query.where(AUDIT.c.at < micros(wanted.until))
        return self._lines(query)

    def _spelling(self, wanted: Wanted) -> str | None:
        if wanted.device is None:
            return None
        row = self._hot.row(sql.KNOWN, {"folded": wanted.device.folded})
        return None if row is None else str(row[0])

    def signing_keys(self) -> tuple[VerifyKey, ...]:
        """Return the keys that heads and receipts may be signed with, oldest first."""
        found = self._core.scalars(select(SIGNING_KEY.c.public_key).order_by(SIGNING_KEY.c.position))
        return tuple(VerifyKey.from_pem(str(one)) for one in found)

    def trust_signing_key(self, key: VerifyKey, now: datetime) -> bool:
        """Add a key, the newest; False if it is the newest already."""
        known = self.signing_keys()
        if known and known[-1] == key:
            return False
        self._core.execute(
            SIGNING_KEY.insert().values(position=len(known) + 1, public_key=key.pem, added_at=micros(now))
        )
        return True

    def _lines(self, query: Select[Any]) -> tuple[Line, ...]:
        return tuple(dict(row) for row in self._core.execute(query).mappings())


def _place(line: Line) -> tuple[bool, Any]:
    """Return where a line stands; a number that is none, which SQLite would keep, comes behind all others."""
    number = line["sequence"]
    return type(number) is not int, number if type(number) is int else 0
