"""The WireGuard server, seen through the files that are shared with the process that runs beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol

from bridge.model.identity import DeviceId, WireGuardKey


@dataclass(frozen=True, slots=True)
class Peer:
    """A device's place in the VPN."""

    device: DeviceId
    key: WireGuardKey
    address: IPv4Address


@dataclass(frozen=True, slots=True)
class Applied:
    """What the process at the interface last reported of it."""

    revision: int
    peers: frozenset[tuple[WireGuardKey, IPv4Address]]


class TunnelServer(Protocol):
    """Publishing is not applying: agreement is only what was reported back."""

    async def publish(self, revision: int, peers: Sequence[Peer]) -> None:
        """Write the whole set of peers durably, unless a newer revision stands there already."""
        ...

    async def applied(self) -> Applied | None:
        """Return the last report; ``None`` if there is none yet.

        :raises bridge.errors.SystemFailed: the report cannot be read.
        """
        ...
