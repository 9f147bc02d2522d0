"""The folder of the device: the names of its files, and the order in which they are written.

Responsible for which file means what (DESIGN §9), for keys being on the medium before the first request, and for
the flag being written last. Not responsible for how a file is written safely (``enroll.disk.files``), for judging
what lies there (``enroll.disk.survey``), or for the next pair (``enroll.disk.succession``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from enroll import record
from enroll.answer import Identity
from enroll.disk import files
from enroll.disk.files import PUBLIC, SECRET, Disk
from enroll.keys import DeviceKey, KeyFormatError, KeyProvider, WireGuardKey, csr
from enroll.trust import certificates

DEVICE_KEY: Final = "device.key"
DEVICE_CSR: Final = "device.csr"
DEVICE_CRT: Final = "device.crt"
CA_CHAIN: Final = "ca-chain.crt"
ROOT_CRT: Final = "root.crt"
WIREGUARD_KEY: Final = "wg.key"
FLAG: Final = record.NAME
NEXT: Final = "next"

T = TypeVar("T")
_PRIVATE_KEY: Final = b"PrivateKey = "


@dataclass(frozen=True, slots=True)
class Keys:
    """The device's own keys and the request for the first of them, all on disk."""

    device: DeviceKey
    wireguard: WireGuardKey
    csr: bytes


def holds_key(conf: bytes, key: WireGuardKey) -> bool:
    """Return whether the tunnel's configuration is for this private key."""
    return _PRIVATE_KEY + key.private.encode() in conf.splitlines()


class Folder:
    """The files of one device under one path."""

    def __init__(self, path: Path, disk: Disk, provider: KeyProvider, interface: str = "wg0") -> None:
        """Take the folder's path; nothing is read or made yet.

        :param interface: name of the VPN interface; its configuration is ``<interface>.conf``.
        """
        self.path = path
        self.disk = disk
        self.provider = provider
        self.wireguard_conf = path / f"{interface}.conf"
        self.next = path / NEXT

    @property
    def device_key(self) -> Path:
        """Where the device's TLS key lies."""
        return self.path / DEVICE_KEY

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or ``None`` if there is none.

        :raises StorageError: it cannot be read.
        """
        return files.read(self.path / name)

    def write(self, name: str, data: bytes, mode: int) -> None:
        """Put the data under the name, safely.

        :raises StorageError: it cannot be written; the old file is untouched.
        """
        files.write(self.disk, self.path / name, data, mode)

    def make_keys(self, device_id: str) -> list[str]:
        """Make what is missing and return the names of the files made; a key that is there is kept.

        Each file is on the medium when this returns. A lost WireGuard key is taken from the tunnel's
        configuration, if that still holds it: the bridge knows the device by it.

        :raises StorageError: the folder cannot be written.
        :raises KeyFormatError: a key that is there is damaged; ``enroll.disk.survey`` tells that first.
        """
        made: list[str] = []
        content = self.read(DEVICE_KEY)
        device = self.provider.generate() if content is None else self.provider.read(content)
        if content is None:
            self.write(DEVICE_KEY, device.content(), SECRET)
            made.append(DEVICE_KEY)
        if self.read(WIREGUARD_KEY) is None:
            self.write(WIREGUARD_KEY, (self._recovered() or WireGuardKey.generate()).to_text(), SECRET)
            made.append(WIREGUARD_KEY)
        request = self.read(DEVICE_CSR)
        if request is None or not csr.fits(request, device.private, device_id):
            self.write(DEVICE_CSR, csr.build(device.private, device_id), PUBLIC)
            made.append(DEVICE_CSR)
        return made

    def _recovered(self) -> WireGuardKey | None:
        lines = (files.read(self.wireguard_conf) or b"").splitlines()
        held = [line.removeprefix(_PRIVATE_KEY) for line in lines if line.startswith(_PRIVATE_KEY)]
        try:
            return WireGuardKey.from_text(held[0]) if len(held) == 1 else None
        except KeyFormatError:
            return None

    def store(self, identity: Identity, wireguard: WireGuardKey | None) -> None:
        """Write a verified identity; the flag last, so that its presence speaks for all other files.

        A file that already has its content is not written again. Where only the flag differs, it alone is
        replaced, and there is one at every moment.

        :raises StorageError: the folder cannot be written.
        """
        contents = {
            DEVICE_CRT: (certificates.pem([identity.leaf]), PUBLIC),
            CA_CHAIN: (certificates.pem(identity.chain), PUBLIC),
            ROOT_CRT: (certificates.pem(identity.roots), PUBLIC),
        }
        if identity.tunnel is not None and wireguard is not None:
            contents[self.wireguard_conf.name] = (identity.tunnel.render(wireguard.private), SECRET)
        if any(self.read(name) != data for name, (data, _) in contents.items()):
            self.remove(FLAG)
        for name, (data, mode) in contents.items():
            self.write(name, data, mode)
        self.write(FLAG, identity.record.to_json(), PUBLIC)

    def remove(self, name: str) -> None:
        """Remove a file and bring that to the medium; none there is fine.

        :raises StorageError: it cannot be removed.
        """
        files.remove(self.disk, self.path / name)

    def parsed(self, name: str, read: Callable[[bytes], T]) -> T | None:
        """Return a file as a value, or ``None`` if there is none; ``read`` raises what it raises."""
        content = self.read(name)
        return None if content is None else read(content)
