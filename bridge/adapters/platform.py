"""ThingsBoard behind the port of the device platform."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from bridge.errors import ForeignObject, SystemFailed
from bridge.model.identity import DeviceId, Pem
from bridge.ports.platform import PlatformDevice
from thingsboard import errors
from thingsboard.client import ThingsBoardClient
from thingsboard.models import ConnectEvent, CredentialsType, Leaf
from thingsboard.webhook import parse_event


class ThingsBoardPlatform:
    """One tenant of one ThingsBoard."""

    def __init__(self, client: ThingsBoardClient) -> None:
        self._client = client

    async def find(self, name: DeviceId) -> PlatformDevice | None:
        """Return the device of exactly this name, with what admits it."""
        with _working(f"looking for {name}"):
            found = await self._client.find_device(name.value)
            if found is None or found.name != name.value:
                return None
            try:
                held = await self._client.credentials(found.id)
            except errors.DeviceGone:
                return None
        return PlatformDevice(found.id, held.credentials_id if held.type is CredentialsType.X509_CERTIFICATE else None)

    async def create(self, name: DeviceId, label: str | None, leaf: Pem) -> PlatformDevice:
        """Create the device with the leaf as its credential."""
        parsed = _leaf(leaf)
        with _working(f"creating {name}"):
            try:
                made = await self._client.create_device(name.value, parsed, label=label)
            except errors.DeviceExists as e:
                raise ForeignObject(f"ThingsBoard has a device {name} since a moment ago; looking again") from e
        return PlatformDevice(made.id, parsed.credentials_id)

    async def put_leaf(self, device: PlatformDevice, leaf: Pem) -> None:
        """Make the leaf the device's credential."""
        with _working("replacing the credential"):
            await self._client.replace_by_leaf(await self._client.credentials(device.id), _leaf(leaf))

    async def lock_out(self, device: PlatformDevice) -> None:
        """Put a random access token in the credential's place."""
        with _working("locking the device out"):
            try:
                held = await self._client.credentials(device.id)
                if not held.is_tombstone:
                    await self._client.replace_by_tombstone(held)
            except errors.DeviceGone:
                return

    async def delete(self, device: PlatformDevice) -> None:
        """Delete the device."""
        with _working("deleting the device"):
            await self._client.delete_device(device.id)

    async def attributes(self, device: PlatformDevice, keys: Sequence[str]) -> Mapping[str, Any]:
        """Return server-scope attributes."""
        with _working("reading attributes"):
            return (await self._client.attributes(device.id, *keys)).values

    async def write_attributes(self, device: PlatformDevice, values: Mapping[str, Any]) -> None:
        """Set server-scope attributes."""
        with _working("writing attributes"):
            await self._client.write_attributes(device.id, values)

    def credential_of(self, leaf: Pem) -> str:
        """Return ThingsBoard's hash of the leaf."""
        return _credential(leaf)

    async def check(self) -> None:
        """Log in and read something."""
        with _working("checking the log-in"):
            await self._client.check()


def device_names(body: bytes, headers: Mapping[str, str]) -> Sequence[str]:
    """Return the names of devices that a webhook says connected; none for any other message."""
    event = parse_event(body, headers)
    return (event.device_name,) if isinstance(event, ConnectEvent) and event.device_name else ()


@lru_cache(maxsize=4096)
def _credential(leaf: Pem) -> str:
    return _leaf(leaf).credentials_id


def _leaf(leaf: Pem) -> Leaf:
    try:
        return Leaf.from_pem(leaf)
    except ValueError as e:
        raise SystemFailed("the stored leaf cannot be read; the registry is damaged") from e


@contextmanager
def _working(what: str) -> Iterator[None]:
    try:
        yield
    except errors.PlatformError as e:
        raise SystemFailed(f"ThingsBoard, {what}: {e}") from e
