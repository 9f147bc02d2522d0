"""From a fingerprint to a connection that can be believed.

Responsible for the first fetch of WIRE §5: the root by its digest, and, where a second pin is configured,
the tenant's issuing CA by its own. What comes out is the anchor for every later connection.

Not responsible for trying again or for storing.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import datetime

from cryptography import x509

from enroll import events, transport, trust
from enroll.config import Settings, TlsTrust
from enroll.errors import ForeignAnswerError
from enroll.events import Event
from enroll.trust import Anchor


async def establish(
    settings: Settings,
    stored_root: x509.Certificate | None,
    now: datetime,
    patience: Callable[[], float],
    report: Callable[[Event], None],
) -> Anchor:
    """Return the anchor that the configuration pins.

    :param stored_root: the pinned root, if an earlier run left it on disk.
    :param patience: asked before each request for its total time in seconds.
    :raises RootMismatchError: another root is served.
    :raises TryAgainError: not reachable, or not what is pinned.
    """
    root = stored_root or await _root(settings, patience())
    source = "disk" if stored_root else "bridge"
    report(events.root(str(settings.root_pin), trust.subject(root), source))
    if settings.issuer_pin is None:
        return Anchor(root)
    context = connection(Anchor(root), settings.tls_trust)
    texts = await transport.fetch_intermediates(str(settings.bridge), context, patience())
    try:
        unverified = [certificate for text in texts for certificate in trust.load_certificates(text)]
    except ValueError as e:
        raise ForeignAnswerError("GET /intermediates answers something that is no certificate") from e
    issuer = trust.pinned_issuer(unverified, settings.issuer_pin, root, now)
    report(events.issuer(str(settings.issuer_pin), trust.subject(issuer)))
    return Anchor(root, issuer)


def connection(anchor: Anchor, tls_trust: TlsTrust) -> ssl.SSLContext:
    """Return the TLS context for bridge and broker that the configuration wants."""
    return trust.server_context(anchor, system=tls_trust is TlsTrust.SYSTEM)


async def _root(settings: Settings, seconds: float) -> x509.Certificate:
    base, pin = str(settings.bridge), settings.root_pin
    if settings.tls_trust is TlsTrust.SYSTEM:
        context = trust.system_context()
        unverified = await transport.fetch_root(base, str(pin), context, seconds)
    else:
        unverified = await transport.fetch_unverified_root(base, str(pin), seconds)
    return trust.pinned_root(unverified, pin)
