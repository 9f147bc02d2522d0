"""The system's clock and random source."""

from __future__ import annotations

import random
import secrets
from datetime import UTC, datetime


class SystemClock:
    """The clock of this host, as aware UTC."""

    def now(self) -> datetime:
        """Return the present moment."""
        return datetime.now(UTC)


class SystemRandomness:
    """The operating system's random source."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def octets(self, count: int) -> bytes:
        """Return ``count`` unpredictable bytes."""
        return secrets.token_bytes(count)

    def fraction(self) -> float:
        """Return a number in [0, 1)."""
        return self._random.random()
