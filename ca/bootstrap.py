"""First trust in a CA, by fingerprint (signatures first; the bodies follow)."""

import ssl
from collections.abc import Callable

import httpx

from ca.models import Fingerprint, TrustAnchor

type_Connect = Callable[[ssl.SSLContext], httpx.AsyncClient]


async def fetch_trust(
    url: str, fingerprint: Fingerprint, connect: type_Connect, *, timeout: float = 10.0
) -> TrustAnchor:
    """Learn root, issuing CA and intermediates from ``url``, given the root's or the sub-CA's fingerprint."""
    raise NotImplementedError


def context_for(anchor: TrustAnchor) -> ssl.SSLContext:
    """A client context that trusts only servers certified under ``anchor``'s issuing CA, host name checked."""
    raise NotImplementedError
