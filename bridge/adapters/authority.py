"""step-ca behind the port of the issuing CA: tokens, signing with our serial, the check of what came back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from bridge.errors import CaBadAnswer, CaRefused, CaUnreachable, SystemFailed
from bridge.model.facts import SignedLeaf
from bridge.model.identity import Fingerprint, Pem, Serial
from bridge.ports.authority import SigningOrder
from bridge.ports.runtime import Clock
from ca import errors
from ca.check import Expected, check_leaf
from ca.client import StepCaClient
from ca.models import MAX_SERIAL, TrustAnchor
from ca.token import TokenSigner

_log = structlog.get_logger("bridge.ca")

_CESSATION = 5
"""CRLReason cessationOfOperation (RFC 5280, 5.3.1): for a retired device and for a superseded leaf alike."""


class StepCaAuthority:
    """One tenant's step-ca sub-CA, through one JWK provisioner."""

    def __init__(
        self, client: StepCaClient, signer: TokenSigner, anchor: TrustAnchor, clock: Clock, *, plain: bool = False
    ) -> None:
        self._client = client
        self._signer = signer
        self._anchor = anchor
        self._clock = clock
        self._plain = plain

    async def sign(self, order: SigningOrder) -> SignedLeaf:
        """Return the checked leaf; see :class:`bridge.ports.authority.CertificateAuthority`."""
        token = self._signer.for_sign(order.device.value, order.csr.der, order.serial.value)
        expected = Expected(
            name=order.device.value,
            spki_der=order.csr.spki_der,
            serial=order.serial.value,
            lifetime=order.lifetime,
            profile="plain" if self._plain else "bridge",
        )
        with _signing():
            chain = await self._client.sign(order.csr.pem, token, order.lifetime)
            leaf = check_leaf(chain, expected, self._anchor, now=self._clock.now())
        return SignedLeaf(
            serial=Serial(leaf.serial),
            leaf=Pem(leaf.pem),
            chain=Pem(leaf.chain_pem),
            leaf_sha256=Fingerprint(leaf.fingerprint.value),
            not_before=leaf.not_before,
            not_after=leaf.not_after,
        )

    async def revoke(self, serial: Serial, reason: str) -> None:
        """Revoke the serial, issued or not."""
        token = self._signer.for_revoke(serial.value)
        with _working("revoking"):
            await self._client.revoke(serial.value, token, reason_code=_CESSATION, reason=reason)

    async def revoked(self) -> frozenset[Serial]:
        """Return the serials on a fresh CRL that the issuing CA signed."""
        with _working("reading the CRL"):
            crl = await self._client.crl(self._anchor.issuing_ca)
            if not crl.is_fresh(self._clock.now()):
                raise SystemFailed("the CA's CRL is stale; check the CA's clock and its crl settings")
        # A CA may have revoked serials of others' making that no certificate of ours can have.
        return frozenset(Serial(number) for number in crl.serials if 0 < number <= MAX_SERIAL)

    async def check(self) -> None:
        """Ask the CA for its health."""
        with _working("asking for health"):
            await self._client.health()

    def roots(self) -> Pem:
        """Return the pinned root."""
        return Pem(self._anchor.root_pem)

    def intermediates(self) -> tuple[Pem, ...]:
        """Return issuing CA and its issuers."""
        return tuple(Pem(text) for text in _blocks(self._anchor.chain_pem))


def _blocks(pem: str) -> Iterator[str]:
    end = "-----END CERTIFICATE-----"
    for part in pem.split(end)[:-1]:
        yield part.lstrip() + end + "\n"


@contextmanager
def _signing() -> Iterator[None]:
    """Turn the CA's errors into those of a signing attempt.

    These reach the device: what the CA said, and what an operator should look at, stands in the log alone.
    """
    try:
        yield
    except errors.CaUnreachable as e:
        _log.warning("ca.unreachable", error=str(e), check=e.check, surely_not_sent=e.surely_not_sent)
        raise CaUnreachable("the CA did not answer", surely_not_sent=e.surely_not_sent) from e
    except errors.CaRefused as e:
        _log.warning("ca.refused", error=str(e), check=e.check, status=e.status, said=e.upstream)
        raise CaRefused("the CA refused to sign") from e
    except errors.CaError as e:
        _log.error("ca.bad_answer", error=str(e), check=e.check, failed=getattr(e, "failed", None))
        raise CaBadAnswer("the CA answered with something that must not be delivered") from e


@contextmanager
def _working(what: str) -> Iterator[None]:
    """Turn the CA's errors into failures that the reconciler shows and repeats."""
    try:
        yield
    except errors.CaError as e:
        raise SystemFailed(f"step-ca, {what}: {e}; {e.check}") from e
