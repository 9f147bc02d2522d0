"""The device platform that terminates MQTT (ThingsBoard)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bridge.model.identity import DeviceId, Pem


@dataclass(frozen=True, slots=True)
class PlatformDevice:
    """A device as the platform has it."""

    id: str
    """The platform's own id (a UUID)."""
    credential: str | None
    """What it is admitted by: the digest of a leaf; ``None`` if it is not admitted by a leaf."""


class DevicePlatform(Protocol):
    """Each call is one observation or one change; deciding is the caller's."""

    async def find(self, name: DeviceId) -> PlatformDevice | None:
        """Return the device of exactly this name."""
        ...

    async def create(self, name: DeviceId, label: str | None, leaf: Pem) -> PlatformDevice:
        """Create the device, admitted by this leaf alone.

        :raises bridge.errors.ForeignObject: the name was taken in the meantime; look again.
        """
        ...

    async def put_leaf(self, device: PlatformDevice, leaf: Pem) -> None:
        """Admit the device by this leaf instead. Closes its session, even if nothing changes."""
        ...

    async def lock_out(self, device: PlatformDevice) -> None:
        """Replace the credential by one that nobody has; closes the session. Verified by reading it back."""
        ...

    async def delete(self, device: PlatformDevice) -> None:
        """Delete the device; done also if it is gone already."""
        ...

    async def attributes(self, device: PlatformDevice, keys: Sequence[str]) -> Mapping[str, Any]:
        """Return those of the server-side attributes that exist."""
        ...

    async def write_attributes(self, device: PlatformDevice, values: Mapping[str, Any]) -> None:
        """Set server-side attributes; others stay."""
        ...

    def credential_of(self, leaf: Pem) -> str:
        """Return the ``credential`` by which the platform would admit this leaf."""
        ...

    async def check(self) -> None:
        """Ask whether the platform answers and knows us.

        :raises bridge.errors.BridgeError: it does not.
        """
        ...
