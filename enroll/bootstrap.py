"""From fingerprints to connections that can be believed.

Responsible for the first fetch of WIRE §5: the roots by their digests, and, where a second pin is configured,
the tenant's issuing CAs by theirs. What comes out is the anchor for every later connection.

Not responsible for trying again or for storing.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import TypeAlias

from cryptography import x509

from enroll import events
from enroll.config import Settings, TlsTrust
from enroll.errors import (
    AnswerRejectedError,
    ForeignAnswerError,
    RefusedError,
    RootMismatchError,
    TryAgainError,
    UnreachableError,
)
from enroll.events import Event
from enroll.names import Fingerprint
from enroll.network.transport import Network
from enroll.trust import paths, tls
from enroll.trust.certificates import load_all, pem, sha256, subject, validity
from enroll.trust.clock import Belief, Timekeeper
from enroll.trust.paths import Anchor
from enroll.wire import Code

Patience: TypeAlias = Callable[[], float]
"""Asked before each request for its total time in seconds."""


def establish(
    network: Network,
    settings: Settings,
    stored: Sequence[x509.Certificate],
    keeper: Timekeeper,
    patience: Patience,
    report: Callable[[Event], None],
    *,
    again: bool = False,
) -> Anchor:
    """Return the anchor that the configuration pins, and tell the keeper what roots and issuers say of the time.

    What is stored is used; the bridge is asked where nothing pinned is stored. A pin that the bridge does not
    know is passed over while another one is at hand, as it is during a rotation of the CA.

    :param stored: certificates of earlier runs, roots and chains mixed; what is not pinned is at most a link.
    :param again: ask the bridge for the pins that are not stored, too: its certificate was refused, so that its
        CA may have changed.
    :raises RootMismatchError: another root is served.
    :raises TryAgainError: not reachable, or not what is pinned.
    """
    roots = _roots(network, settings, stored, keeper, patience, report, again=again)
    if not settings.issuer_pins:
        return Anchor(roots)
    issuers = _issuers(network, settings, stored, roots, keeper, patience, again=again)
    for issuer in issuers:
        keeper.raise_floor(validity(issuer).begin)
        report(events.issuer(str(sha256(issuer)), subject(issuer)))
    return Anchor(roots, issuers)


def connection(anchor: Anchor, tls_trust: TlsTrust, belief: Belief) -> ssl.SSLContext:
    """Return the TLS context for bridge and broker that configuration and time want."""
    return tls.server_context(anchor, system=tls_trust is TlsTrust.SYSTEM, belief=belief)


def catch_up(network: Network, settings: Settings, anchor: Anchor, keeper: Timekeeper, seconds: float) -> bool:
    """Learn from the bridge's certificate that the system's clock is behind; to be asked when TLS refused it.

    A clock that goes on where the last shutdown left it (fake-hwclock) is above the floor, and yet whatever was
    certified since lies in its future. A certificate that the anchor vouches for proves that its beginning has
    passed: the floor rises to it, the clock falls below, and dates wait for the server's time. An old key of a
    server proves nothing this way. One handshake, in which nothing is sent.

    :returns: whether the belief has changed, so that another attempt is worth it.
    """
    before = keeper.belief()
    if not before.trusted:
        return False
    blind = Belief(before.now, trusted=False, floor=before.floor, by_system=False)
    context = connection(anchor, settings.tls_trust, blind)
    try:
        shown = network.server_chain(str(settings.bridge), context, seconds)
    except TryAgainError:  # not a matter of dates
        return False
    begin = max((validity(c).begin for c in shown), default=before.now)
    if begin <= before.now:
        return False
    keeper.raise_floor(begin)
    return True


def _roots(
    network: Network,
    settings: Settings,
    stored: Sequence[x509.Certificate],
    keeper: Timekeeper,
    patience: Patience,
    report: Callable[[Event], None],
    *,
    again: bool,
) -> tuple[x509.Certificate, ...]:
    known = _stored_roots(stored, settings.root_pins)
    sources = dict.fromkeys(known, "disk")
    if again or not known:
        failure: TryAgainError | None = None
        for pin in settings.root_pins:
            if pin in map(sha256, known):
                continue
            try:
                root = _fetch_root(network, settings, pin, keeper.belief(), patience())
            except RootMismatchError:
                raise
            except TryAgainError as e:
                failure = failure or e
                if not isinstance(e, RefusedError | ForeignAnswerError):
                    break  # who cannot be reached for one pin is not asked for the next
            else:
                sources.setdefault(root, "bridge")
                known = list(sources)
        if failure is not None and not known:
            raise _told(failure, settings.root_pins) from failure
    for root, source in sources.items():
        dates = validity(root)
        keeper.raise_floor(dates.begin)
        keeper.root_ends(dates.end)
        report(events.root(str(sha256(root)), subject(root), source))
    return tuple(known)


def _told(failure: TryAgainError, pins: Sequence[Fingerprint]) -> TryAgainError:
    """Return the error with both values, if the bridge itself says that it has another root."""
    if isinstance(failure, RefusedError) and failure.problem == Code.NOT_FOUND:
        return RootMismatchError(wanted=" or ".join(map(str, pins)), served=None, said=str(failure))
    return failure


def _stored_roots(stored: Sequence[x509.Certificate], pins: Sequence[Fingerprint]) -> list[x509.Certificate]:
    roots = []
    for certificate in dict.fromkeys(stored):
        try:
            roots.append(paths.pinned_root(pem([certificate]), pins))
        except TryAgainError:  # not pinned, or damaged in a way that still parses
            continue
    return roots


def _fetch_root(
    network: Network, settings: Settings, pin: Fingerprint, belief: Belief, seconds: float
) -> x509.Certificate:
    base = str(settings.bridge)
    if settings.tls_trust is TlsTrust.SYSTEM:
        context = tls.system_context(belief)
        unverified = network.fetch_root(base, pin, context, seconds)
    else:
        unverified = network.fetch_unverified_root(base, pin, seconds)
    return paths.pinned_root(unverified, (pin,))


def _issuers(
    network: Network,
    settings: Settings,
    stored: Sequence[x509.Certificate],
    roots: tuple[x509.Certificate, ...],
    keeper: Timekeeper,
    patience: Patience,
    *,
    again: bool,
) -> tuple[x509.Certificate, ...]:
    pins = settings.issuer_pins
    try:
        known = paths.pinned_issuers(stored, pins, roots, keeper.belief())
    except AnswerRejectedError:
        known = ()
    if known and (len(known) == len(pins) or not again):
        return known
    try:
        texts = _intermediates(network, settings, Anchor(roots), keeper, patience)
        served = [certificate for text in texts for certificate in load_all(text)]
    except ValueError as e:
        raise ForeignAnswerError("GET /intermediates answers something that is no certificate") from e
    return paths.pinned_issuers([*served, *stored], pins, roots, keeper.belief())


def _intermediates(
    network: Network, settings: Settings, anchor: Anchor, keeper: Timekeeper, patience: Patience
) -> list[bytes]:
    base = str(settings.bridge)
    try:
        return network.fetch_intermediates(base, connection(anchor, settings.tls_trust, keeper.belief()), patience())
    except UnreachableError as e:
        if not e.untrusted or not catch_up(network, settings, anchor, keeper, patience()):
            raise
        return network.fetch_intermediates(base, connection(anchor, settings.tls_trust, keeper.belief()), patience())
