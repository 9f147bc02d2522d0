"""The next pair: made, completed, confirmed and promoted beside the one in use.

Responsible for ``next/`` and for its promotion by recorded steps: ``next/enrolled`` says how far the pair is
(``pending``, then ``current`` once the bridge has confirmed it), and from ``current`` on every start goes
forward only: whatever was promoted already is recognised by the leaf's digest and the key's public half. The word
``current`` is written before the bridge is asked, as ``next/confirmed``: a disk that is full or read-only is found
out while the old pair still opens every door, and what is left to do after the bridge's yes are renames.

Not responsible for asking the bridge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from enroll.answer import Identity
from enroll.disk import files
from enroll.disk.files import PUBLIC, SECRET
from enroll.disk.folder import CA_CHAIN, DEVICE_CRT, DEVICE_CSR, DEVICE_KEY, FLAG, ROOT_CRT, Folder
from enroll.errors import EnrollError, StorageError
from enroll.keys import DeviceKey, KeyFormatError, WireGuardKey, csr
from enroll.plan import Next
from enroll.record import Record, RecordError
from enroll.trust import certificates, leaf
from enroll.wire import CertificateState

CONFIRMED: Final = "confirmed"
"""What the flag of the pair will be once the bridge has confirmed it; of no meaning under this name."""

_PAIR: Final = (DEVICE_KEY, DEVICE_CSR, DEVICE_CRT, CA_CHAIN)


@dataclass(frozen=True, slots=True)
class Unfit:
    """A file that cannot be what its name says."""

    path: Path
    why: str


@dataclass(frozen=True, slots=True)
class Pair:
    """What lies in ``next/`` (and, half promoted, beside it)."""

    state: Next = Next.NONE
    key: DeviceKey | None = None
    csr: bytes | None = None
    record: Record | None = None
    leaf: x509.Certificate | None = None
    unfit: tuple[Unfit, ...] = ()


def look(folder: Folder, device_id: str) -> Pair:
    """Read ``next/`` and say how far the pair is; what does not fit is named, never trusted.

    :raises StorageError: a file cannot be read.
    """
    unfit: list[Unfit] = []
    record = _record(folder, unfit)
    if record is not None and record.state is CertificateState.CURRENT:
        confirmed = _confirmed(folder, record, device_id)
        if confirmed is not None:
            return confirmed
        unfit.append(Unfit(folder.next / FLAG, "is of a pair that is not here any more"))
        record = None
    key = _key(folder.next / DEVICE_KEY, folder, unfit)
    request = files.read(folder.next / DEVICE_CSR)
    certificate = _certificate(folder, key, device_id, unfit)
    if record is not None and (certificate is None or str(certificates.sha256(certificate)) != record.leaf_sha256):
        unfit.append(Unfit(folder.next / FLAG, "does not name the certificate beside it"))
        record = None
    if key is None:
        _orphans(folder, unfit)
        return Pair(Next.NONE, unfit=tuple(unfit))
    if request is not None and not csr.fits(request, key.private, device_id):
        unfit.append(Unfit(folder.next / DEVICE_CSR, "is no request of the key beside it"))
        request = None
    chain = _chain(folder.next / CA_CHAIN, unfit)
    if unfit or record is None or not chain:
        return Pair(Next.KEY if request else Next.NONE, key, request, unfit=tuple(unfit))
    return Pair(Next.PENDING, key, request, record, certificate)


def _record(folder: Folder, unfit: list[Unfit]) -> Record | None:
    content = files.read(folder.next / FLAG)
    try:
        return None if content is None else Record.from_json(content)
    except RecordError as e:
        unfit.append(Unfit(folder.next / FLAG, str(e)))
        return None


def _key(path: Path, folder: Folder, unfit: list[Unfit]) -> DeviceKey | None:
    content = files.read(path)
    try:
        return None if content is None else folder.provider.read(content)
    except KeyFormatError as e:
        unfit.append(Unfit(path, str(e)))
        return None


def _certificate(folder: Folder, key: DeviceKey | None, device_id: str, unfit: list[Unfit]) -> x509.Certificate | None:
    path = folder.next / DEVICE_CRT
    content = files.read(path)
    if content is None or key is None:
        return None
    try:
        certificate = one_certificate(content)
        leaf.check(certificate, device_id, key.spki_sha256)
    except (ValueError, EnrollError) as e:
        unfit.append(Unfit(path, str(e)))
        return None
    return certificate


def _chain(path: Path, unfit: list[Unfit]) -> list[x509.Certificate]:
    content = files.read(path)
    if content is None:
        return []
    try:
        return certificates.load_all(content)
    except ValueError:
        unfit.append(Unfit(path, "is damaged"))
        return []


def _orphans(folder: Folder, unfit: list[Unfit]) -> None:
    """Name what lies there without a key: it can never be of use."""
    named = {entry.path for entry in unfit}
    for name in (DEVICE_CSR, DEVICE_CRT, CA_CHAIN, ROOT_CRT, FLAG, CONFIRMED, folder.wireguard_conf.name):
        path = folder.next / name
        if path not in named and files.read(path) is not None:
            unfit.append(Unfit(path, "is of a key that is not here"))


def one_certificate(content: bytes) -> x509.Certificate:
    """Parse a file that holds exactly one certificate.

    :raises ValueError: it does not.
    """
    try:
        found = certificates.load_all(content)
    except ValueError as e:
        raise ValueError("is damaged") from e
    if len(found) != 1:
        raise ValueError(f"holds {len(found)} certificates, not one")
    return found[0]


def _confirmed(folder: Folder, record: Record, device_id: str) -> Pair | None:
    """Return the confirmed pair if all of it is there, in ``next/`` or promoted already."""

    def found(name: str, fits: Callable[[bytes], bool]) -> bytes | None:
        contents = (files.read(place / name) for place in (folder.next, folder.path))
        return next((content for content in contents if content is not None and fits(content)), None)

    def is_leaf(content: bytes) -> bool:
        try:
            return str(certificates.sha256(one_certificate(content))) == record.leaf_sha256
        except ValueError:
            return False

    certificate_text = found(DEVICE_CRT, is_leaf)
    if certificate_text is None:
        return None
    certificate = one_certificate(certificate_text)

    def is_key(content: bytes) -> bool:
        try:
            leaf.check(certificate, device_id, folder.provider.read(content).spki_sha256)
        except (KeyFormatError, EnrollError):
            return False
        return True

    def is_chain(content: bytes) -> bool:
        try:
            certificates.verify_issued(certificate, certificates.load_all(content)[0])
        except (ValueError, InvalidSignature):
            return False
        return True

    key, chain = found(DEVICE_KEY, is_key), found(CA_CHAIN, is_chain)
    if key is None or chain is None:
        return None
    return Pair(Next.CONFIRMED, folder.provider.read(key), None, record, certificate)


def make_key(folder: Folder, device_id: str) -> DeviceKey:
    """Make the next key and its CSR, or keep the key that is there; both are on the medium when this returns.

    :raises StorageError: the folder cannot be written.
    """
    try:
        folder.disk.make_folder(folder.next)
        folder.disk.sync_folder(folder.path)
    except OSError as e:
        raise StorageError(f"cannot make {folder.next}: {e.strerror or e}; check space and permissions") from e
    content = files.read(folder.next / DEVICE_KEY)
    key = folder.provider.generate() if content is None else folder.provider.read(content)
    if content is None:
        files.write(folder.disk, folder.next / DEVICE_KEY, key.content(), SECRET)
    request = files.read(folder.next / DEVICE_CSR)
    if request is None or not csr.fits(request, key.private, device_id):
        files.write(folder.disk, folder.next / DEVICE_CSR, csr.build(key.private, device_id), PUBLIC)
    return key


def store(folder: Folder, identity: Identity, wireguard: WireGuardKey | None) -> None:
    """Put a verified answer beside the key; ``next/enrolled`` last, with the state that the answer has.

    :raises StorageError: the folder cannot be written.
    """

    def put(name: str, data: bytes, mode: int) -> None:
        files.write(folder.disk, folder.next / name, data, mode)

    put(DEVICE_CRT, certificates.pem([identity.leaf]), PUBLIC)
    put(CA_CHAIN, certificates.pem(identity.chain), PUBLIC)
    put(ROOT_CRT, certificates.pem(identity.roots), PUBLIC)
    if identity.tunnel is not None and wireguard is not None:
        put(folder.wireguard_conf.name, identity.tunnel.render(wireguard.private), SECRET)
    put(FLAG, identity.record.to_json(), PUBLIC)


def prepare(folder: Folder, record: Record) -> Record:
    """Have what a confirmation needs on the medium, and return the record that it will make the flag.

    :raises StorageError: the folder cannot be written: then the bridge must not be asked.
    """
    confirmed = replace(record, state=CertificateState.CURRENT)
    files.write(folder.disk, folder.next / CONFIRMED, confirmed.to_json(), PUBLIC)
    return confirmed


def confirm(folder: Folder) -> None:
    """Make the prepared record the flag; it takes no space.

    :raises StorageError: the folder cannot be written; activating again is harmless.
    """
    try:
        folder.disk.rename(folder.next / CONFIRMED, folder.next / FLAG)
        folder.disk.sync_folder(folder.next)
    except OSError as e:
        raise StorageError(f"cannot confirm {folder.next}: {e.strerror or e}; check space and permissions") from e


def promote(folder: Folder) -> None:
    """Move a confirmed pair to its place; each step is one rename, and repeating all of them is harmless.

    The flag moves last, after everything else is on the medium: until then each start comes back here. Where a name
    comes is synced before where it went: a loss of power in between may leave both names, and never none.

    :raises StorageError: the folder cannot be written; the next start goes on.
    """
    disk = folder.disk
    try:
        for name in (*_PAIR, ROOT_CRT, folder.wireguard_conf.name):
            if (folder.next / name).exists():
                disk.rename(folder.next / name, folder.path / name)
        disk.sync_folder(folder.path)
        disk.sync_folder(folder.next)
        disk.rename(folder.next / FLAG, folder.path / FLAG)
        disk.sync_folder(folder.path)
        disk.sync_folder(folder.next)
    except OSError as e:
        raise StorageError(f"cannot promote {folder.next}: {e.strerror or e}; check space and permissions") from e


def drop(folder: Folder) -> None:
    """Remove a pair that the bridge will never accept again; the flag goes first, the key last.

    Each of the two alone: what is left after a loss of power is a key to go on with, and never a flag or a
    certificate of nothing, which the next start would have to set aside.

    :raises StorageError: the folder cannot be written.
    """
    others = (CONFIRMED, folder.wireguard_conf.name, ROOT_CRT, CA_CHAIN, DEVICE_CRT, DEVICE_CSR)
    try:
        for names in ((FLAG,), others, (DEVICE_KEY,)):
            for name in names:
                folder.disk.remove(folder.next / name)
            if folder.next.is_dir():
                folder.disk.sync_folder(folder.next)
    except OSError as e:
        raise StorageError(f"cannot clear {folder.next}: {e.strerror or e}; check permissions") from e
