"""One system's worker: claims what is due, lets the door bring it into agreement, gives the claims back.

Several processes may run a worker for the same system: a link is worked on under a claim whose deadline is longer than
any client's total time-out, so no call of a lost claim can land after another holder has begun.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from bridge.errors import BridgeError
from bridge.model.records import System, Wanted
from bridge.ports.registry import Claim, Entry, Registry, Settlement, Transaction
from bridge.ports.runtime import Clock, Randomness
from bridge.reconcile.backoff import delay
from bridge.reconcile.door import ClaimLostError, Door

_log = structlog.get_logger("bridge.reconcile")

_LAST_MOMENT: Final = 5.0
"""Seconds that work in hand gets when the server ends."""
_REST: Final = 0.03
"""Seconds between two looks: under load one look serves many commits, and enrollments go first."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How hard a worker may press its system."""

    at_once: int = 8
    """Links worked on at the same time."""
    claim_for: timedelta = timedelta(seconds=60)
    """How long a claim holds; longer than the client's total time-out."""
    idle: timedelta = timedelta(seconds=5)
    """Longest sleep without looking whether something is due."""


class Worker:
    """Works off the due links of one system until it is told to stop."""

    def __init__(
        self, system: System, door: Door, registry: Registry, clock: Clock, randomness: Randomness, pace: Pace
    ) -> None:
        self.system = system
        self._door = door
        self._registry = registry
        self._clock = clock
        self._randomness = randomness
        self._pace = pace
        self._holder = f"{system}-{randomness.octets(8).hex()}"
        self._wake = asyncio.Event()
        self._busy: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Look at once whether something is due."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled; what is claimed then is finished first."""
        try:
            while True:
                self._wake.clear()
                wait = await self._look()
                await asyncio.sleep(_REST)
                await self._sleep(wait - _REST)
        finally:
            await self._let_finish()

    async def _let_finish(self) -> None:
        """Give work in hand a moment; what is cut off is taken up again when its claim has run out."""
        if self._busy:
            _, late = await asyncio.wait(self._busy, timeout=_LAST_MOMENT)
            for task in late:
                task.cancel()

    async def step(self) -> int:
        """Claim and work off one batch; return how many links it held."""
        claims = await self._claim(self._pace.at_once)
        await asyncio.gather(*(self._work(claim) for claim in claims))
        return len(claims)

    async def _look(self) -> float:
        """Start work on what is due; return for how many seconds there is nothing more to start."""
        try:
            due = await self._registry.read(lambda tx: tx.next_due(self.system))
            free = self._pace.at_once - len(self._busy)
            now = self._clock.now()
            if due is not None and due <= now and free > 0:
                for claim in await self._claim(free):
                    task = asyncio.create_task(self._work(claim))
                    self._busy.add(task)
                    task.add_done_callback(self._finished)
                due = await self._registry.read(lambda tx: tx.next_due(self.system))
        except BridgeError as e:
            _log.warning("reconcile.store", system=self.system, error=str(e))
            return 1.0
        idle = self._pace.idle.total_seconds()
        if due is None or len(self._busy) >= self._pace.at_once:
            return idle
        return min(idle, max(0.01, (due - self._clock.now()).total_seconds()))

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._busy.discard(task)
        self._wake.set()

    async def _sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        # Not wait_for: before Python 3.12 it can swallow a cancellation that comes together with the event.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _claim(self, limit: int) -> tuple[Claim, ...]:
        now = self._clock.now()
        until = now + self._pace.claim_for
        return await self._registry.write(lambda tx: tx.claim_due(self.system, self._holder, now, until, limit))

    async def _work(self, claim: Claim) -> None:
        async def guard() -> None:
            if not await self._registry.read(lambda tx: tx.claim_holds(claim, self._clock.now())):
                raise ClaimLostError("the claim ended or the device's fate changed")

        try:
            settlement = await self._door.agree(claim, guard)
        except ClaimLostError:
            settlement = Settlement(settled_at=None, next_at=self._clock.now())
        except BridgeError as e:
            settlement = self._failed(claim, str(e))
        except Exception:  # noqa: BLE001 - a bug in one door must not stop the others
            _log.exception("reconcile.bug", system=self.system, device=str(claim.link.device))
            settlement = self._failed(claim, "internal error; see the bridge's log")
        try:
            await self._registry.write(lambda tx: self._settle(tx, claim, settlement))
        except BridgeError as e:
            # The claim runs out by itself and the link is due again.
            _log.warning("reconcile.settle", system=self.system, device=str(claim.link.device), error=str(e))

    def _settle(self, tx: Transaction, claim: Claim, settlement: Settlement) -> None:
        """Give the claim back. A door that was seen shut is an act; what of the CA is, its own door writes down."""
        now = self._clock.now()
        settled = tx.settle(claim, settlement, now) and settlement.settled_at is not None
        if settled and claim.link.wanted is Wanted.ABSENT and self.system is not System.CA:
            detail = {"system": self.system.value, "epoch": claim.epoch}
            tx.audit(Entry(now, "reconciler", "link.cut", claim.link.device, detail))

    def _failed(self, claim: Claim, text: str) -> Settlement:
        wait = delay(claim.link.attempts, claim.link.wanted, self._randomness.fraction())
        _log.info("reconcile.failed", system=self.system, device=str(claim.link.device), error=text)
        return Settlement(settled_at=None, next_at=self._clock.now() + wait, error=text)
