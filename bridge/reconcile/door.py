"""What a worker asks of a system's door, and the guard that every call outside passes first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from bridge.errors import BridgeError
from bridge.ports.registry import Claim, Settlement


class ClaimLostError(BridgeError):
    """The claim ended, or the device's fate changed: stop at once, somebody else goes on."""


Guard = Callable[[], Awaitable[None]]
"""Raises :class:`ClaimLostError` unless the claim holds at the device's epoch. Awaited before each change outside."""


class Door(Protocol):
    """Knows how to bring one system into agreement for one device. It looks before it writes."""

    async def agree(self, claim: Claim, guard: Guard) -> Settlement:
        """Look, write only a difference, look again.

        :raises bridge.errors.BridgeError: it could not be done now; the worker tries again later.
        """
        ...
