"""Taking over the folder of a complete-device-management client, so that the device is not enrolled twice.

Responsible for recognising those files (``facts``: ``device-key.pem``, ``.enrolled``, …) and for writing ours from
them. The older files are left as they are: other programs of the device may read them.

The order makes it repeatable: the folder counts as older until ``device.key`` is there, and that is written after
everything it must not be without. Not responsible for asking the bridge; what the older files do not say (broker,
update server) is asked for afterwards.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509

from enroll.disk.files import PUBLIC, SECRET
from enroll.disk.folder import (
    CA_CHAIN,
    DEVICE_CRT,
    DEVICE_CSR,
    DEVICE_KEY,
    FLAG,
    ROOT_CRT,
    WIREGUARD_KEY,
    Folder,
)
from enroll.errors import EnrollError
from enroll.keys import DeviceKey, KeyFormatError, WireGuardKey, csr
from enroll.names import BridgeUrl, Fingerprint
from enroll.record import Record
from enroll.trust import certificates, leaf, paths
from enroll.trust.clock import UNDATED
from enroll.trust.paths import Anchor

OLDER_KEY: Final = "device-key.pem"
OLDER_LEAF: Final = "device.pem"
OLDER_CHAIN: Final = "ca-chain.pem"
OLDER_WIREGUARD_KEY: Final = "wg-private.key"
OLDER_FLAG: Final = ".enrolled"
OLDER_NAMES: Final = (OLDER_FLAG, OLDER_KEY, OLDER_LEAF, OLDER_CHAIN, OLDER_WIREGUARD_KEY, "wg-public.key")

_RENEW_PART: Final = 2 / 3
"""When a certificate without a word from the bridge is renewed: the part of its lifetime that has passed."""


@dataclass(frozen=True, slots=True)
class Older:
    """What an older client left."""

    key: DeviceKey
    wireguard: WireGuardKey | None
    leaf: x509.Certificate | None
    chain: tuple[x509.Certificate, ...]
    """Issuing CA first; the older answer ends with the root."""


def find(folder: Folder) -> Older | None:
    """Return what an older client left, if there is no key of our own yet and its key can be read.

    :raises StorageError: a file cannot be read.
    """
    if folder.read(DEVICE_KEY) is not None or folder.read(FLAG) is not None:
        return None
    try:
        key = folder.parsed(OLDER_KEY, folder.provider.read)
    except KeyFormatError:
        return None
    if key is None:
        return None
    wireguard = None
    with contextlib.suppress(KeyFormatError):
        wireguard = folder.parsed(OLDER_WIREGUARD_KEY, WireGuardKey.from_text)
    chain: list[x509.Certificate] = []
    own: list[x509.Certificate] = []
    with contextlib.suppress(ValueError):
        own = folder.parsed(OLDER_LEAF, certificates.load_all) or []
        chain = folder.parsed(OLDER_CHAIN, certificates.load_all) or []
    return Older(key, wireguard, own[0] if len(own) == 1 else None, tuple(chain))


def take_over(
    folder: Folder, older: Older, device_id: str, pins: tuple[Fingerprint, ...], bridge: BridgeUrl, now: datetime
) -> bool:
    """Write our files from the older ones; return whether the certificate could be taken over too.

    Where it could not (it names a server, or does not lead to a pinned root), the key is taken over alone, and
    the bridge is asked for the certificate of that key.

    :raises StorageError: the folder cannot be written; the next start begins again.
    """
    if older.wireguard is not None:
        folder.write(WIREGUARD_KEY, older.wireguard.to_text(), SECRET)
    held = _held(older, device_id, pins)
    if held is not None:
        certificate, chain, root = held
        folder.write(DEVICE_CRT, certificates.pem([certificate]), PUBLIC)
        folder.write(CA_CHAIN, certificates.pem(chain), PUBLIC)
        folder.write(ROOT_CRT, certificates.pem([root]), PUBLIC)
    folder.write(DEVICE_CSR, csr.build(older.key.private, device_id), PUBLIC)
    folder.write(DEVICE_KEY, older.key.content(), SECRET)
    if held is not None:
        folder.write(FLAG, _record(held[0], device_id, bridge, now).to_json(), PUBLIC)
    return held is not None


def _held(
    older: Older, device_id: str, pins: tuple[Fingerprint, ...]
) -> tuple[x509.Certificate, tuple[x509.Certificate, ...], x509.Certificate] | None:
    root = next((c for c in older.chain if certificates.sha256(c) in pins), None)
    if older.leaf is None or root is None:
        return None
    chain = tuple(c for c in older.chain if c != root)
    try:
        leaf.check(older.leaf, device_id, older.key.spki_sha256)
        paths.check_path(older.leaf, chain, Anchor((root,)), UNDATED)
    except EnrollError:
        return None
    return older.leaf, chain, root


def _record(certificate: x509.Certificate, device_id: str, bridge: BridgeUrl, now: datetime) -> Record:
    valid = certificates.validity(certificate)
    return Record(
        device_id=device_id,
        generation=1,
        serial=certificate.serial_number,
        leaf_sha256=str(certificates.sha256(certificate)),
        address=None,
        not_after=valid.end,
        renew_after=valid.begin + (valid.end - valid.begin) * _RENEW_PART,
        enrolled_at=now,
        bridge=str(bridge),
        endpoint=None,
        mqtt=None,
        hawkbit_url=None,
        hawkbit_tenant=None,
        complete=False,
    )
