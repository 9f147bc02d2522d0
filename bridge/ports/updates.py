"""The update server (hawkBit)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bridge.model.identity import DeviceId


@dataclass(frozen=True, slots=True)
class UpdateTarget:
    """A target as the update server has it."""

    controller_id: str
    description: str | None


class UpdateServer(Protocol):
    """Each call is one observation or one change; deciding is the caller's."""

    async def find(self, device: DeviceId) -> UpdateTarget | None:
        """Return the target of exactly this id."""
        ...

    async def create(self, device: DeviceId, name: str, description: str) -> UpdateTarget:
        """Create the target, its description set in the creating request itself.

        :raises bridge.errors.ForeignObject: the id was taken in the meantime; look again.
        """
        ...

    async def delete(self, device: DeviceId) -> None:
        """Delete the target; done also if it is gone already."""
        ...

    async def check(self) -> None:
        """Ask whether the server answers and knows us.

        :raises bridge.errors.BridgeError: it does not.
        """
        ...
