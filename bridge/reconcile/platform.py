"""ThingsBoard's door: the device exists, is admitted by exactly its current leaf, and is ours; or it is gone.

Ours is (design, section 5.9): the stored uuid, a credential equal to one of our leaves, or the attribute ``iot_bridge``
with this installation's id. Anything else with the name of a live device is foreign and left alone. For a tombstone
the name is ours, whoever made what carries it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bridge.errors import SystemFailed
from bridge.model.records import Issuance, Wanted
from bridge.ports.platform import DevicePlatform, PlatformDevice
from bridge.ports.registry import Claim, Picture, Registry, Settlement
from bridge.ports.runtime import Clock
from bridge.reconcile.door import Guard

OWNER_ATTRIBUTE: Final = "iot_bridge"
ADDRESS_ATTRIBUTE: Final = "wireguard_ip"
_LAST_CONNECT: Final = "lastConnectTime"

_FOREIGN_RECHECK: Final = timedelta(minutes=10)
_HINT_RECHECK: Final = timedelta(seconds=1)
_HINT_TRIES: Final = 5
"""How often a device is looked at, a second apart, when an event says that it connected and nothing shows it yet."""
_NEVER_SEEN: Final = timedelta(seconds=60)
_SLOWEST: Final = timedelta(hours=1)


class PlatformDoor:
    """Agreement: exactly the current leaf opens, and the platform carries our mark and the VPN address."""

    def __init__(self, registry: Registry, platform: DevicePlatform, clock: Clock, installation: str) -> None:
        self._registry = registry
        self._platform = platform
        self._clock = clock
        self._installation = installation

    async def agree(self, claim: Claim, guard: Guard) -> Settlement:
        """Bring the platform into agreement; remember the first connect where it shows."""
        device = claim.link.device
        picture = await self._registry.read(lambda tx: tx.picture(device))
        if picture is None:
            return Settlement(settled_at=self._clock.now(), next_at=None)
        if claim.link.wanted is Wanted.ABSENT:
            return await self._cut(picture, guard)
        if picture.current is None or picture.current.leaf is None:
            return Settlement(settled_at=None, next_at=None, error="there is no current certificate yet")
        return await self._admit(claim, picture, picture.current, guard)

    async def _cut(self, picture: Picture, guard: Guard) -> Settlement:
        """Lock out first, so that deletion never races a connect; then delete; then look again."""
        name = picture.device.id
        found = await self._platform.find(name)
        if found is not None:
            await guard()
            await self._platform.lock_out(found)
            await guard()
            await self._platform.delete(found)
            if await self._platform.find(name) is not None:
                raise SystemFailed(f"ThingsBoard has a device {name} again just after its deletion")
        return Settlement(settled_at=self._clock.now(), next_at=None)

    async def _admit(self, claim: Claim, picture: Picture, current: Issuance, guard: Guard) -> Settlement:
        assert current.leaf is not None  # noqa: S101 - the caller looked
        wanted = self._platform.credential_of(current.leaf)
        found = await self._platform.find(picture.device.id)
        if found is None:
            await guard()
            found = await self._platform.create(picture.device.id, picture.device.name, current.leaf)
        shown = await self._platform.attributes(found, (OWNER_ATTRIBUTE, ADDRESS_ATTRIBUTE, _LAST_CONNECT))
        if not self._is_ours(found, claim, picture, shown):
            text = f"ThingsBoard has a device {picture.device.id} ({found.id}) that this bridge did not make"
            return Settlement(None, self._clock.now() + _FOREIGN_RECHECK, text, foreign=True)
        if found.credential != wanted:
            await guard()
            await self._platform.put_leaf(found, current.leaf)
        connected = await self._note_connect(picture, shown)
        missing = {k: v for k, v in self._attributes(picture, connected).items() if shown.get(k) != v}
        if missing:
            await guard()
            await self._platform.write_attributes(found, missing)
        return self._settlement(claim, current, found, connected)

    def _is_ours(self, found: PlatformDevice, claim: Claim, picture: Picture, shown: Mapping[str, Any]) -> bool:
        return (
            found.id == claim.link.external_id
            or shown.get(OWNER_ATTRIBUTE) == self._installation
            or found.credential in {self._platform.credential_of(leaf) for leaf in picture.leaves}
        )

    async def _note_connect(self, picture: Picture, shown: Mapping[str, Any]) -> bool:
        """Return whether the device was ever seen connected; remember it the first time."""
        if picture.device.first_connected_at is not None:
            return True
        now = self._clock.now()
        at = _moment(shown.get(_LAST_CONNECT), now)
        if at is None:
            return False
        await self._registry.write(lambda tx: tx.mark_connected(picture.device.id, at, now))
        return True

    def _attributes(self, picture: Picture, connected: bool) -> Mapping[str, Any]:
        attributes: dict[str, Any] = {OWNER_ATTRIBUTE: self._installation}
        if connected and picture.lease is not None and picture.lease.wg_key is not None:
            attributes[ADDRESS_ATTRIBUTE] = str(picture.lease.address)
        return attributes

    def _settlement(self, claim: Claim, current: Issuance, found: PlatformDevice, connected: bool) -> Settlement:
        now = self._clock.now()
        if connected:
            return Settlement(now, None, external_id=found.id)
        if claim.link.hints > 0 and claim.link.attempts < _HINT_TRIES:
            # An event came, but the platform does not show the connect yet: look again soon, believe nothing.
            return Settlement(None, now + _HINT_RECHECK, external_id=found.id)
        age = now - current.not_before if current.not_before is not None else _NEVER_SEEN
        return Settlement(now, now + min(max(age / 10, _NEVER_SEEN), _SLOWEST), external_id=found.id)


def _moment(millis: Any, now: datetime) -> datetime | None:
    """Return the moment of a connect, never later than now; ``None`` for what cannot be one.

    The attribute is the platform's to write, but everybody's who may write attributes.
    """
    if not isinstance(millis, int) or isinstance(millis, bool) or millis <= 0:
        return None
    return datetime.fromtimestamp(min(millis, int(now.timestamp() * 1000)) / 1000, UTC)
