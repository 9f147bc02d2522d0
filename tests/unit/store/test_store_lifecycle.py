"""What operators do: register, open a window, retire, reinstate, abandon."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Never

import pytest

from bridge.errors import StoreUnavailable
from bridge.model.facts import Lost
from bridge.model.records import DeviceState, IssuanceState, Kind, System, Wanted, Window
from bridge.ports.registry import Entry, Registration
from bridge.store.open import RegistryStore


def window_for(fleet: Any, generation: int = 1) -> Window:
    return Window(
        fleet.id("cam-1"),
        generation,
        "alice",
        fleet.now,
        fleet.at(hours=1),
        fleet.digest("voucher"),
        fleet.digest("key"),
        compromised=True,
    )


async def test_a_registration_is_kept_as_it_was_given(registry: RegistryStore, fleet: Any) -> None:
    registration = Registration(
        fleet.id("Cam-1"), fleet.now, fleet.digest("key"), fleet.digest("voucher"), fleet.at(days=1), "Door", "ipcam"
    )
    assert await registry.write(lambda t: t.register(registration))
    device = await registry.read(lambda t: t.device(fleet.id("cam-1")))
    assert device is not None
    assert (device.id.value, device.state, device.registered) == ("Cam-1", DeviceState.REGISTERED, True)
    assert (device.key_digest, device.voucher_hash) == (fleet.digest("key"), fleet.digest("voucher"))
    assert (device.admission_expires_at, device.name, device.type) == (fleet.at(days=1), "Door", "ipcam")


async def test_registering_a_known_id_in_any_spelling_changes_nothing(registry: RegistryStore, fleet: Any) -> None:
    assert await registry.write(lambda t: t.register(Registration(fleet.id("cam-1"), fleet.now, name="one")))
    for name in ("cam-1", "CAM-1"):
        again = Registration(fleet.id(name), fleet.now, name="two")
        assert not await registry.write(lambda t, r=again: t.register(r))
    device = await registry.read(lambda t: t.device(fleet.id("cam-1")))
    assert device is not None
    assert device.name == "one"


async def test_an_operators_name_stays_when_the_device_brings_its_own(registry: RegistryStore, fleet: Any) -> None:
    await registry.write(lambda t: t.register(Registration(fleet.id("cam-1"), fleet.now, name="Door")))
    await fleet.begin(registry, fleet.request("cam-1", name="camera", type="ipcam"))
    device = await registry.read(lambda t: t.device(fleet.id("cam-1")))
    assert device is not None
    assert (device.name, device.type, device.registered, device.epoch) == ("Door", "ipcam", True, 2)


async def test_a_window_opens_only_for_the_active_generation(registry: RegistryStore, fleet: Any) -> None:
    assert not await registry.write(lambda t: t.open_window(window_for(fleet)))
    await fleet.enroll(registry, "cam-1")
    assert not await registry.write(lambda t: t.open_window(window_for(fleet, generation=2)))
    assert await registry.write(lambda t: t.open_window(window_for(fleet)))
    shown = await registry.read(lambda t: t.window(fleet.id("CAM-1"), fleet.now))
    assert shown == window_for(fleet)
    assert await registry.read(lambda t: t.window(fleet.id("cam-1"), fleet.at(hours=1))) is None


async def test_a_second_window_replaces_the_first(registry: RegistryStore, fleet: Any) -> None:
    await fleet.enroll(registry, "cam-1")
    second = replace(window_for(fleet), opened_by="bob")
    await registry.write(lambda t: t.open_window(window_for(fleet)))
    await registry.write(lambda t: t.open_window(second))
    assert await registry.read(lambda t: t.window(fleet.id("cam-1"), fleet.now)) == second


async def test_a_tombstone_denies_everything_in_one_step(registry: RegistryStore, fleet: Any) -> None:
    stored = await fleet.enroll(registry, "cam-1")
    pending = await fleet.begin(registry, fleet.request("cam-1", key="2"), kind=Kind.RENEW)
    await fleet.store(registry, pending)
    intent = await fleet.begin(registry, fleet.request("cam-1", key="3"), kind=Kind.RENEW)
    await registry.write(lambda t: t.open_window(window_for(fleet)))
    before = await registry.read(lambda t: t.device(fleet.id("cam-1")))
    assert await registry.write(lambda t: t.tombstone(fleet.id("CAM-1"), fleet.now))
    picture = await registry.read(lambda t: t.picture(fleet.id("cam-1")))
    assert picture.device.state is DeviceState.TOMBSTONE
    assert picture.device.epoch == before.epoch + 1
    assert set(picture.revoking) == {stored.issuance.serial, pending, intent}
    assert picture.lease == stored.lease
    assert await registry.read(lambda t: t.window(fleet.id("cam-1"), fleet.now)) is None
    links = await registry.read(lambda t: t.links(fleet.id("cam-1")))
    assert {link.system for link in links} == set(System)
    assert {(link.wanted, link.settled_at, link.next_at) for link in links} == {(Wanted.ABSENT, None, fleet.now)}
    assert await registry.read(lambda t: t.peers()) == ()


async def test_a_tombstone_comes_once(registry: RegistryStore, fleet: Any) -> None:
    assert not await registry.write(lambda t: t.tombstone(fleet.id("cam-1"), fleet.now))
    await fleet.enroll(registry, "cam-1")
    assert await registry.write(lambda t: t.tombstone(fleet.id("cam-1"), fleet.now))
    assert not await registry.write(lambda t: t.tombstone(fleet.id("cam-1"), fleet.now))
    assert not await registry.write(lambda t: t.abandon(fleet.id("cam-1"), fleet.now))


async def test_an_id_that_only_was_registered_is_cut_everywhere_too(registry: RegistryStore, fleet: Any) -> None:
    await registry.write(lambda t: t.register(Registration(fleet.id("cam-1"), fleet.now)))
    assert await registry.write(lambda t: t.tombstone(fleet.id("cam-1"), fleet.now))
    assert {link.system for link in await registry.read(lambda t: t.links(fleet.id("cam-1")))} == set(System)


async def test_a_reinstated_id_is_registered_and_gets_its_next_generation(registry: RegistryStore, fleet: Any) -> None:
    await fleet.enroll(registry, "cam-1")
    assert not await registry.write(lambda t: t.reinstate(fleet.id("cam-1"), fleet.now))
    await registry.write(lambda t: t.mark_connected(fleet.id("cam-1"), fleet.now, fleet.now))
    await registry.write(lambda t: t.tombstone(fleet.id("cam-1"), fleet.now))
    assert await registry.write(lambda t: t.reinstate(fleet.id("cam-1"), fleet.now))
    device = await registry.read(lambda t: t.device(fleet.id("cam-1")))
    assert (device.state, device.registered, device.generation) == (DeviceState.REGISTERED, True, 1)
    assert device.first_connected_at is None
    again = await fleet.enroll(registry, "cam-1", key="2", wg="2", generation=2)
    assert again.issuance.generation == 2
    links = {link.system: link for link in await registry.read(lambda t: t.links(fleet.id("cam-1")))}
    assert links[System.THINGSBOARD].wanted is Wanted.PRESENT
    assert links[System.HAWKBIT].next_at is None


async def test_a_reinstated_id_gets_its_address_back_while_it_rests(registry: RegistryStore, fleet: Any) -> None:
    first = await fleet.enroll(registry, "cam-1")
    await registry.write(lambda t: t.tombstone(fleet.id("cam-1"), fleet.now))
    await registry.write(lambda t: t.free_lease(fleet.id("cam-1"), fleet.at(hours=1)))
    assert await registry.read(lambda t: t.lease(fleet.id("cam-1"))) is None
    await registry.write(lambda t: t.reinstate(fleet.id("cam-1"), fleet.now))
    again = await fleet.enroll(registry, "cam-1", key="2", wg="2", generation=2)
    assert again.lease.address == first.lease.address


async def test_a_lease_of_a_living_device_is_never_freed(registry: RegistryStore, fleet: Any) -> None:
    first = await fleet.enroll(registry, "cam-1")
    await registry.write(lambda t: t.free_lease(fleet.id("cam-1"), fleet.now))
    assert await registry.read(lambda t: t.lease(fleet.id("cam-1"))) == first.lease


async def test_an_abandoned_id_without_attempts_is_gone_at_once(registry: RegistryStore, fleet: Any) -> None:
    await registry.write(lambda t: t.register(Registration(fleet.id("cam-1"), fleet.now)))
    assert await registry.write(lambda t: t.abandon(fleet.id("cam-1"), fleet.now))
    assert await registry.read(lambda t: t.device(fleet.id("cam-1"))) is None
    assert not await registry.write(lambda t: t.abandon(fleet.id("cam-1"), fleet.now))


async def test_an_abandoned_attempt_is_revoked_before_its_rows_go(registry: RegistryStore, fleet: Any) -> None:
    request = fleet.request("cam-1")
    serial = await fleet.begin(registry, request)
    assert await registry.write(lambda t: t.abandon(request.device, fleet.now))
    assert await fleet.store(registry, serial) == Lost(serial)
    facts = await registry.read(lambda t: t.facts(request, fleet.now))
    assert facts.device is not None
    assert not facts.device.registered
    assert facts.lease is None
    await registry.write(lambda t: t.sweep_attempts(fleet.now, 10))
    assert await registry.read(lambda t: t.device(request.device)) is not None
    await registry.write(lambda t: t.mark_revoked((serial,), fleet.now))
    await registry.write(lambda t: t.sweep_attempts(fleet.now, 10))
    facts = await registry.read(lambda t: t.facts(request, fleet.now))
    assert facts.device is None
    assert facts.key_owner is None
    assert facts.wg_owner is None


async def test_an_abandoned_address_rests(opened: Any, installed: Any, fleet: Any) -> None:
    registry = await opened()
    await installed(registry, 1)
    await fleet.begin(registry, fleet.request("cam-1"))
    await registry.write(lambda t: t.abandon(fleet.id("cam-1"), fleet.now))
    late = fleet.now + fleet.quarantine
    await fleet.begin(registry, fleet.request("cam-2"), now=late)
    assert (await registry.read(lambda t: t.lease(fleet.id("cam-2")))) is not None


async def test_an_id_with_a_certificate_cannot_be_abandoned(registry: RegistryStore, fleet: Any) -> None:
    await fleet.enroll(registry, "cam-1")
    assert not await registry.write(lambda t: t.abandon(fleet.id("cam-1"), fleet.now))


async def test_an_abandoned_id_may_be_registered_again_while_it_waits(registry: RegistryStore, fleet: Any) -> None:
    serial = await fleet.begin(registry, fleet.request("cam-1"))
    await registry.write(lambda t: t.abandon(fleet.id("cam-1"), fleet.now))
    assert await registry.write(lambda t: t.register(Registration(fleet.id("cam-1"), fleet.now)))
    await registry.write(lambda t: t.mark_revoked((serial,), fleet.now))
    await registry.write(lambda t: t.sweep_attempts(fleet.now, 10))
    device = await registry.read(lambda t: t.device(fleet.id("cam-1")))
    assert device is not None
    assert device.registered
    await fleet.enroll(registry, "cam-1")


async def test_devices_are_shown_in_pages_in_order_of_the_folded_id(registry: RegistryStore, fleet: Any) -> None:
    for name in ("b", "A", "c.1", "C-2", "d"):
        await registry.write(lambda t, n=name: t.register(Registration(fleet.id(n), fleet.now)))
    await fleet.enroll(registry, "e")
    seen, after = [], None
    while True:
        page = await registry.read(lambda t, a=after: t.devices(a, 2, None))
        seen += [device.id.value for device in page.devices]
        if page.next_after is None:
            break
        after = page.next_after
    assert seen == ["A", "b", "C-2", "c.1", "d", "e"]
    active = await registry.read(lambda t: t.devices(None, 10, DeviceState.ACTIVE))
    assert [device.id.value for device in active.devices] == ["e"]
    assert active.next_after is None


async def test_the_installation_is_written_once(registry: RegistryStore, installed: Any, fleet: Any) -> None:
    first = await registry.read(lambda t: t.installation())
    assert first is not None
    assert (first.id, first.mode, first.tenant) == ("id-1", "embedded", "acme")
    assert first.issuing_sha256 == (fleet.digest("sub"),)
    await fleet.begin(registry, fleet.request("cam-1"))
    await installed(registry, 1)
    assert await registry.read(lambda t: t.installation()) == first
    await fleet.begin(registry, fleet.request("cam-2"))


async def test_what_was_audited_is_committed_with_the_act_or_not_at_all(registry: RegistryStore, fleet: Any) -> None:
    entry = Entry(fleet.now, "alice", "device.register", fleet.id("cam-1"), {"b": 1, "a": None}, "req-1")

    def fails(t: Any) -> Never:
        t.audit(entry)
        raise RuntimeError("after writing")

    with pytest.raises(RuntimeError):
        await registry.write(fails)
    await registry.write(lambda t: t.audit(entry))
    with registry.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT actor, device, detail, sequence FROM audit").all()
    assert [tuple(row) for row in rows] == [("alice", "cam-1", '{"a":null,"b":1}', None)]


async def test_a_reading_unit_cannot_write(registry: RegistryStore, fleet: Any) -> None:
    with pytest.raises(StoreUnavailable):
        await registry.read(lambda t: t.register(Registration(fleet.id("cam-1"), fleet.now)))
    assert await registry.read(lambda t: t.device(fleet.id("cam-1"))) is None


async def test_an_issuance_that_was_revoked_stays_so(registry: RegistryStore, fleet: Any) -> None:
    stored = await fleet.enroll(registry, "cam-1")
    serial = stored.issuance.serial
    await registry.write(lambda t: t.mark_revoked((serial,), fleet.now))
    (one,) = await registry.read(lambda t: t.issuances(fleet.id("cam-1")))
    assert one.state is IssuanceState.CURRENT  # nothing had been ordered to be revoked
    await registry.write(lambda t: t.tombstone(fleet.id("cam-1"), fleet.now))
    await registry.write(lambda t: t.mark_revoked((serial,), fleet.now))
    (one,) = await registry.read(lambda t: t.issuances(fleet.id("cam-1")))
    assert one.state is IssuanceState.REVOKED
    assert (await registry.read(lambda t: t.picture(fleet.id("cam-1")))).revoking == ()
