"""The CA's door: every serial that is ``revoking`` is revoked, and seen on the CRL before it counts as ``revoked``."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from bridge.errors import SystemFailed
from bridge.model.identity import DeviceId, Serial
from bridge.ports.authority import CertificateAuthority
from bridge.ports.registry import Claim, Entry, Picture, Registry, Settlement, Transaction
from bridge.ports.runtime import Clock
from bridge.reconcile.coalesce import Coalesced
from bridge.reconcile.door import Guard

_LONGEST_RECHECK: Final = 15
"""Seconds. A CA that does not renew its CRL at each revocation is asked again more and more rarely."""


class AuthorityDoor:
    """Agreement: nothing of the device is left to revoke."""

    def __init__(
        self, registry: Registry, authority: CertificateAuthority, clock: Clock, *, serials_are_ours: bool = True
    ) -> None:
        """Take what it works with.

        :param serials_are_ours: False where the CA chooses the serials (``STEP_CA_PROFILE=plain``): then an attempt
            whose leaf was never seen has no serial that could be revoked. It stays ``revoking``, and is listed.
        """
        self._serials_are_ours = serials_are_ours
        self._registry = registry
        self._authority = authority
        self._clock = clock
        self._crl: Coalesced[frozenset[Serial]] = Coalesced(authority.revoked)

    async def agree(self, claim: Claim, guard: Guard) -> Settlement:
        """Revoke every serial, whether the CRL can be read or not, then look for them on the CRL.

        Revoking is repeated without looking first: it changes nothing, and must not wait for a CRL that is broken.
        """
        device = claim.link.device
        picture = await self._registry.read(lambda tx: tx.picture(device))
        serials = () if picture is None else self._revocable(picture)
        if not serials:
            return Settlement(settled_at=self._clock.now(), next_at=None)
        failure = await self._revoke(serials, guard)
        listed = await self._crl()
        now = self._clock.now()
        seen = tuple(serial for serial in serials if serial in listed)
        if seen:
            await self._registry.write(lambda tx: _note(tx, device, seen, now))
        if len(seen) == len(serials):
            return Settlement(settled_at=now, next_at=None)
        if failure is not None:
            raise failure
        wait = min(2 ** min(claim.link.attempts - 1, 16), _LONGEST_RECHECK)
        return Settlement(None, now + timedelta(seconds=wait), "revoked, but not on the CRL yet")

    def _revocable(self, picture: Picture) -> tuple[Serial, ...]:
        if self._serials_are_ours:
            return picture.revoking
        return tuple(serial for serial in picture.revoking if serial not in picture.unseen)

    async def _revoke(self, serials: tuple[Serial, ...], guard: Guard) -> SystemFailed | None:
        """Revoke each on its own: one that the CA does not take holds up no other. Return the first failure."""
        first: SystemFailed | None = None
        for serial in serials:
            await guard()
            try:
                await self._authority.revoke(serial, "superseded, lost or decommissioned")
            except SystemFailed as e:
                first = first or e
        return first


def _note(tx: Transaction, device: DeviceId, seen: tuple[Serial, ...], now: datetime) -> None:
    tx.mark_revoked(seen, now)
    tx.audit(Entry(now, "reconciler", "certificate.revoked", device, {"serials": [str(serial) for serial in seen]}))
