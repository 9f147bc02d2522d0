"""What lies in the folder, and whether it holds: the agent's only memory, judged anew at each look.

Responsible for reading every file of the folder, for naming those that are torn, zero-filled, foreign or do not
fit their neighbours, and for the enrollment that the rest amounts to. Dates are not looked at here: a clock that
jumped must not make a valid certificate look damaged.

Not responsible for changing anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cryptography import x509

from enroll.disk import succession, takeover
from enroll.disk.folder import (
    CA_CHAIN,
    DEVICE_CRT,
    DEVICE_CSR,
    DEVICE_KEY,
    FLAG,
    ROOT_CRT,
    WIREGUARD_KEY,
    Folder,
    Keys,
    holds_key,
)
from enroll.disk.succession import Pair, Unfit
from enroll.disk.takeover import Older
from enroll.errors import ConfigurationError, EnrollError
from enroll.keys import DeviceKey, KeyFormatError, WireGuardKey, csr
from enroll.names import Fingerprint
from enroll.plan import Found, Identity, Next
from enroll.plan import Keys as KeysFound
from enroll.record import Record, RecordError, rfc3339
from enroll.trust import certificates, leaf, paths
from enroll.trust.clock import UNDATED
from enroll.trust.paths import Anchor

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Whose:
    """What the folder is compared with."""

    device_id: str
    root_pins: Sequence[Fingerprint]
    issuer_pins: Sequence[Fingerprint] = ()


@dataclass(frozen=True, slots=True)
class Enrollment:
    """A flag and the certificates it stands for, read back and checked."""

    record: Record
    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    anchor: Anchor
    key: DeviceKey
    wireguard: WireGuardKey | None

    def presented(self) -> bytes:
        """Return what the device shows to a server: PEM, leaf first, then its issuers."""
        return certificates.pem([self.leaf, *self.chain])

    def summary(self) -> dict[str, Any]:
        """Return the non-secret facts, as events tell them."""
        return summary(self.record, self.leaf, [*self.chain, *self.anchor.roots[:1]])


def summary(record: Record, certificate: x509.Certificate, issuers: Sequence[x509.Certificate]) -> dict[str, Any]:
    """Return the non-secret facts of an enrollment, as events and ``status`` tell them.

    :param issuers: issuing CA first, the root last.
    """
    broker = {"host": record.mqtt.host, "port": record.mqtt.port} if record.mqtt else None
    hawkbit = {"url": record.hawkbit_url, "tenant": record.hawkbit_tenant} if record.hawkbit_url else None
    return {
        "device_id": record.device_id,
        "generation": record.generation,
        "serial": str(record.serial),
        "leaf_sha256": record.leaf_sha256,
        "issuer_chain": [certificates.subject(c) for c in issuers],
        "root_sha256": str(certificates.sha256(issuers[-1])),
        "not_before": rfc3339(certificates.validity(certificate).begin),
        "not_after": rfc3339(record.not_after),
        "renew_after": rfc3339(record.renew_after),
        "enrolled_at": rfc3339(record.enrolled_at),
        "address": record.address,
        "bridge": record.bridge,
        "mqtt": broker,
        "hawkbit": hawkbit,
    }


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything one look at the folder gave."""

    keys: Keys | None = None
    enrollment: Enrollment | None = None
    wireguard: WireGuardKey | None = None
    roots: tuple[x509.Certificate, ...] = ()
    """Stored roots that are pinned."""
    pair: Pair = field(default_factory=Pair)
    unfit: tuple[Unfit, ...] = ()
    older: Older | None = None
    flagged: bool = False
    """There is a flag, readable or not."""
    complete: bool = True
    """Nothing is missing that the bridge's stored answer would bring back."""

    def found(self) -> Found:
        """Return what the plan needs to know."""
        identity = Identity.NONE
        if self.enrollment is not None:
            identity = Identity.HELD if self.complete else Identity.PARTIAL
        return Found(
            unfit=bool(self.unfit),
            older=self.older is not None,
            keys=KeysFound.MISSING if self.keys is None else KeysFound.READY,
            identity=identity,
            next=self.pair.state,
        )


def survey(folder: Folder, whose: Whose) -> Survey:
    """Look at the folder once.

    :raises ConfigurationError: it holds the identity of another device.
    :raises StorageError: a file cannot be read.
    """
    pair = succession.look(folder, whose.device_id)
    if pair.state is Next.CONFIRMED:
        return Survey(pair=pair, flagged=True)  # until it is promoted, nothing else means anything
    older = takeover.find(folder)
    return _Look(folder, whose, list(pair.unfit)).result(pair, older)


class _Look:
    """One look; collects what is unfit on its way."""

    def __init__(self, folder: Folder, whose: Whose, unfit: list[Unfit]) -> None:
        self._folder = folder
        self._whose = whose
        self._unfit = unfit
        self._flag = self._read(FLAG, Record.from_json)
        if self._flag is not None and self._flag.device_id != whose.device_id:
            raise ConfigurationError(
                "DEVICE_ID",
                f"is {whose.device_id}, but {folder.path} holds the identity of {self._flag.device_id}; "
                "correct one of DEVICE_ID and CERTS_DIR",
            )
        self._device = self._read(DEVICE_KEY, folder.provider.read)
        self._wireguard = self._read(WIREGUARD_KEY, WireGuardKey.from_text)
        self._request = self._read(DEVICE_CSR, self._own_request)
        self._leaf = self._read(DEVICE_CRT, self._own_leaf)
        self._roots = self._read(ROOT_CRT, self._pinned) or ()
        self._chain = self._read(CA_CHAIN, self._own_chain) or ()
        self._check_flag()
        self._check_tunnel()

    def result(self, pair: Pair, older: Older | None) -> Survey:
        keys = None
        if self._device is not None and self._wireguard is not None and self._request is not None:
            keys = Keys(self._device, self._wireguard, self._request)
        flagged = (self._folder.path / FLAG).exists()
        unfit = () if older is not None else tuple(self._unfit)
        return Survey(
            keys, self._enrollment(), self._wireguard, self._roots, pair, unfit, older, flagged, self._is_complete()
        )

    def _is_complete(self) -> bool:
        """Tell whether the servers are known, and the tunnel's configuration is there if there is a lease."""
        if self._flag is None or not self._flag.complete:
            return False
        leased = self._flag.address is not None and self._wireguard is not None
        return not leased or self._folder.wireguard_conf.exists()

    def _read(self, name: str, parse: Callable[[bytes], _T]) -> _T | None:
        try:
            return self._folder.parsed(name, parse)
        except ConfigurationError:
            raise
        except (KeyFormatError, RecordError, ValueError) as e:
            self._unfit.append(Unfit(self._folder.path / name, str(e)))
            return None

    def _own_request(self, content: bytes) -> bytes:
        if self._device is None:
            raise ValueError("is of a key that is not here")
        if not csr.fits(content, self._device.private, self._whose.device_id):
            raise ValueError("is no request of the key beside it")
        return content

    def _own_leaf(self, content: bytes) -> x509.Certificate:
        certificate = succession.one_certificate(content)
        if self._device is None:
            raise ValueError("is of a key that is not here")
        try:
            leaf.check(certificate, self._whose.device_id, self._device.spki_sha256)
        except EnrollError as e:
            raise ValueError(f"is not this device's: {e}") from e
        return certificate

    def _pinned(self, content: bytes) -> tuple[x509.Certificate, ...]:
        """Return the stored roots that are pinned; a pin that is gone takes its root with it."""
        try:
            stored = certificates.load_all(content)
            pinned = [c for c in stored if certificates.sha256(c) in self._whose.root_pins]
            if not pinned:
                raise ValueError("is not a pinned root")
            return tuple(paths.pinned_root(certificates.pem([c]), self._whose.root_pins) for c in pinned)
        except EnrollError as e:
            raise ValueError(str(e)) from e

    def _own_chain(self, content: bytes) -> tuple[x509.Certificate, ...]:
        try:
            chain = tuple(certificates.load_all(content))
        except ValueError as e:
            raise ValueError("is damaged") from e
        if self._leaf is not None and self._roots:
            try:
                paths.check_path(self._leaf, chain, Anchor(self._roots), UNDATED)
            except EnrollError as e:
                raise ValueError(str(e)) from e
        return chain

    def _check_flag(self) -> None:
        if self._flag is None or self._leaf is None:
            return
        if str(certificates.sha256(self._leaf)) != self._flag.leaf_sha256:
            self._unfit.append(Unfit(self._folder.path / FLAG, f"does not name {DEVICE_CRT}"))
            self._flag = None

    def _check_tunnel(self) -> None:
        """A configuration with another private key is foreign: raising it would end in no handshake, or worse."""
        if self._wireguard is None:
            return
        path = self._folder.wireguard_conf
        content = self._folder.read(path.name)
        if content is not None and not holds_key(content, self._wireguard):
            self._unfit.append(Unfit(path, "does not hold this device's WireGuard key"))

    def _enrollment(self) -> Enrollment | None:
        if self._flag is None or self._device is None or self._leaf is None or not self._chain or not self._roots:
            return None
        pins = self._whose.issuer_pins
        issuers = tuple(c for c in self._chain if certificates.sha256(c) in pins)
        if pins and not issuers:
            return None  # the second pin came later: the bridge is asked again, over a connection that it holds
        anchor = Anchor(self._roots, issuers)
        return Enrollment(self._flag, self._leaf, self._chain, anchor, self._device, self._wireguard)
