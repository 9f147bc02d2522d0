"""The files on the shared volume (`WG_DATA_DIR`): `peers.json`, `cdm_peers.json`, `applied.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from wireguard.addresses import Address
from wireguard.interface import InterfaceName, PeerStatus
from wireguard.keys import PeerKey
from wireguard.peers import PeerSet

PEERS_FILE = "peers.json"
CDM_PEERS_FILE = "cdm_peers.json"
APPLIED_FILE = "applied.json"


@dataclass(frozen=True, slots=True)
class Applied:
    """What an interface was seen to hold at `at`, after the peers of `revision` were applied to it."""

    revision: int
    at: datetime
    interface: InterfaceName
    peers: tuple[PeerStatus, ...]

    def by_key(self) -> dict[PeerKey, PeerStatus]:
        """Index the peers by their keys."""
        return {peer.public_key: peer for peer in self.peers}


def write_peers(folder: Path, peers: PeerSet) -> bool:
    """Write peers.json and cdm_peers.json; False if this very revision was there already."""
    raise NotImplementedError


def read_peers(folder: Path) -> PeerSet:
    """Read peers.json."""
    raise NotImplementedError


def read_cdm_peers(folder: Path) -> Mapping[str, Address]:
    """Read cdm_peers.json, for addresses that were given out before this bridge."""
    raise NotImplementedError


def write_applied(folder: Path, applied: Applied) -> None:
    """Write applied.json."""
    raise NotImplementedError


def read_applied(folder: Path) -> Applied:
    """Read applied.json."""
    raise NotImplementedError
