"""What time it is, and whether that can be believed.

Responsible for reading and setting the system's clocks, and for the belief of the time (``Timekeeper``): a
device without a battery starts in 1970, another one in 2106, and the clock may jump while the agent runs. The
pinned root decides trust, never the clock; dates are left unchecked only while the system's clock is below a
floor that has certainly passed, or beyond the end of the pinned root, and no server's time is believed yet.

Not responsible for checking any date (``enroll.trust.paths``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from enroll import built

if TYPE_CHECKING:  # reading a clock must not load cryptography
    from enroll.trust.certificates import Validity

BUILT_AT: Final = built.BUILT_AT
"""The floor that every build has."""

_NEVER: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""No time to believe: arithmetic must stay within what a datetime can hold."""

_NEAR: Final = timedelta(minutes=1)
"""So far may the system's clock be from the belief and still stand for it."""


class Clock(Protocol):
    """The machine's clocks, unjudged."""

    def now(self) -> datetime:
        """Return what the system's clock shows, aware UTC; it may be wrong by decades, and jump."""

    def monotonic(self) -> float:
        """Return seconds that never jump."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The real thing."""

    def now(self) -> datetime:
        """Return the system's time, aware UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since the boot, those in suspend included (``CLOCK_BOOTTIME``)."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def set(self, moment: datetime) -> None:
        """Set the system's clock.

        :raises OSError: the process may not (``CAP_SYS_TIME``), or the kernel does not take the time.
        """
        time.clock_settime(time.CLOCK_REALTIME, moment.timestamp())


@dataclass(frozen=True, slots=True)
class Belief:
    """The best estimate of the time, aware UTC."""

    now: datetime
    """Never below the floor."""
    trusted: bool
    """False: no date may be judged by ``now``, which then is the floor."""
    floor: datetime
    """A time that has certainly passed."""
    by_system: bool = True
    """The system's clock shows this time, so that whoever reads that clock, as OpenSSL does, judges dates alike."""


class Timekeeper:
    """One run's belief of the time; pure arithmetic over the clock it is given."""

    def __init__(self, clock: Clock, floor: datetime = BUILT_AT) -> None:
        self._clock = clock
        self._floor = floor
        self._end: datetime | None = None
        self._heard: tuple[datetime, float] | None = None

    def raise_floor(self, moment: datetime) -> None:
        """Tell a time that has certainly passed: last authenticated time, notBefore of leaf or CA. Never lowers."""
        self._floor = max(self._floor, min(moment, _NEVER))

    def root_ends(self, moment: datetime) -> None:
        """Tell when a pinned root ends; of several the latest counts."""
        self._end = moment if self._end is None else max(self._end, moment)

    def belief(self) -> Belief:
        """Return the belief at this moment.

        A server's time believed in this run goes on with the monotonic clock, so that a jump of the system's
        clock no longer matters. Before, the system's clock counts if it is neither below the floor nor beyond
        the end of the roots (as far as one is known); else the floor, untrusted.
        """
        if self._heard is not None:
            said, at = self._heard
            now = said + timedelta(seconds=max(0.0, self._clock.monotonic() - at))
            believed = max(now, self._floor)
            near = abs(self._clock.now() - believed) <= _NEAR
            return Belief(believed, trusted=True, floor=self._floor, by_system=near)
        now = self._clock.now()
        if self._floor <= now and (self._end is None or now <= self._end):
            return Belief(now, trusted=True, floor=self._floor)
        return Belief(self._floor, trusted=False, floor=self._floor, by_system=False)

    def hear(self, server_time: datetime, leaf: Validity, chain: Sequence[Validity]) -> bool:
        """Take a server's time, if it holds, and return whether it does; belief and floor then move up to it.

        It holds if it is not below the floor, lies within the leaf received with it, and within every
        certificate of the chain by which that server proved itself: whoever holds an old key of a server
        cannot say a time at which this key was good no longer. The belief never goes back to an earlier server time.

        :param server_time: aware.
        :param leaf: the device's own certificate that came in the same answer.
        :param chain: of the server, as far as it is known; an empty one vouches for nothing.
        """
        if (
            not self._floor <= server_time < _NEVER
            or not chain
            or not all(v.covers(server_time) for v in (leaf, *chain))
        ):
            return False
        if self._heard is None or server_time > self.belief().now:
            self._heard = server_time, self._clock.monotonic()
        self.raise_floor(server_time)
        return True


UNDATED: Final = Belief(BUILT_AT, trusted=False, floor=BUILT_AT, by_system=False)
"""The belief of who looks at structure alone: no date is judged by it."""
