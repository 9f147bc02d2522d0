"""WireGuard's door: the peer is on the running interface with its address, or nothing of the device is.

Agreement is what the process beside the interface reported, never the file that we wrote ourselves. Publishing is one
file for the whole fleet, so all devices that are due share one writing of it.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from bridge.model.records import DeviceState, Lease, Wanted
from bridge.ports.registry import Claim, Picture, Registry, Settlement
from bridge.ports.runtime import Clock
from bridge.ports.tunnels import Applied, TunnelServer
from bridge.reconcile.coalesce import Coalesced
from bridge.reconcile.door import Guard

_PATIENCE: Final = 2.0
"""Seconds to wait in place for the report after publishing: the process beside the interface looks every 200 ms."""
_LOOK_EVERY: Final = 0.1
_RECHECK: Final = {Wanted.ABSENT: timedelta(seconds=15), Wanted.PRESENT: timedelta(seconds=60)}
"""Longest pause before an outstanding link is looked at again."""
_FIRST_RECHECK: Final = timedelta(seconds=1)
_REST_FACTOR: Final = 10
"""Publishing writes the whole fleet: it may take at most a tenth of the time, however large the fleet is."""
_NOT_APPLIED: Final = "published, but not applied yet: is `iot-bridge wireguard sync` running beside the interface?"


class TunnelsDoor:
    """Agreement: the report shows the peer, and nobody else at its address; or shows it gone."""

    def __init__(self, registry: Registry, tunnels: TunnelServer, clock: Clock, quarantine: timedelta) -> None:
        self._registry = registry
        self._tunnels = tunnels
        self._clock = clock
        self._quarantine = quarantine
        self._rested = 0.0
        self._publish: Coalesced[int] = Coalesced(self._publish_all)

    async def agree(self, claim: Claim, guard: Guard) -> Settlement:
        """Publish the peers unless the report agrees already, then read the report.

        The guard is not asked: what is published is the registry's whole truth of that moment, whoever publishes it.
        """
        del guard
        device = claim.link.device
        picture = await self._registry.read(lambda tx: tx.picture(device))
        if picture is None or picture.lease is None:
            return Settlement(settled_at=self._clock.now(), next_at=None)
        if claim.link.wanted is Wanted.ABSENT:
            return await self._cut(claim, picture, picture.lease)
        applied = await self._tunnels.applied()
        if not _carries(applied, picture.lease):
            asked = await self._ask(claim, applied)
            applied = await self._report_of(asked, applied)
            if not _carries(applied, picture.lease):
                return self._outstanding(claim, asked)
        return Settlement(settled_at=self._clock.now(), next_at=None)

    async def _ask(self, claim: Claim, applied: Applied | None) -> int:
        """Return the revision that must be applied; publish unless one that was asked for is still on its way."""
        asked = _asked(claim)
        if asked is None or (applied is not None and applied.revision >= asked):
            asked = await self._publish()
        return asked

    async def _report_of(self, asked: int, applied: Applied | None) -> Applied | None:
        """Wait a moment for a report of the revision; where nobody ever reported there is nothing to wait for."""
        clock = asyncio.get_running_loop().time
        end = clock() + (_PATIENCE if applied is not None else 3 * _LOOK_EVERY)
        while (applied is None or applied.revision < asked) and clock() < end:
            await asyncio.sleep(_LOOK_EVERY)
            applied = await self._tunnels.applied()
        return applied

    async def _publish_all(self) -> int:
        monotonic = asyncio.get_running_loop().time
        await asyncio.sleep(self._rested - monotonic())
        begun = monotonic()
        revision = await self._registry.write(lambda tx: tx.raise_peer_revision())
        peers = await self._registry.read(lambda tx: tx.peers())
        await self._tunnels.publish(revision, peers)
        ended = monotonic()
        self._rested = ended + _REST_FACTOR * (ended - begun)
        return revision

    async def _cut(self, claim: Claim, picture: Picture, lease: Lease) -> Settlement:
        asked = _asked(claim)
        applied = await self._tunnels.applied()
        if asked is None or (_reached(applied, asked) and _mentions(applied, lease)):
            asked = await self._publish()
        applied = await self._report_of(asked, applied)
        if not _reached(applied, asked) or _mentions(applied, lease):
            return self._outstanding(claim, asked)
        now = self._clock.now()
        if picture.device.state is DeviceState.TOMBSTONE:
            await self._registry.write(lambda tx: tx.free_lease(picture.device.id, now + self._quarantine))
        return Settlement(settled_at=now, next_at=None)

    def _outstanding(self, claim: Claim, asked: int) -> Settlement:
        wait = min(_FIRST_RECHECK * 4 ** min(claim.link.attempts, 8), _RECHECK[claim.link.wanted])
        return Settlement(None, self._clock.now() + wait, _NOT_APPLIED, external_id=f"{claim.epoch}:{asked}")


def _asked(claim: Claim) -> int | None:
    """Return the revision whose application the link waits for since the device's last change of fate.

    It is kept as the link's external id, with the epoch it was asked at: an older one says nothing about today.
    """
    epoch, _, revision = (claim.link.external_id or "").partition(":")
    return int(revision) if epoch == str(claim.epoch) else None


def _carries(applied: Applied | None, lease: Lease) -> bool:
    if applied is None or lease.wg_key is None:
        return False
    return applied.holders.get(lease.address) == frozenset((lease.wg_key,))


def _reached(applied: Applied | None, asked: int) -> bool:
    return applied is not None and applied.revision >= asked


def _mentions(applied: Applied | None, lease: Lease) -> bool:
    return applied is None or lease.address in applied.holders or lease.wg_key in applied.keys
