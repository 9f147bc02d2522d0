"""An interface in memory."""

from collections.abc import Sequence

from wireguard.addresses import Network
from wireguard.interface import InterfaceName, InterfaceState
from wireguard.keys import PeerKey, PrivateKey, PublicKey
from wireguard.peers import Peer


class MemoryInterface:
    """The same rules as a real interface, without packets."""

    def __init__(self, name: InterfaceName, private_key: PrivateKey, *, listen_port: int = 51820) -> None:
        self._name = name
        self._public_key = private_key.public_key
        self._listen_port = listen_port

    @property
    def name(self) -> InterfaceName:
        """The interface's name."""
        return self._name

    def dump(self) -> InterfaceState:
        """Look at the interface now."""
        raise NotImplementedError

    def set_peer(self, public_key: PublicKey, allowed_ips: Sequence[Network]) -> None:
        """Add or change one peer."""
        raise NotImplementedError

    def set_peers(self, peers: Sequence[Peer]) -> None:
        """Add or change many."""
        raise NotImplementedError

    def remove_peers(self, public_keys: Sequence[PeerKey]) -> None:
        """Remove these peers."""
        raise NotImplementedError
