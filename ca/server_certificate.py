"""The bridge's own server certificate from the second provisioner (signatures first; the bodies follow)."""

from datetime import datetime, timedelta

from ca.client import StepCaClient
from ca.models import ServerCertificate, TrustAnchor
from ca.token import TokenSigner


async def request_server_certificate(
    client: StepCaClient,
    signer: TokenSigner,
    anchor: TrustAnchor,
    *,
    name: str,
    lifetime: timedelta,
    now: datetime,
) -> ServerCertificate:
    """Make a key, ask the server provisioner for a certificate of ``name`` and check it (serverAuth, name)."""
    raise NotImplementedError
