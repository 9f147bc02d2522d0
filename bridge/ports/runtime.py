"""Clock and randomness, so that tests own both."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """The time, as aware UTC."""

    def now(self) -> datetime:
        """Return the present moment with ``tzinfo`` UTC."""
        ...


class Randomness(Protocol):
    """A cryptographic random source."""

    def octets(self, count: int) -> bytes:
        """Return ``count`` unpredictable bytes."""
        ...

    def fraction(self) -> float:
        """Return a number in [0, 1), for jitter."""
        ...
