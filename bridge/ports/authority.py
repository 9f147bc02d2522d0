"""The tenant's issuing CA."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from bridge.model.facts import Csr, SignedLeaf
from bridge.model.identity import DeviceId, Pem, Serial


@dataclass(frozen=True, slots=True)
class SigningOrder:
    """What the CA is asked for."""

    device: DeviceId
    csr: Csr
    serial: Serial
    lifetime: timedelta


class CertificateAuthority(Protocol):
    """Signs, revokes, and shows what it revoked."""

    async def sign(self, order: SigningOrder) -> SignedLeaf:
        """Return a leaf that was checked against the order: key, name, serial, usage, issuer, chain.

        The request is repeated only if it surely never left.

        :raises bridge.errors.CaUnreachable: no answer; ``surely_not_sent`` tells whether a certificate can exist.
        :raises bridge.errors.CaRefused: the CA said no.
        :raises bridge.errors.CaBadAnswer: what came back is not what was ordered.
        """
        ...

    async def revoke(self, serial: Serial, reason: str) -> None:
        """Revoke a serial, also one that was never issued, also one revoked before.

        :raises bridge.errors.SystemFailed: it is not revoked, or that is not known.
        """
        ...

    async def revoked(self) -> frozenset[Serial]:
        """Return the serials on the CA's present CRL, its signature checked.

        :raises bridge.errors.SystemFailed: there is no valid CRL.
        """
        ...

    async def check(self) -> None:
        """Ask whether the CA is healthy.

        :raises bridge.errors.BridgeError: it is not.
        """
        ...

    def roots(self) -> Pem:
        """Return the pinned root."""
        ...

    def intermediates(self) -> tuple[Pem, ...]:
        """Return issuing CA and its issuers, without the root."""
        ...
