"""What an operator is shown of a device, with the states that are derived and never stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from bridge.model.records import Device, DeviceState, Issuance, Kind, Lease, Link, Window


class ShownState(StrEnum):
    """Stored states, and those that follow from links and issuances."""

    REGISTERED = "registered"
    ACTIVE = "active"
    REENROLLING = "reenrolling"
    RETIRING = "retiring"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device with everything that hangs on it, read in one transaction."""

    device: Device
    issuances: tuple[Issuance, ...]
    links: tuple[Link, ...]
    lease: Lease | None
    window: Window | None

    def state(self, now: datetime) -> ShownState:
        """Return the state to show."""
        if self.device.state is DeviceState.REGISTERED:
            return ShownState.REGISTERED
        if self.device.state is DeviceState.TOMBSTONE:
            return ShownState.RETIRING if self.outstanding() else ShownState.RETIRED
        taken = any(i.kind is Kind.REENROLL and i.is_open(now) for i in self.issuances)
        return ShownState.REENROLLING if taken else ShownState.ACTIVE

    def outstanding(self) -> tuple[str, ...]:
        """Return the systems in which a tombstone is not yet verified as gone.

        Systems that are switched off have no link, and hold nothing up.
        """
        return tuple(sorted(link.system.value for link in self.links if link.settled_at is None))
