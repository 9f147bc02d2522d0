"""The CA's door: every serial that is ``revoking`` is revoked, and seen on the CRL before it counts as ``revoked``."""

from __future__ import annotations

from datetime import datetime, timedelta

from bridge.model.identity import DeviceId, Serial
from bridge.ports.authority import CertificateAuthority
from bridge.ports.registry import Claim, Entry, Registry, Settlement, Transaction
from bridge.ports.runtime import Clock
from bridge.reconcile.coalesce import Coalesced
from bridge.reconcile.door import Guard

_CRL_RECHECK = timedelta(seconds=1)


class AuthorityDoor:
    """Agreement: nothing of the device is left to revoke."""

    def __init__(self, registry: Registry, authority: CertificateAuthority, clock: Clock) -> None:
        self._registry = registry
        self._authority = authority
        self._clock = clock
        self._crl: Coalesced[frozenset[Serial]] = Coalesced(authority.revoked)

    async def agree(self, claim: Claim, guard: Guard) -> Settlement:
        """Revoke what is not on the CRL yet, then read the CRL."""
        device = claim.link.device
        picture = await self._registry.read(lambda tx: tx.picture(device))
        if picture is None or not picture.revoking:
            return Settlement(settled_at=self._clock.now(), next_at=None)
        # The CA's serials are the bridge's own for ever: a moved epoch changes nothing, so the guard is asked once.
        await guard()
        for serial in picture.revoking:
            await self._authority.revoke(serial, "superseded, lost or decommissioned")
        listed = await self._crl()
        now = self._clock.now()
        seen = tuple(serial for serial in picture.revoking if serial in listed)
        if seen:
            await self._registry.write(lambda tx: _note(tx, device, seen, now))
        if len(seen) < len(picture.revoking):
            return Settlement(settled_at=None, next_at=now + _CRL_RECHECK, error="revoked, but not on the CRL yet")
        return Settlement(settled_at=now, next_at=None)


def _note(tx: Transaction, device: DeviceId, seen: tuple[Serial, ...], now: datetime) -> None:
    tx.mark_revoked(seen, now)
    tx.audit(Entry(now, "reconciler", "certificate.revoked", device, {"serials": [str(serial) for serial in seen]}))
