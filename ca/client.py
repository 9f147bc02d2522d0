"""A client of step-ca's HTTP API (signatures first; the bodies follow)."""

from datetime import timedelta

import httpx
from cryptography import x509

from ca.models import Crl, Provisioner, SignedChain


class StepCaClient:
    """One step-ca, asked over an injected ``httpx.AsyncClient``. ``timeout`` (seconds) bounds each call
    in total.
    """

    def __init__(self, http: httpx.AsyncClient, url: str, *, timeout: float = 10.0) -> None: ...

    async def health(self) -> None:
        """Return if ``GET /health`` says ok."""
        raise NotImplementedError

    async def provisioner(self, name: str) -> Provisioner:
        """Find the JWK provisioner called ``name``."""
        raise NotImplementedError

    async def encrypted_key(self, kid: str) -> str:
        """Return the compact JWE of a provisioner's private key."""
        raise NotImplementedError

    async def sign(self, csr_pem: str, ott: str, duration: timedelta) -> SignedChain:
        """Ask for one certificate. Raises CaRefused, CaUnreachable, CaBadAnswer."""
        raise NotImplementedError

    async def revoke(self, serial: int, ott: str, *, reason_code: int = 0, reason: str = "") -> None:
        """Revoke a serial, also one never issued; already revoked is done."""
        raise NotImplementedError

    async def crl(self, issuer: x509.Certificate) -> Crl:
        """Fetch the CRL and verify it against ``issuer``."""
        raise NotImplementedError

    async def roots(self) -> tuple[x509.Certificate, ...]:
        """Return ``GET /roots``."""
        raise NotImplementedError

    async def intermediates(self) -> tuple[x509.Certificate, ...]:
        """Return ``GET /intermediates``."""
        raise NotImplementedError
