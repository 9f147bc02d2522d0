"""The folder of the device: which file means what, and whether together they hold.

Responsible for the file names (DESIGN §9), the order of writing (keys before the first request; the flag
last), and for judging what lies there at a start: the state on disk is the agent's only memory.

Not responsible for how a file is written safely (``enroll.files``) or for what the bridge answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography import x509

from enroll import csr, files, leaf, trust
from enroll.answer import Identity
from enroll.errors import EnrollError, StorageError
from enroll.files import PUBLIC, SECRET, Disk
from enroll.keys import KeyFormatError, WireGuardKey
from enroll.keys.file import FileKey as DeviceKey
from enroll.names import Fingerprint
from enroll.record import Record, RecordError, rfc3339
from enroll.trust import Anchor

DEVICE_KEY: Final = "device.key"
DEVICE_CSR: Final = "device.csr"
DEVICE_CRT: Final = "device.crt"
CA_CHAIN: Final = "ca-chain.crt"
ROOT_CRT: Final = "root.crt"
WIREGUARD_KEY: Final = "wg.key"
WIREGUARD_CONF: Final = "wg0.conf"
FLAG: Final = "enrolled"

_K = TypeVar("_K", DeviceKey, WireGuardKey)


class NotEnrolledError(EnrollError):
    """The folder holds no valid enrollment; the text says what is missing or does not hold."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The device's own keys and the request for the first of them, all on disk."""

    device: DeviceKey
    wireguard: WireGuardKey
    csr: bytes


@dataclass(frozen=True, slots=True)
class Enrollment:
    """A flag and the certificates it stands for, read back and checked."""

    record: Record
    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    anchor: Anchor

    def presented(self) -> bytes:
        """Return what the device shows to a server: PEM, leaf first, then its issuers."""
        return trust.pem([self.leaf, *self.chain])

    def summary(self) -> dict[str, Any]:
        """Return the non-secret facts, as events and ``status`` tell them."""
        record = self.record
        broker = {"host": record.mqtt.host, "port": record.mqtt.port} if record.mqtt else None
        hawkbit = {"url": record.hawkbit_url, "tenant": record.hawkbit_tenant} if record.hawkbit_url else None
        return {
            "device_id": record.device_id,
            "generation": record.generation,
            "serial": str(record.serial),
            "leaf_sha256": record.leaf_sha256,
            "issuer_chain": [trust.subject(c) for c in (*self.chain, self.anchor.root)],
            "root_sha256": str(trust.sha256(self.anchor.root)),
            "not_before": rfc3339(self.leaf.not_valid_before_utc),
            "not_after": rfc3339(record.not_after),
            "renew_after": rfc3339(record.renew_after),
            "enrolled_at": rfc3339(record.enrolled_at),
            "address": record.address,
            "bridge": record.bridge,
            "mqtt": broker,
            "hawkbit": hawkbit,
        }


class Folder:
    """The files of one device under one path."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path = path
        self._disk = disk

    @property
    def device_key(self) -> Path:
        """Where the device's TLS key lies."""
        return self.path / DEVICE_KEY

    @property
    def wireguard_conf(self) -> Path:
        """Where wg-quick finds its configuration; its stem is the interface's name."""
        return self.path / WIREGUARD_CONF

    def keys(self, device_id: str) -> Keys | None:
        """Return the keys and a CSR that fits both, or ``None`` if one is missing or damaged.

        :raises StorageError: a file cannot be read.
        """
        try:
            device = self._key(DEVICE_KEY, DeviceKey.from_pem)
            wireguard = self._key(WIREGUARD_KEY, WireGuardKey.from_text)
        except KeyFormatError:
            return None
        request = self._read(DEVICE_CSR)
        if device is None or wireguard is None or request is None:
            return None
        return Keys(device, wireguard, request) if csr.fits(request, device.private, device_id) else None

    def make_keys(self, device_id: str, now: datetime, tell: Callable[[str, str, str], None]) -> list[str]:
        """Make what is missing and return the names of the files made; a key that is there is kept.

        Each file is on the medium when this returns. A damaged key is renamed, told to ``tell`` as
        (file, new name, why) and made anew.

        :raises StorageError: the folder cannot be written.
        """
        made: list[str] = []

        def ensure(name: str, read: Callable[[bytes], _K], make: Callable[[], _K], dump: Callable[[_K], bytes]) -> _K:
            try:
                found = self._key(name, read)
            except KeyFormatError as e:
                tell(name, files.set_aside(self._disk, self.path / name, now), str(e))
                found = None
            if found is None:
                found = make()
                self._write(name, dump(found), SECRET)
                made.append(name)
            return found

        device = ensure(DEVICE_KEY, DeviceKey.from_pem, DeviceKey.generate, DeviceKey.content)
        ensure(WIREGUARD_KEY, WireGuardKey.from_text, WireGuardKey.generate, WireGuardKey.to_text)
        request = self._read(DEVICE_CSR)
        if request is None or not csr.fits(request, device.private, device_id):
            self._write(DEVICE_CSR, csr.build(device.private, device_id), PUBLIC)
            made.append(DEVICE_CSR)
        return made

    def root(self, pin: Fingerprint) -> x509.Certificate | None:
        """Return the stored root if it is the pinned one."""
        content = self._read(ROOT_CRT)
        try:
            return None if content is None else trust.pinned_root(content, pin)
        except EnrollError:
            return None

    def store(self, identity: Identity, wireguard: WireGuardKey) -> None:
        """Write a verified identity; the flag last, so that its presence speaks for all other files.

        :raises StorageError: the folder cannot be written; then there is no flag.
        """
        try:
            if (self.path / FLAG).exists():
                self._disk.remove(self.path / FLAG)
                self._disk.sync_folder(self.path)
        except OSError as e:
            raise StorageError(f"cannot write in {self.path}: {e.strerror or e}; check permissions") from e
        self._write(DEVICE_CRT, trust.pem([identity.leaf]), PUBLIC)
        self._write(CA_CHAIN, trust.pem(identity.chain), PUBLIC)
        self._write(ROOT_CRT, trust.pem([identity.root]), PUBLIC)
        if identity.tunnel is not None:
            self._write(WIREGUARD_CONF, identity.tunnel.render(wireguard.private), SECRET)
        self._write(FLAG, identity.record.to_json(), PUBLIC)

    def record(self) -> Record | None:
        """Return the flag's record, or ``None`` if there is no readable flag."""
        content = self._read(FLAG)
        try:
            return None if content is None else Record.from_json(content)
        except RecordError:
            return None

    def enrollment(
        self, now: datetime, root_pin: Fingerprint | None = None, issuer_pin: Fingerprint | None = None
    ) -> Enrollment:
        """Return what the flag stands for, checked as if it had just been answered.

        Without a root pin the stored root is taken for what it says (``status`` has no configuration).

        :raises NotEnrolledError: no flag, or one of its files is missing, damaged, foreign or out of date.
        :raises StorageError: a file cannot be read.
        """
        record = self.record()
        if record is None:
            raise NotEnrolledError("there is no readable flag 'enrolled'")
        certificates = {name: self._certificates(name) for name in (DEVICE_CRT, CA_CHAIN, ROOT_CRT)}
        certificate, root = certificates[DEVICE_CRT][0], certificates[ROOT_CRT][0]
        chain = tuple(certificates[CA_CHAIN])
        pin = root_pin or trust.sha256(root)
        issuer = next((c for c in chain if trust.sha256(c) == issuer_pin), None)
        if issuer_pin is not None and issuer is None:
            raise NotEnrolledError("the stored chain does not hold the pinned issuing CA")
        anchor = Anchor(root, issuer)
        try:
            trust.pinned_root(trust.pem([root]), pin)
            self._check_keys(record, certificate)
            trust.check_path(certificate, chain, anchor, now)
            trust.check_dates(certificate, now)
        except NotEnrolledError:
            raise
        except StorageError:
            raise
        except EnrollError as e:
            raise NotEnrolledError(str(e)) from e
        return Enrollment(record, certificate, chain, anchor)

    def _check_keys(self, record: Record, certificate: x509.Certificate) -> None:
        try:
            device = self._key(DEVICE_KEY, DeviceKey.from_pem)
            wireguard = self._key(WIREGUARD_KEY, WireGuardKey.from_text)
        except KeyFormatError as e:
            raise NotEnrolledError(f"a key file {e}") from e
        if device is None or wireguard is None:
            raise NotEnrolledError("a key file is missing")
        leaf.check(certificate, record.device_id, device.spki_sha256)
        if str(trust.sha256(certificate)) != record.leaf_sha256:
            raise NotEnrolledError(f"{DEVICE_CRT} is not the certificate of the flag")
        if record.address is not None:
            conf = self._read(WIREGUARD_CONF) or b""
            if f"PrivateKey = {wireguard.private}".encode() not in conf.splitlines():
                raise NotEnrolledError(f"{WIREGUARD_CONF} is missing or not this device's")

    def _certificates(self, name: str) -> list[x509.Certificate]:
        content = self._read(name)
        if content is None:
            raise NotEnrolledError(f"{name} is missing")
        try:
            return trust.load_certificates(content)
        except ValueError as e:
            raise NotEnrolledError(f"{name} is damaged") from e

    def _key(self, name: str, read: Callable[[bytes], _K]) -> _K | None:
        content = self._read(name)
        return None if content is None else read(content)

    def _read(self, name: str) -> bytes | None:
        return files.read(self.path / name)

    def _write(self, name: str, data: bytes, mode: int) -> None:
        files.write(self._disk, self.path / name, data, mode)
