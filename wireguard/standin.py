"""An interface in memory, for embedded mode: a real one's rules about peers, but no packets.

Nothing is persisted, as a real interface persists nothing: `peers.json` is the truth, and the first pass
of `sync` fills a new one. Keys and addresses are refused where they are parsed, as for the real interface.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from wireguard.addresses import Endpoint, Network, in_order
from wireguard.errors import RefusedError
from wireguard.interface import InterfaceName, InterfaceState, PeerStatus
from wireguard.keys import PeerKey, PrivateKey, PublicKey
from wireguard.peers import Peer

# What wireguard-go allows; Linux allows 1,048,576.
MAX_PEERS = 65536


class MemoryInterface:
    """A WireGuard interface in this process; implements `interface.Interface`. Safe across threads."""

    def __init__(self, name: InterfaceName, private_key: PrivateKey, *, listen_port: int = 51820) -> None:
        self._name = name
        self._public_key = private_key.public_key
        self._listen_port = listen_port
        self._peers: dict[PeerKey, PeerStatus] = {}
        self._owners: dict[Network, PeerKey] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> InterfaceName:
        """The interface's name."""
        return self._name

    def dump(self) -> InterfaceState:
        """Look at the interface now."""
        with self._lock:
            peers = tuple(sorted(self._peers.values(), key=lambda peer: peer.public_key.raw))
        return InterfaceState(self._public_key, self._listen_port, peers)

    def set_peer(self, public_key: PublicKey, allowed_ips: Sequence[Network]) -> None:
        """Add this peer, or replace the allowed addresses of one that is there.

        Raises:
            RefusedError: the interface holds as many peers as wireguard-go can.

        """
        with self._lock:
            self._set(public_key, allowed_ips)

    def set_peers(self, peers: Sequence[Peer]) -> None:
        """Do `set_peer` for many, in this order. Raises as `set_peer`; the peers before stay set."""
        with self._lock:
            for peer in peers:
                self._set(peer.public_key, (peer.allowed_ip,))

    def remove_peers(self, public_keys: Sequence[PeerKey]) -> None:
        """Remove these peers; one that is not there is no error."""
        with self._lock:
            for key in public_keys:
                removed = self._peers.pop(key, None)
                for network in removed.allowed_ips if removed else ():
                    del self._owners[network]

    def record_traffic(self, public_key: PeerKey, endpoint: Endpoint, at: datetime, *, rx: int, tx: int) -> None:
        """Let a peer look as if it had shaken hands from `endpoint` at `at` (aware) and moved so many bytes.

        Raises:
            RefusedError: there is no such peer.

        """
        with self._lock:
            if public_key not in self._peers:
                raise RefusedError(f"{self._name} has no peer {public_key}.", detail="no such peer")
            seen = replace(self._peers[public_key], endpoint=endpoint, latest_handshake=at, rx=rx, tx=tx)
            self._peers[public_key] = seen

    def _set(self, public_key: PublicKey, allowed_ips: Sequence[Network]) -> None:
        if public_key == self._public_key:
            return
        before = self._peers.get(public_key)
        if before is None and len(self._peers) >= MAX_PEERS:
            raise RefusedError(f"{self._name} holds {MAX_PEERS} peers, no more fit.", detail="too many peers")
        for network in before.allowed_ips if before else ():
            del self._owners[network]
        for network in allowed_ips:
            self._take(network, public_key)
        fresh = PeerStatus(public_key, (), None, None, 0, 0)
        self._peers[public_key] = replace(before or fresh, allowed_ips=in_order(allowed_ips))

    def _take(self, network: Network, public_key: PublicKey) -> None:
        loser = self._owners.get(network)
        if loser is not None and loser in self._peers:
            left = tuple(other for other in self._peers[loser].allowed_ips if other != network)
            self._peers[loser] = replace(self._peers[loser], allowed_ips=left)
        self._owners[network] = public_key
