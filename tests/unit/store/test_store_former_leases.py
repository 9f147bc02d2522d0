"""An id that was forgotten, came again and was retired has left two addresses behind."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any


async def test_the_last_of_several_former_addresses_comes_back(opened: Any, installed: Any, fleet: Any) -> None:
    registry = await opened()
    await installed(registry, 10)
    device = fleet.id("cam-1")
    serial = await fleet.begin(registry, fleet.request("cam-1"))
    assert await registry.write(lambda t: t.abandon(device, fleet.now))
    await registry.write(lambda t: t.mark_revoked([serial], fleet.now))
    await registry.write(lambda t: t.sweep_attempts(fleet.now, 10))
    assert await registry.read(lambda t: t.device(device)) is None

    second = await fleet.enroll(registry, "cam-1", key="2", wg="2")
    assert second.lease.address == IPv4Address("10.8.0.3")  # the first one rests, and nobody remembers whose it was
    await registry.write(lambda t: t.tombstone(device, fleet.now))
    await registry.write(lambda t: t.free_lease(device, fleet.at(hours=2)))
    await registry.write(lambda t: t.reinstate(device, fleet.now))

    third = await fleet.enroll(registry, "cam-1", key="3", wg="3", generation=2)
    assert third.lease.address == second.lease.address
    assert (await registry.read(lambda t: t.lease(device))).address == second.lease.address
