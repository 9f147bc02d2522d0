"""hawkBit behind the port of the update server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bridge.errors import ForeignObject, SystemFailed
from bridge.model.identity import DeviceId
from bridge.ports.updates import UpdateTarget
from hawkbit import errors
from hawkbit.client import HawkbitClient
from hawkbit.models import Target


class HawkbitServer:
    """One tenant of one hawkBit."""

    def __init__(self, client: HawkbitClient) -> None:
        self._client = client

    async def find(self, device: DeviceId) -> UpdateTarget | None:
        """Return the target of exactly this id."""
        with _working(f"looking for {device}"):
            found = await self._client.find_target(device.value)
        return None if found is None else _target(found)

    async def create(self, device: DeviceId, name: str, description: str) -> UpdateTarget:
        """Create the target with its description."""
        with _working(f"creating {device}"):
            try:
                return _target(await self._client.create_target(device.value, name=name, description=description))
            except errors.TargetExists as e:
                raise ForeignObject(f"hawkBit has a target {device} since a moment ago; looking again") from e

    async def delete(self, device: DeviceId) -> None:
        """Delete the target."""
        with _working(f"deleting {device}"):
            await self._client.delete_target(device.value)

    async def check(self) -> None:
        """Read something as our user."""
        with _working("checking the user"):
            await self._client.check_health()


def _target(target: Target) -> UpdateTarget:
    return UpdateTarget(target.controller_id, target.description)


@contextmanager
def _working(what: str) -> Iterator[None]:
    try:
        yield
    except errors.HawkbitError as e:
        raise SystemFailed(f"hawkBit, {what}: {e}") from e
