"""WireGuard's door: the peer is on the running interface with its address, or nothing of the device is.

Agreement is what the process beside the interface reported, never the file that we wrote ourselves. Publishing is one
file for the whole fleet, so all devices that are due share one writing of it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from bridge.model.records import DeviceState, Lease, Wanted
from bridge.ports.registry import Claim, Picture, Registry, Settlement
from bridge.ports.runtime import Clock
from bridge.ports.tunnels import Applied, TunnelServer
from bridge.reconcile.coalesce import Coalesced
from bridge.reconcile.door import Guard

_RECHECK: Final = timedelta(milliseconds=300)
_NOT_APPLIED: Final = "published, but not applied yet: is `iot-bridge wireguard sync` running beside the interface?"


class TunnelsDoor:
    """Agreement: the report shows the peer, and nobody else at its address; or shows it gone."""

    def __init__(self, registry: Registry, tunnels: TunnelServer, clock: Clock, quarantine: timedelta) -> None:
        self._registry = registry
        self._tunnels = tunnels
        self._clock = clock
        self._quarantine = quarantine
        self._publish: Coalesced[int] = Coalesced(self._publish_all)

    async def agree(self, claim: Claim, guard: Guard) -> Settlement:
        """Publish the peers unless the report agrees already, then read the report."""
        device = claim.link.device
        picture = await self._registry.read(lambda tx: tx.picture(device))
        if picture is None or picture.lease is None:
            return Settlement(settled_at=self._clock.now(), next_at=None)
        if claim.link.wanted is Wanted.ABSENT:
            return await self._cut(claim, picture, picture.lease, guard)
        applied = await self._tunnels.applied()
        if _carries(applied, picture.lease):
            return Settlement(settled_at=self._clock.now(), next_at=None)
        asked = _asked(claim)
        if asked is None or (applied is not None and applied.revision >= asked):
            await guard()
            asked = await self._publish()
        return self._outstanding(claim, asked)

    async def _publish_all(self) -> int:
        revision, peers = await self._registry.write(lambda tx: tx.peers())
        await self._tunnels.publish(revision, peers)
        return revision

    async def _cut(self, claim: Claim, picture: Picture, lease: Lease, guard: Guard) -> Settlement:
        asked = _asked(claim)
        if asked is None:
            await guard()
            return self._outstanding(claim, await self._publish())
        applied = await self._tunnels.applied()
        if applied is None or applied.revision < asked:
            return self._outstanding(claim, asked)
        if _mentions(applied, lease):
            await guard()
            return self._outstanding(claim, await self._publish())
        now = self._clock.now()
        if picture.device.state is DeviceState.TOMBSTONE:
            await self._registry.write(lambda tx: tx.free_lease(picture.device.id, now + self._quarantine))
        return Settlement(settled_at=now, next_at=None)

    def _outstanding(self, claim: Claim, asked: int) -> Settlement:
        next_at = self._clock.now() + _RECHECK
        return Settlement(None, next_at, _NOT_APPLIED, external_id=f"{claim.epoch}:{asked}")


def _asked(claim: Claim) -> int | None:
    """Return the revision whose application the link waits for since the device's last change of fate.

    It is kept as the link's external id, with the epoch it was asked at: an older one says nothing about today.
    """
    epoch, _, revision = (claim.link.external_id or "").partition(":")
    return int(revision) if epoch == str(claim.epoch) else None


def _carries(applied: Applied | None, lease: Lease) -> bool:
    if applied is None or lease.wg_key is None:
        return False
    holders = {key for key, address in applied.peers if address == lease.address}
    return holders == {lease.wg_key}


def _mentions(applied: Applied, lease: Lease) -> bool:
    return any(key == lease.wg_key or address == lease.address for key, address in applied.peers)
