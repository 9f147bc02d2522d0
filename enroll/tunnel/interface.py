"""What `wg show` says of an interface, without its private key, and whether hands were shaken.

Responsible for reading ``wg show IF dump`` (wg(8)), for comparing it with what is wanted, and for waiting for a
handshake. A tunnel is up when the other side has answered, not when a command has ended without an error.

Not responsible for changing anything.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from enroll.names import HostPort, is_ip
from enroll.trust.clock import Clock
from enroll.tunnel.machine import Machine
from enroll.wgconf import TunnelConfig

POLL: Final = 0.5
"""Seconds between looks for a handshake."""

FRESH: Final = timedelta(seconds=180)
"""A session older than this is dead: REJECT_AFTER_TIME of the WireGuard paper, section 6.1."""

_INTERFACE_FIELDS: Final = 4
_PEER_FIELDS: Final = 8
_MOST_SECONDS: Final = 253402300799
"""The last second of the year 9999: what a ``datetime`` can hold."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer, in ``wg``'s own words."""

    public_key: str
    endpoint: str
    """``address:port``, or ``(none)``."""
    allowed_ips: frozenset[str]
    handshake: int
    """Seconds since 1970 by the system's clock of that moment; 0 is never."""
    keepalive: int


@dataclass(frozen=True, slots=True)
class Shown:
    """An interface as it is."""

    public_key: str
    """``(none)`` where it has no key."""
    peers: tuple[Peer, ...]

    @property
    def handshake(self) -> datetime | None:
        """Time of the latest handshake with any peer."""
        latest = max((peer.handshake for peer in self.peers), default=0)
        return datetime.fromtimestamp(latest, UTC) if latest else None


@dataclass(frozen=True, slots=True)
class Wanted:
    """An interface as it is meant to be."""

    name: str
    values: TunnelConfig
    private_key: str = field(repr=False)
    public_key: str

    def peer_agrees(self, shown: Shown) -> bool:
        """Return whether the interface has our key and the one peer that is wanted, routes aside.

        A server known by its name may have any address.
        """
        if shown.public_key != self.public_key or len(shown.peers) != 1:
            return False
        peer, endpoint = shown.peers[0], self.values.endpoint
        if is_ip(endpoint.host):
            same = peer.endpoint == str(HostPort(str(ipaddress.ip_address(endpoint.host)), endpoint.port))
        else:
            same = peer.endpoint.endswith(f":{endpoint.port}")
        told = (self.values.server_public_key, self.values.persistent_keepalive)
        return same and (peer.public_key, peer.keepalive) == told

    def routes_agree(self, shown: Shown) -> bool:
        """Return whether the interface's peers carry the networks that are wanted."""
        carried = {network for peer in shown.peers for network in peer.allowed_ips}
        return carried == {str(network) for network in self.values.allowed_ips}

    def address_agrees(self, machine: Machine) -> bool:
        """Return whether the interface has the address that is wanted, and no other but its link's own."""
        ended = machine.run(["ip", "-oneline", "address", "show", "dev", self.name, "scope", "global"])
        words = itertools.pairwise(ended.output.split())
        found = {value.partition("/")[0] for name, value in words if name in {"inet", "inet6"}}
        return ended.status == 0 and found == {str(self.values.address.ip)}


def show(machine: Machine, interface: str) -> Shown | None:
    """Return what ``wg`` says of the interface, or ``None``: no such interface, none of WireGuard, or no ``wg``."""
    ended = machine.run(["wg", "show", interface, "dump"])
    return parse(ended.output) if ended.status == 0 else None


def parse(dump: str) -> Shown | None:
    """Read the output of ``wg show IF dump``; ``None`` if it is something else."""
    lines = [line.split("\t") for line in dump.splitlines()]
    if not lines or len(lines[0]) != _INTERFACE_FIELDS or any(len(line) != _PEER_FIELDS for line in lines[1:]):
        return None
    return Shown(lines[0][1], tuple(_peer(line) for line in lines[1:]))


def _peer(line: list[str]) -> Peer:
    public_key, _preshared, endpoint, allowed, handshake, _received, _sent, keepalive = line
    networks = frozenset(allowed.split(",")) if allowed != "(none)" else frozenset[str]()
    return Peer(public_key, endpoint, networks, min(_number(handshake), _MOST_SECONDS), _number(keepalive))


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() else 0


def fresh(shown: Shown, now: datetime) -> bool:
    """Return whether the latest handshake still carries a session, by a clock that may have jumped since."""
    return shown.handshake is not None and abs(now - shown.handshake) < FRESH


def await_handshake(
    machine: Machine, interface: str, before: datetime | None, patience: Callable[[], float], clock: Clock
) -> datetime | None:
    """Return the time of a handshake that carries a session; ``None`` if there was none within the patience.

    :param before: the latest handshake known from before; it counts only if it is still fresh.
    :param patience: seconds that may still be waited; looked at after each poll.
    """
    while True:
        shown = show(machine, interface)
        if shown is not None and (fresh(shown, clock.now()) or shown.handshake != before):
            return shown.handshake
        if patience() < POLL:
            return None
        clock.sleep(POLL)
