"""When to try again: one run's budget and full-jitter backoff.

Responsible for arithmetic on seconds, with clock and randomness given by the caller. Full jitter as in
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/: a herd that failed together does
not come back together.

Not responsible for sleeping or for knowing what failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_RETRY_AFTER: Final = 3600.0
"""Longest wait, in seconds, that another side may impose."""

_MAX_DOUBLINGS: Final = 32


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits between attempts: uniform in [0, min(cap, base * 2**failures)], in seconds."""

    base: float
    cap: float

    def __post_init__(self) -> None:
        if not 0 < self.base <= self.cap:
            raise ValueError("a backoff needs 0 < base <= cap")

    def delay(self, failures: int, retry_after: float | None, uniform: Callable[[float, float], float]) -> float:
        """Return the seconds to wait after the given number of failures (1 = the first).

        A ``retry_after`` is never undercut (up to ``MAX_RETRY_AFTER``); jitter comes on top of it.
        """
        ceiling = min(self.cap, self.base * 2.0 ** min(failures - 1, _MAX_DOUBLINGS))
        jitter = uniform(0.0, ceiling)
        if retry_after is None or retry_after <= 0:
            return jitter
        return min(retry_after, MAX_RETRY_AFTER) + jitter


@dataclass(frozen=True, slots=True)
class Budget:
    """The time one run may take, on a monotonic clock."""

    ends_at: float
    monotonic: Callable[[], float]

    @classmethod
    def start(cls, seconds: float, monotonic: Callable[[], float]) -> Budget:
        """Begin a budget now."""
        return cls(monotonic() + seconds, monotonic)

    def remaining(self) -> float:
        """Return the seconds left, never negative."""
        return max(0.0, self.ends_at - self.monotonic())
