"""The WireGuard server, seen through the files that are shared with the process that runs beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import NamedTuple, Protocol

from bridge.model.identity import WireGuardKey


class Peer(NamedTuple):
    """A device's place in the VPN, as it stands in the registry.

    Plain texts, parsed when they came in: the whole fleet is read each time, and reading must cost little.
    """

    device: str
    key: str
    address: int
    """The IPv4 address as a number."""


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
