"""The WireGuard server, seen through the files that are shared with the process that runs beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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


@dataclass(frozen=True)
class Applied:
    """What the process at the interface last reported of it."""

    revision: int
    peers: frozenset[tuple[WireGuardKey, IPv4Address]]

    @cached_property
    def holders(self) -> Mapping[IPv4Address, frozenset[WireGuardKey]]:
        """The keys at each address; indexed once a report, for every link asks and the report lists the whole fleet."""
        found: dict[IPv4Address, set[WireGuardKey]] = {}
        for key, address in self.peers:
            found.setdefault(address, set()).add(key)
        return {address: frozenset(keys) for address, keys in found.items()}

    @cached_property
    def keys(self) -> frozenset[WireGuardKey]:
        """The keys of all peers."""
        return frozenset(key for key, _ in self.peers)


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
