"""The files that carry the wanted peers over the shared volume (`WG_DATA_DIR`).

- `peers.json`, 0600: `{"revision": 7, "peers": [{"device_id", "public_key", "address"}, ...]}`. Written by
  the bridge, read by `sync` beside the server. The revision only rises.
- `cdm_peers.json`, 0644: `{"device-id": "10.8.0.7", ...}`, nothing else. complete-device-management's
  tools read it.

Not responsible for what an interface really holds: that is `applied_file`.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from wireguard import folder as disk
from wireguard.addresses import Address, parse_address
from wireguard.documents import Document
from wireguard.errors import (
    FileMissingError,
    ForeignFileError,
    InvalidValueError,
    MalformedFileError,
    RevisionConflictError,
    StaleRevisionError,
)
from wireguard.keys import PublicKey
from wireguard.peers import Peer, PeerSet

PEERS_FILE = "peers.json"
CDM_PEERS_FILE = "cdm_peers.json"
_LOCK_FILE = ".peers.lock"


def write_peers(folder: Path, peers: PeerSet) -> bool:
    """Put these peers into both files; True if peers.json changed, False if it said so already.

    Writing the same revision again repeats what a crash may have left undone, and nothing more. A
    peers.json that is cut off or no JSON is replaced. Each file is replaced as a whole; safe beside other
    threads and processes of this host.

    Raises:
        StaleRevisionError: a newer revision is there; nothing was written.
        RevisionConflictError: this revision is there with other peers; nothing was written.
        ForeignFileError: peers.json is valid JSON that is not ours; nothing was written.
        FolderUnusableError: the folder is missing, full, not writable or locked for long.

    """
    with disk.locked(folder / _LOCK_FILE):
        changed = _is_news(folder, peers)
        if changed:
            disk.replace_file(folder / PEERS_FILE, _encode_peers(peers), mode=disk.PRIVATE)
        cdm = _encode_cdm(peers)
        if changed or _content(folder / CDM_PEERS_FILE) != cdm:
            disk.replace_file(folder / CDM_PEERS_FILE, cdm, mode=disk.PUBLIC)
    return changed


def read_peers(folder: Path) -> PeerSet:
    """Read peers.json.

    Raises:
        FileMissingError: there is none: nothing was ever published here, or the volume is not mounted.
        MalformedFileError: it is cut off or not JSON.
        ForeignFileError: it is not ours, holds a value that cannot be, or gives something twice.
        FolderUnusableError: it cannot be read.

    """
    path = folder / PEERS_FILE
    return _decode_peers(Document.parse(path, disk.read(path)))


def read_cdm_peers(folder: Path) -> Mapping[str, Address]:
    """Read cdm_peers.json: device ids and addresses, also those given out before this bridge came.

    Names are as found: they may be no device ids of ours.

    Raises:
        FileMissingError, MalformedFileError, ForeignFileError, FolderUnusableError: as `read_peers`.

    """
    path = folder / CDM_PEERS_FILE
    document = Document.parse(path, disk.read(path))
    return {name: document.parsed(name, parse_address) for name in document.fields}


def _is_news(folder: Path, peers: PeerSet) -> bool:
    path = folder / PEERS_FILE
    try:
        present = Document.parse(path, disk.read(path))
    except (FileMissingError, MalformedFileError):
        return True
    revision = present.whole("revision")
    if revision > peers.revision:
        raise StaleRevisionError(
            f"{path} holds revision {revision}, newer than {peers.revision}. If the registry was restored from "
            "a backup, remove peers.json and applied.json and publish again.",
            path=path,
            present=revision,
        )
    if revision < peers.revision:
        return True
    if _decode_peers(present) != peers:
        raise RevisionConflictError(
            f"{path} holds other peers at the same revision {revision}: two registries write to this folder.",
            path=path,
        )
    return False


def _content(path: Path) -> bytes | None:
    try:
        return disk.read(path)
    except FileMissingError:
        return None


def _encode_peers(peers: PeerSet) -> bytes:
    entries = [
        {"device_id": peer.device_id, "public_key": str(peer.public_key), "address": str(peer.address)}
        for peer in peers.peers
    ]
    return _json({"revision": peers.revision, "peers": entries})


def _encode_cdm(peers: PeerSet) -> bytes:
    return _json({peer.device_id: str(peer.address) for peer in peers.peers})


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"


def _decode_peers(document: Document) -> PeerSet:
    try:
        peers = tuple(
            Peer(
                device_id=entry.text("device_id"),
                public_key=entry.parsed("public_key", PublicKey.parse),
                address=entry.parsed("address", parse_address),
            )
            for entry in document.objects("peers")
        )
        return PeerSet(document.whole("revision"), peers)
    except InvalidValueError as error:
        raise ForeignFileError(f"{document.path} is not a file of ours: {error}", path=document.path) from error
