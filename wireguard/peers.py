"""What the VPN should hold: the peers that the registry wants, at one revision.

Values only. How they are written to the shared volume is `peers_file`, how they reach an interface `sync`.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from wireguard.addresses import Address, Network, host_network, without_zone
from wireguard.errors import InvalidPeerError
from wireguard.keys import PublicKey

_DEVICE_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Peer:
    """One device in the VPN: its name in the registry, its public key and its one address."""

    device_id: str
    public_key: PublicKey
    address: Address

    def __post_init__(self) -> None:
        """Refuse a name that is not a device id, and an address with a zone."""
        if not _DEVICE_ID.fullmatch(self.device_id):
            raise InvalidPeerError(f"{self.device_id[:80]!r} is not a device id.")
        without_zone(self.address)

    @property
    def allowed_ip(self) -> Network:
        """What the server lets this peer send from: its address alone, `/32` or `/128`."""
        return host_network(self.address)


@dataclass(frozen=True, slots=True)
class PeerSet:
    """All peers that the VPN should hold, as the registry saw them at `revision`.

    `revision` is a number that the registry raises with every change; 0 is the empty beginning. Device
    ids (without regard to case), keys and addresses are each unique. `peers` is kept in the order of ids.
    """

    revision: int
    peers: tuple[Peer, ...]

    def __post_init__(self) -> None:
        """Refuse a negative revision and anything held twice; put the peers in order."""
        if type(self.revision) is not int or self.revision < 0:
            raise InvalidPeerError(f"A revision is a whole number from 0; {self.revision!r} is not.")
        _refuse_twice("device id", (peer.device_id.lower() for peer in self.peers))
        _refuse_twice("public key", (peer.public_key for peer in self.peers))
        _refuse_twice("address", (peer.address for peer in self.peers))
        object.__setattr__(self, "peers", tuple(sorted(self.peers, key=lambda peer: peer.device_id)))


def _refuse_twice(what: str, values: Iterable[object]) -> None:
    value, count = next(iter(Counter(values).most_common(1)), (None, 1))
    if count > 1:
        raise InvalidPeerError(f"The {what} {value} is given to {count} peers.")
