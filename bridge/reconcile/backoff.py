"""When to try again: exponential with full jitter, shorter for cuts than for anything else."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from bridge.model.records import Wanted

_FIRST: Final = 0.5
_LONGEST: Final = {Wanted.ABSENT: 15.0, Wanted.PRESENT: 300.0}
"""Seconds. A cut is never put off for longer than 15 s (design, section 5.6)."""


def delay(attempts: int, wanted: Wanted, fraction: float) -> timedelta:
    """Return how long to wait after ``attempts`` failures in a row; ``fraction`` in [0, 1) is the jitter.

    Never less than half the first step, so that a failing system is not asked in a tight loop.
    """
    ceiling = min(_LONGEST[wanted], _FIRST * 2 ** min(attempts, 16))
    return timedelta(seconds=max(_FIRST / 2, ceiling * fraction))
