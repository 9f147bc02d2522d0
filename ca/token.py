"""One-time tokens (OTT) for step-ca: compact JWS of a JWK provisioner.

The server side is ``authority/provisioner/jwk.go`` of smallstep/certificates. Not responsible for the key
(see ``ca.provisioner_key``) nor for sending the token. On the hot path: one JSON, one signature, no key
parsing.
"""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import jwt

from ca.models import check_serial
from ca.provisioner_key import ProvisionerKey

LIFETIME: Final = 300
"""Seconds from ``iat`` to ``exp``: the five minutes that ``step ca token`` uses."""


class TokenSigner:
    """Mints tokens of one provisioner.

    Each has a ``jti`` of 128 random bits and lives five minutes from now: mint it just before use.
    step-ca takes the ``jti`` before it looks at anything else, so a token is spent by one request that
    arrives, whatever comes back.

    ``clock()`` is aware UTC; ``randomness(n)`` returns n random octets.
    """

    def __init__(
        self,
        key: ProvisionerKey,
        *,
        issuer: str,
        url: str,
        clock: Callable[[], datetime],
        randomness: Callable[[int], bytes],
    ) -> None:
        base = url.rstrip("/")
        self._key = key.key
        self._alg = key.alg
        self._headers = {"kid": key.kid}
        self._issuer = issuer
        self._sign_audience = f"{base}/1.0/sign"
        self._revoke_audience = f"{base}/1.0/revoke"
        self._clock = clock
        self._randomness = randomness

    def for_sign(self, device_id: str, csr_der: bytes, serial: int) -> str:
        """Return the token of one leaf.

        It allows exactly this CSR (``cnf``, SHA-256 of its DER), exactly ``device_id`` as name, and carries
        ``serial`` in decimal, from where the template takes it. ``ValueError`` if RFC 5280 forbids the
        serial.
        """
        return self._mint(
            self._sign_audience,
            device_id,
            {"sans": [device_id], "cnf": _confirmation(csr_der), "serial": str(check_serial(serial))},
        )

    def for_server(self, name: str, csr_der: bytes) -> str:
        """Return the token of one server certificate for the host ``name``, bound to its CSR."""
        return self._mint(self._sign_audience, name, {"sans": [name], "cnf": _confirmation(csr_der)})

    def for_revoke(self, serial: int) -> str:
        """Return the token that revokes ``serial``, issued or not."""
        return self._mint(self._revoke_audience, str(check_serial(serial)), {})

    def _mint(self, audience: str, subject: str, more: dict[str, Any]) -> str:
        now = int(self._clock().timestamp())
        payload = {
            "iss": self._issuer,
            "aud": audience,
            "sub": subject,
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME,
            "jti": self._randomness(16).hex(),
        } | more
        return jwt.encode(payload, self._key, algorithm=self._alg, headers=self._headers)


def _confirmation(csr_der: bytes) -> dict[str, str]:
    digest = hashlib.sha256(csr_der).digest()
    return {"x5rt#S256": urlsafe_b64encode(digest).rstrip(b"=").decode()}
