"""What a WireGuard interface is to this package: its name, what it shows, what can be done to it.

The port between `sync` and the two things behind it: the real interface (`tool`) and the one in memory
(`standin`). No process and no file here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self

from wireguard.addresses import Endpoint, Network
from wireguard.errors import InvalidInterfaceNameError
from wireguard.keys import PeerKey, PublicKey
from wireguard.peers import Peer

# wg-quick's own rule; a leading '-' would be read as an option, and '.' and '..' are folders.
_NAME = re.compile(r"[A-Za-z0-9_=+.][A-Za-z0-9_=+.-]{0,14}")


@dataclass(frozen=True, slots=True)
class InterfaceName:
    """The name of a network interface: 1 to 15 characters that wg-quick and Linux accept."""

    text: str

    def __post_init__(self) -> None:
        """Refuse what could be an option or a path."""
        if not _NAME.fullmatch(self.text) or self.text in {".", ".."}:
            raise InvalidInterfaceNameError(
                f"{self.text[:40]!r} is not an interface name: 1 to 15 of A-Z a-z 0-9 _ = + . -, such as wg0."
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name.

        Raises:
            InvalidInterfaceNameError: it is not one.

        """
        return cls(text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One peer as an interface shows it. Its preshared key, if any, is not kept.

    `latest_handshake` is aware UTC, None if there never was one; `rx` and `tx` are bytes since the peer
    was added. `public_key` may be one that this package would never add.
    """

    public_key: PeerKey
    allowed_ips: tuple[Network, ...]
    endpoint: Endpoint | None
    latest_handshake: datetime | None
    rx: int
    tx: int


@dataclass(frozen=True, slots=True)
class InterfaceState:
    """What `wg show IF dump` says, without its secrets. `public_key` is None if no key is set.

    `peers` is in the order of their keys: a real interface shows them in any order.
    """

    public_key: PeerKey | None
    listen_port: int
    peers: tuple[PeerStatus, ...]


class Interface(Protocol):
    """A WireGuard interface that holds peers.

    Rules that hold for every implementation, as they do for Linux and wireguard-go:

    - an allowed address belongs to one peer; giving it to another takes it from the first, silently;
    - removing a peer that is not there succeeds; removal ends the session at once;
    - setting a peer replaces all its allowed addresses and keeps its session;
    - the interface's own public key as a peer is silently left out.

    Every method raises subclasses of `InterfaceError` only.
    """

    @property
    def name(self) -> InterfaceName:
        """The interface's name."""

    def dump(self) -> InterfaceState:
        """Look at the interface now."""

    def set_peer(self, public_key: PublicKey, allowed_ips: Sequence[Network]) -> None:
        """Add this peer, or replace the allowed addresses of one that is there."""

    def set_peers(self, peers: Sequence[Peer]) -> None:
        """Do `set_peer` for many at once, in this order."""

    def remove_peers(self, public_keys: Sequence[PeerKey]) -> None:
        """Remove these peers."""
