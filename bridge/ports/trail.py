"""The audit trail in the registry: what the sequencer and those who check it need of a transaction.

Lines of the trail are mappings as they lie in the database, **not** checked: whoever reads them must expect anything,
because somebody may have changed them. Names are those of :data:`bridge.model.trail.FIELDS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from bridge.model.identity import DeviceId
from bridge.model.signing import VerifyKey

Line = Mapping[str, Any]
"""A row as it lies in the database."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to seal, until a deadline, with the end of the trail as it was when it was taken."""

    holder: str
    until: datetime
    sequence: int
    """Number of the last sealed entry; 0 for none."""
    chain: str
    """Its chain value, in hex; the genesis for none."""


@dataclass(frozen=True, slots=True)
class Seal:
    """Entries with their numbers and chain values, and the head that ends at the last of them."""

    entries: tuple[tuple[int, int, str], ...]
    """Id, number, chain value; never empty, numbers one after the other."""
    head: str
    """Compact JWS."""

    @property
    def end(self) -> tuple[int, str]:
        """Number and chain value of the last entry."""
        _, sequence, chain = self.entries[-1]
        return sequence, chain


@dataclass(frozen=True, slots=True)
class TrailPage:
    """Part of the sealed trail, of one snapshot."""

    entries: tuple[Line, ...]
    """:data:`bridge.model.trail.FIELDS`, ``sequence`` and ``chain``; in order of ``sequence``."""
    heads: tuple[Line, ...]
    """``sequence`` and ``jws``: those that end within the page, in order."""
    after: Any
    """Where the next page begins."""
    mark: Line | None
    """``sequence`` and ``chain`` of the sequencer's own record of the end; ``None`` before the first seal."""

    @property
    def empty(self) -> bool:
        """True behind the end."""
        return not self.entries and not self.heads


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries to show. Times: from ``since`` on, before ``until``."""

    device: DeviceId | None = None
    action: str | None = None
    """The whole word, or its beginning with a dot at the end: ``certificate.``"""
    since: datetime | None = None
    until: datetime | None = None


class Trail(Protocol):
    """Operations on the trail inside one transaction. None of them changes or deletes a sealed entry."""

    def unsealed(self, limit: int) -> tuple[Line, ...]:
        """Return the oldest entries that are not sealed yet, in order of their ids."""
        ...

    def unsealed_count(self) -> int:
        """Return how many entries are not sealed yet."""
        ...

    def take_turn(self, holder: str, genesis: str, now: datetime, until: datetime) -> Turn | None:
        """Take, or prolong, the right to seal; ``None`` while somebody else has it.

        ``genesis`` counts at the very first time only.
        """
        ...

    def give_turn_back(self, holder: str) -> None:
        """End the holder's right to seal now, if it has it."""
        ...

    def seal(self, turn: Turn, seal: Seal, now: datetime) -> bool:
        """Number and chain the entries and store the head; False, and nothing written, if the turn is over.

        By compare-and-swap on the end of the trail: whatever clocks say, no two seals follow the same entry.

        :raises bridge.errors.StoreUnavailable: an entry is sealed already or is gone; nothing was written.
        """
        ...

    def trail_page(self, after: Any, limit: int) -> TrailPage:
        """Return at most ``limit`` sealed entries and heads behind ``after``; ``None`` begins."""
        ...

    def entries(self, wanted: Wanted, limit: int) -> tuple[Line, ...]:
        """Return the newest ``limit`` entries that are wanted, newest first, sealed or not (``sequence`` ``None``)."""
        ...

    def signing_keys(self) -> tuple[VerifyKey, ...]:
        """Return the keys that heads and receipts may be signed with, oldest first.

        :raises ValueError: one of them is no key any more.
        """
        ...

    def trust_signing_key(self, key: VerifyKey, now: datetime) -> bool:
        """Add a key, the newest; False if it is the newest already."""
        ...
