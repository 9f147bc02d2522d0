"""The system's clocks, as the agent's ``Clock``.

Responsible for reading time and waiting; not for whether the time read is right.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime


class SystemClock:
    """The real thing."""

    def now(self) -> datetime:
        """Return the system's time, aware UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
