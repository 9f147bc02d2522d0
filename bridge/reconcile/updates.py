"""hawkBit's door: once the device was seen connected its target exists and carries our mark; or it is gone."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from bridge.errors import SystemFailed
from bridge.model.records import Wanted
from bridge.ports.registry import Claim, Picture, Registry, Settlement
from bridge.ports.runtime import Clock
from bridge.ports.updates import UpdateServer
from bridge.reconcile.door import Guard

_FOREIGN_RECHECK: Final = timedelta(minutes=10)


def mark(installation: str) -> str:
    """Return the description that says which installation made a target."""
    return f"iot-bridge:{installation}"


class UpdatesDoor:
    """Agreement: the target exists with our mark, set in the creating request itself."""

    def __init__(self, registry: Registry, updates: UpdateServer, clock: Clock, installation: str) -> None:
        self._registry = registry
        self._updates = updates
        self._clock = clock
        self._mark = mark(installation)

    async def agree(self, claim: Claim, guard: Guard) -> Settlement:
        """Bring hawkBit into agreement."""
        device = claim.link.device
        picture = await self._registry.read(lambda tx: tx.picture(device))
        if picture is None:
            return Settlement(settled_at=self._clock.now(), next_at=None)
        if claim.link.wanted is Wanted.ABSENT:
            return await self._cut(picture, guard)
        if picture.device.first_connected_at is None:
            return Settlement(settled_at=None, next_at=None)
        return await self._admit(picture, guard)

    async def _cut(self, picture: Picture, guard: Guard) -> Settlement:
        name = picture.device.id
        if await self._updates.find(name) is not None:
            await guard()
            await self._updates.delete(name)
            if await self._updates.find(name) is not None:
                raise SystemFailed(f"hawkBit has a target {name} again just after its deletion")
        return Settlement(settled_at=self._clock.now(), next_at=None)

    async def _admit(self, picture: Picture, guard: Guard) -> Settlement:
        name = picture.device.id
        found = await self._updates.find(name)
        if found is None:
            await guard()
            found = await self._updates.create(name, picture.device.name or name.value, self._mark)
        if found.description != self._mark:
            text = f"hawkBit has a target {name} that this bridge did not make"
            return Settlement(None, self._clock.now() + _FOREIGN_RECHECK, text, foreign=True)
        return Settlement(settled_at=self._clock.now(), next_at=None, external_id=found.controller_id)
