"""What the device asks the bridge, and what it makes of the answers.

Responsible for the four requests (enroll, ask again, renew, activate), each over a connection that only the pinned
anchor vouches for, and for turning an answer into an ``Identity`` that passed every check. Knows no disk.

Not responsible for when to ask, for trying again, or for storing.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from cryptography import x509

from enroll import bootstrap, events, proof
from enroll.answer import Expected, Identity, verify
from enroll.config import Settings
from enroll.disk.folder import Keys
from enroll.disk.survey import Enrollment
from enroll.errors import RefusedError, TryAgainError, UnreachableError
from enroll.events import Event
from enroll.keys import DeviceKey
from enroll.names import IpAddress
from enroll.network.transport import Heard, Network
from enroll.trust import certificates
from enroll.trust.clock import Timekeeper
from enroll.trust.paths import Anchor
from enroll.wire import CertificateState, Code, EnrollRequest

REQUEST_SECONDS: Final = 25.0
"""Longest total time of one request: more than the bridge takes for a signing attempt (15 s)."""

_T = TypeVar("_T")
_CURRENT: Final = frozenset({CertificateState.CURRENT})
_EITHER: Final = frozenset(CertificateState)
_NOT_BY_THIS_ROOT: Final = frozenset({Code.IDENTITY_EXISTS, Code.BAD_REQUEST})
"""What a proof gets that names a root which the bridge does not serve; another pinned root may do."""


class Inventory(Protocol):
    """What the device says of itself."""

    @property
    def hardware(self) -> Mapping[str, Any]:
        """Board, processor, memory, system."""

    @property
    def network(self) -> Mapping[str, Any]:
        """Names and addresses."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the dialogue is given by the run."""

    network: Network
    keeper: Timekeeper
    patience: Callable[[float], float]
    """Seconds that a request may take, given the most it should."""
    report: Callable[[Event], None]
    addresses: Callable[[str], Sequence[IpAddress]]
    inventory: Callable[[], Inventory] | None = None


class Dialogue:
    """The device's side of WIRE §1 to §5."""

    def __init__(self, settings: Settings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._id = settings.device_id.value
        self._world = surroundings
        self._anchor: Anchor | None = None

    @property
    def anchored(self) -> bool:
        """Whether the pinned root is at hand."""
        return self._anchor is not None

    def trust(self, anchor: Anchor) -> None:
        """Go on with the anchor of an enrollment on disk."""
        self._anchor = anchor
        for root in anchor.roots:
            self._world.keeper.root_ends(certificates.validity(root).end)

    def establish(self, stored: Sequence[x509.Certificate], *, again: bool = False) -> None:
        """Get the pinned root, and the pinned issuing CA, from the disk or from the bridge.

        :param again: also look for pinned roots that are missing: the bridge may have moved to one of them.
        :raises RootMismatchError: another root is served.
        :raises TryAgainError: not reachable, or not what is pinned.
        """
        world = self._world
        self._anchor = bootstrap.establish(
            world.network,
            self._settings,
            stored,
            world.keeper,
            lambda: world.patience(REQUEST_SECONDS),
            world.report,
            again=again,
        )

    def enroll(self, keys: Keys) -> Identity:
        """Ask for the certificate of the device's key.

        A bridge that knows the key with another WireGuard key is asked once more without one: an identity
        without a tunnel is better than none.

        :raises StoppedError: a final word.
        :raises TryAgainError: anything else that is not an answer that holds.
        """
        try:
            return self._enroll(keys.device, keys.csr, keys.wireguard.public)
        except RefusedError as e:
            if e.problem is not Code.WG_KEY_DIFFERS:
                raise
            self._world.report(events.postponed("VPN", f"{e}; enrolling without a tunnel", e.code))
            return self._enroll(keys.device, keys.csr, None)

    def refresh(self, enrollment: Enrollment, csr: bytes) -> Identity:
        """Ask for the stored answer again: the same certificate, with today's servers and time.

        :raises StoppedError: a final word; ``retired`` is how a decommissioned device learns of it.
        :raises TryAgainError: anything else that is not an answer that holds.
        """
        wireguard = enrollment.wireguard
        return self._enroll(enrollment.key, csr, None, own_wireguard=wireguard.public if wireguard else None)

    def renew(self, enrollment: Enrollment, key: DeviceKey, csr: bytes) -> Identity:
        """Ask for the certificate of the next key, proven by the current one.

        :raises StoppedError: a final word.
        :raises TryAgainError: anything else that is not an answer that holds.
        """
        wireguard = enrollment.wireguard.public if enrollment.wireguard else None

        def ask(audience: str) -> Identity:
            signed = proof.renewal(enrollment.key, audience, self._id, csr, enrollment.record.leaf_sha256)
            heard = self._post_enroll(EnrollRequest(csr_pem=csr.decode("ascii"), proof=signed))
            return self._verified(heard, key, wireguard, _EITHER)

        return self._by_each_root(ask)

    def activate(self, key: DeviceKey, leaf_sha256: str, wireguard: str | None) -> Identity:
        """Ask the bridge to make the next pair the current one; repeating it is harmless.

        :param wireguard: the device's own public WireGuard key, if it has one.

        :raises StoppedError: a final word.
        :raises TryAgainError: anything else that is not an answer that holds.
        """

        def ask(audience: str) -> Identity:
            signed = proof.activation(key, audience, self._id, leaf_sha256)

            def call(context: ssl.SSLContext, seconds: float) -> Heard:
                base = str(self._settings.bridge)
                return self._world.network.activate(base, self._id, {"proof": signed}, context, seconds)

            return self._verified(self._over_tls(call), key, wireguard, _CURRENT)

        return self._by_each_root(ask)

    def context(self) -> ssl.SSLContext:
        """Return a TLS context for bridge and broker, as the configuration and the belief of the time want it.

        :raises TryAgainError: there is no anchor yet.
        """
        if self._anchor is None:
            raise TryAgainError("the pinned root is not at hand yet")
        return bootstrap.connection(self._anchor, self._settings.tls_trust, self._world.keeper.belief())

    def _enroll(
        self, key: DeviceKey, csr: bytes, wireguard: str | None, *, own_wireguard: str | None = None
    ) -> Identity:
        settings, inventory = self._settings, self._world.inventory
        known = inventory() if inventory is not None else None
        request = EnrollRequest(
            csr_pem=csr.decode("ascii"),
            wg_public_key=wireguard,
            device_name=settings.device_name,
            device_type=settings.device_type,
            voucher=settings.voucher,
            hardware=(known.hardware or None) if known else None,
            network=(known.network or None) if known else None,
        )
        return self._verified(self._post_enroll(request), key, wireguard or own_wireguard, _CURRENT)

    def _post_enroll(self, request: EnrollRequest) -> Heard:
        def call(context: ssl.SSLContext, seconds: float) -> Heard:
            base = str(self._settings.bridge)
            return self._world.network.enroll(base, self._id, request.to_json(), context, seconds)

        return self._over_tls(call)

    def _verified(
        self, heard: Heard, key: DeviceKey, wireguard: str | None, states: frozenset[CertificateState]
    ) -> Identity:
        if self._anchor is None:
            raise TryAgainError("the pinned root is not at hand yet")
        settings = self._settings
        expected = Expected(
            device_id=settings.device_id,
            spki_sha256=key.spki_sha256,
            wireguard_public_key=wireguard,
            anchor=self._anchor,
            bridge=settings.bridge,
            states=states,
            allowed_networks=settings.allowed_networks,
            addresses=self._world.addresses,
        )
        return verify(heard, expected, self._world.keeper)

    def _over_tls(self, call: Callable[[ssl.SSLContext, float], _T]) -> _T:
        """Make the call; if the bridge's certificate does not hold, once more with what can be learned of why.

        That the system's clock is behind, or that the bridge has moved to pinned roots and issuing CAs that are
        not at hand yet.
        """
        try:
            return call(self.context(), self._world.patience(REQUEST_SECONDS))
        except UnreachableError as e:
            if not e.untrusted or not self._learned():
                raise
            return call(self.context(), self._world.patience(REQUEST_SECONDS))

    def _learned(self) -> bool:
        """Return whether a bridge whose certificate was refused may be believed now."""
        world, settings, anchor = self._world, self._settings, self._anchor
        if anchor is None:
            return False
        if bootstrap.catch_up(world.network, settings, anchor, world.keeper, world.patience(REQUEST_SECONDS)):
            return True
        if len(anchor.roots) >= len(settings.root_pins) and len(anchor.issuers) >= len(settings.issuer_pins):
            return False
        self.establish([*anchor.roots, *anchor.issuers], again=True)
        return True

    def _by_each_root(self, ask: Callable[[str], _T]) -> _T:
        """Ask with a proof for the first root; after a CA rotation it may take another one."""
        roots = self._anchor.roots if self._anchor else ()
        audiences = [str(certificates.sha256(root)) for root in reversed(roots)]
        for audience in audiences[:-1]:
            try:
                return ask(audience)
            except RefusedError as e:
                if e.problem not in _NOT_BY_THIS_ROOT:
                    raise
        return ask(audiences[-1])
