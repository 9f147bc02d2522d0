"""The report of `sync` on the shared volume: what an interface was seen to hold.

`applied.json`, 0600: `{"revision": 7, "at": "2026-01-02T03:04:05Z", "interface": "wg0", "peers":
[{"public_key", "allowed_ips", "endpoint", "latest_handshake", "rx", "tx"}, ...]}`. Times are RFC 3339 UTC,
`endpoint` and `latest_handshake` null where there is none, `rx` and `tx` bytes.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from wireguard import folder as disk
from wireguard.addresses import Endpoint, parse_network
from wireguard.documents import Document, rfc3339
from wireguard.errors import (
    FileMissingError,
    ForeignFileError,
    InvalidValueError,
    MalformedFileError,
    StaleRevisionError,
)
from wireguard.interface import InterfaceName, PeerStatus
from wireguard.keys import PeerKey

APPLIED_FILE = "applied.json"


@dataclass(frozen=True, slots=True)
class Applied:
    """What `interface` held when it was looked at, after the peers of `revision` had been applied to it.

    `at` is aware UTC, read just before the look: the peers were seen at or after it. That a peer is absent
    here is an observation of the interface, not of a file.
    """

    revision: int
    at: datetime
    interface: InterfaceName
    peers: tuple[PeerStatus, ...]

    def by_key(self) -> dict[PeerKey, PeerStatus]:
        """Index the peers by their keys."""
        return {peer.public_key: peer for peer in self.peers}


def write_applied(folder: Path, applied: Applied) -> None:
    """Replace applied.json. The caller is the one `sync` of this folder.

    Raises:
        FolderUnusableError: it could not be written; the former report is unharmed.

    """
    disk.replace_file(folder / APPLIED_FILE, _encode(applied), mode=disk.PRIVATE)


def read_applied(folder: Path) -> Applied:
    """Read applied.json.

    Raises:
        FileMissingError: there is none: `sync` never ran here.
        MalformedFileError: it is cut off or not JSON.
        ForeignFileError: it is not ours.
        FolderUnusableError: it cannot be read.

    """
    path = folder / APPLIED_FILE
    document = Document.parse(path, disk.read(path))
    try:
        return Applied(
            revision=document.whole("revision"),
            at=document.time("at"),
            interface=document.parsed("interface", InterfaceName.parse),
            peers=tuple(_decode_peer(entry) for entry in document.objects("peers")),
        )
    except InvalidValueError as error:
        raise ForeignFileError(f"{path} is not a file of ours: {error}", path=path) from error


def refuse_older(folder: Path, revision: int) -> None:
    """Refuse a revision that is older than the last one reported in this folder.

    A peers.json that was put back from a backup would let devices in again that have been retired since.

    Raises:
        StaleRevisionError: it is older.

    """
    path = folder / APPLIED_FILE
    try:
        present = Document.parse(path, disk.read(path)).whole("revision")
    except (FileMissingError, MalformedFileError, ForeignFileError):
        return
    if present > revision:
        raise StaleRevisionError(
            f"peers.json holds revision {revision}, but {present} was applied already. If the registry was "
            f"restored from a backup, remove {path} to accept it.",
            path=path,
            present=present,
        )


def _encode(applied: Applied) -> bytes:
    value = {
        "revision": applied.revision,
        "at": rfc3339(applied.at),
        "interface": str(applied.interface),
        "peers": [_encode_peer(peer) for peer in applied.peers],
    }
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"


def _encode_peer(peer: PeerStatus) -> dict[str, object]:
    return {
        "public_key": str(peer.public_key),
        "allowed_ips": [str(network) for network in peer.allowed_ips],
        "endpoint": None if peer.endpoint is None else str(peer.endpoint),
        "latest_handshake": None if peer.latest_handshake is None else rfc3339(peer.latest_handshake),
        "rx": peer.rx,
        "tx": peer.tx,
    }


def _decode_peer(entry: Document) -> PeerStatus:
    return PeerStatus(
        public_key=entry.parsed("public_key", PeerKey.parse),
        allowed_ips=tuple(parse_network(text) for text in entry.texts("allowed_ips")),
        endpoint=None if entry.optional_text("endpoint") is None else entry.parsed("endpoint", Endpoint.parse),
        latest_handshake=None if entry.optional_text("latest_handshake") is None else entry.time("latest_handshake"),
        rx=entry.whole("rx"),
        tx=entry.whole("tx"),
    )
