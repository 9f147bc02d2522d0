"""The sequencer: numbers and chains what was committed without chain, in batches, and signs the head of each.

Acts do not wait for it. Of several server processes one has the turn, by a claim with a deadline; that no two seals
follow the same entry is held by the store's compare-and-swap, whatever clocks say.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from bridge.errors import BridgeError
from bridge.model.signing import Purpose
from bridge.model.trail import Head, Malformed, digest, genesis, link
from bridge.ports.registry import Registry, Transaction
from bridge.ports.runtime import Clock, Randomness
from bridge.ports.signing import Signer
from bridge.ports.trail import Line, Seal, Turn

_log = structlog.get_logger("bridge.audit")
_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_LAST_BATCHES: Final = 40
"""At the end of a server: what is more than this waits for the next."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often, and how much at a time."""

    every: timedelta = timedelta(seconds=1)
    """Between two looks: for so long an entry may wait for its seal."""
    rest: timedelta = timedelta(milliseconds=50)
    """Between two batches where more is waiting: acts go first."""
    batch: int = 256
    """Entries under one head. Bounds how long the database's writer is busy with them: a few milliseconds."""
    turn: timedelta = timedelta(seconds=30)
    """How long a turn lasts without being prolonged: so long sealing rests when a server dies in its turn."""


class Sequencer:
    """Seals until cancelled; then what is left, and gives its turn back."""

    def __init__(
        self,
        registry: Registry,
        signer: Signer,
        clock: Clock,
        randomness: Randomness,
        installation: str,
        pace: Pace | None = None,
    ) -> None:
        self._registry = registry
        self._signer = signer
        self._clock = clock
        self._installation = installation
        self._genesis = genesis(installation)
        self._pace = pace or Pace()
        self._holder = f"sequencer-{randomness.octets(8).hex()}"
        self._turn: Turn | None = None
        self._unreadable: set[int] = set()

    async def run(self) -> None:
        """Work until cancelled; a store that does not answer is asked again."""
        try:
            while True:
                full = await self._try() == self._pace.batch
                await asyncio.sleep((self._pace.rest if full else self._pace.every).total_seconds())
        finally:
            await self.finish()

    async def finish(self) -> None:
        """Seal what is left, within reason, and let another process have the turn at once."""
        for _ in range(_LAST_BATCHES):
            before = self._turn
            if not await self._try() and self._turn is before:
                break  # nothing is left; a turn that was lost to a commit of our own is taken once more
        if self._turn is None:
            return
        self._turn = None
        try:
            await self._registry.write(self._give_back)
        except BridgeError as e:
            _log.warning("audit.turn", error=str(e))  # it ends by itself

    async def _try(self) -> int:
        try:
            return await self.step()
        except BridgeError as e:
            _log.warning("audit.seal", error=str(e))
            self._turn = None
            return 0

    async def step(self) -> int:
        """Seal one batch; return how many entries it had. 0: there is nothing, or it is another's turn.

        :raises bridge.errors.StoreUnavailable: the database does not answer, or entries changed meanwhile.
        """
        lines = await self._registry.read(lambda tx: tx.unsealed(self._pace.batch))
        if not lines:
            return 0
        turn = self._turn = await self._have_turn()
        if turn is None:
            return 0
        seal = self._seal(turn, lines)
        if seal is None:
            return 0
        now = self._clock.now()
        if not await self._registry.write(lambda tx: tx.seal(turn, seal, now)):
            self._turn = None
            return 0
        sequence, chain = seal.end
        self._turn = replace(turn, sequence=sequence, chain=chain)
        _log.info("audit.head", sequence=sequence, head=seal.head)
        return len(seal.entries)

    async def _have_turn(self) -> Turn | None:
        """Return the turn, prolonged where half of it is over."""
        now = self._clock.now()
        if self._turn is not None and self._turn.until - now > self._pace.turn / 2:
            return self._turn
        until = now + self._pace.turn
        return await self._registry.write(lambda tx: tx.take_turn(self._holder, self._genesis, now, until))

    def _give_back(self, tx: Transaction) -> None:
        tx.give_turn_back(self._holder)

    def _seal(self, turn: Turn, lines: tuple[Line, ...]) -> Seal | None:
        sequence, chain = turn.sequence, turn.chain
        entries: list[tuple[int, int, str]] = []
        for line in lines:
            try:
                own = digest(line)
            except Malformed as e:
                self._report(line, e)
                continue
            sequence, chain = sequence + 1, link(chain, own)
            entries.append((line["id"], sequence, chain))
        if not entries:
            return None
        at = (self._clock.now() - _EPOCH) // timedelta(microseconds=1)
        head = Head(self._installation, sequence, chain, turn.sequence, at)
        return Seal(tuple(entries), self._signer.sign(head.payload(), Purpose.AUDIT_HEAD))

    def _report(self, line: Line, error: Malformed) -> None:
        """Say once that somebody spoiled an entry before it was sealed; it stays unsealed."""
        if line["id"] not in self._unreadable:
            self._unreadable.add(line["id"])
            _log.error("audit.unreadable", id=line["id"], error=str(error))
