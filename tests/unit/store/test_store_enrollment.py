"""From the first facts to a stored certificate, and every way in which an attempt can end otherwise."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from bridge.errors import IdSpelling, KeyInUse, PoolEmpty, Retired, WireGuardKeyInUse
from bridge.model.facts import Lost, Stored
from bridge.model.identity import Serial
from bridge.model.records import DeviceState, IssuanceState, Kind, System, Wanted, Window
from bridge.store.open import RegistryStore


async def test_nothing_is_known_of_a_new_device(registry: RegistryStore, fleet: Any) -> None:
    facts = await registry.write(lambda t: t.facts(fleet.request("cam-1"), fleet.now))
    assert facts.now == fleet.now
    assert {
        getattr(facts, name)
        for name in ("device", "key_owner", "stored", "attempt", "current", "window", "lease", "wg_owner")
    } == {None}


async def test_an_attempt_is_recorded_with_device_key_and_lease(registry: RegistryStore, fleet: Any) -> None:
    request = fleet.request("Cam-1", name="Camera", type="ipcam", inventory={"ram": 512})
    serial = await fleet.begin(registry, request, proven=True)
    facts = await registry.read(lambda t: t.facts(request, fleet.now))
    assert facts.device is not None
    assert (facts.device.id.value, facts.device.state, facts.device.epoch) == ("Cam-1", DeviceState.REGISTERED, 1)
    assert (facts.device.generation, facts.device.registered, facts.device.name) == (0, False, "Camera")
    assert facts.key_owner is not None
    assert facts.key_owner.generation is None
    assert facts.attempt is not None
    assert (facts.attempt.serial, facts.attempt.state) == (serial, IssuanceState.INTENT)
    assert facts.attempt.is_open(fleet.now)
    assert not facts.attempt.is_open(fleet.later)
    assert facts.lease is not None
    assert str(facts.lease.address) == "10.8.0.2"
    assert facts.lease.wg_key is None
    assert facts.wg_owner is not None
    assert facts.wg_owner.generation == 1
    assert facts.stored is None
    assert facts.current is None


async def test_facts_find_the_device_under_any_spelling_and_keep_the_first(registry: RegistryStore, fleet: Any) -> None:
    await fleet.begin(registry, fleet.request("Cam-1"))
    facts = await registry.read(lambda t: t.facts(fleet.request("CAM-1", key="2"), fleet.now))
    assert facts.device is not None
    assert facts.device.id.value == "Cam-1"
    with pytest.raises(IdSpelling):
        await fleet.begin(registry, fleet.request("CAM-1", key="2"))


async def test_the_first_certificate_is_current_at_once_and_orders_are_due(registry: RegistryStore, fleet: Any) -> None:
    stored = await fleet.enroll(registry, "cam-1")
    assert stored.issuance.state is IssuanceState.CURRENT
    assert stored.lease is not None
    assert stored.lease.wg_key == fleet.wg_key("cam-1 1")
    request = fleet.request("cam-1")
    facts = await registry.read(lambda t: t.facts(request, fleet.now))
    assert facts.stored == facts.current == stored.issuance
    assert facts.lease == stored.lease
    assert facts.attempt is None
    assert facts.key_owner is not None
    assert facts.key_owner.generation == 1
    assert facts.device is not None
    assert (facts.device.state, facts.device.generation, facts.device.epoch) == (DeviceState.ACTIVE, 1, 2)
    links = {link.system: link for link in await registry.read(lambda t: t.links(request.device))}
    assert set(links) == {System.THINGSBOARD, System.HAWKBIT, System.WIREGUARD}
    assert {link.wanted for link in links.values()} == {Wanted.PRESENT}
    assert links[System.THINGSBOARD].next_at == links[System.WIREGUARD].next_at == fleet.now
    assert links[System.HAWKBIT].next_at is None


async def test_without_a_wireguard_key_there_is_no_lease_and_no_link(registry: RegistryStore, fleet: Any) -> None:
    stored = await fleet.enroll(registry, "cam-1", wg=None)
    assert stored.lease is None
    systems = {link.system for link in await registry.read(lambda t: t.links(fleet.id("cam-1")))}
    assert System.WIREGUARD not in systems


async def test_only_systems_that_are_switched_on_get_links(opened: Any, installed: Any, fleet: Any) -> None:
    registry = await opened(frozenset({System.THINGSBOARD}))
    await installed(registry, 5)
    await fleet.enroll(registry, "cam-1")
    assert [link.system for link in await registry.read(lambda t: t.links(fleet.id("cam-1")))] == [System.THINGSBOARD]


async def test_a_new_attempt_turns_the_earlier_one_into_revoking(registry: RegistryStore, fleet: Any) -> None:
    request = fleet.request("cam-1")
    first = await fleet.begin(registry, request)
    second = await fleet.begin(registry, request, now=fleet.later)
    states = {one.serial: one.state for one in await registry.read(lambda t: t.issuances(request.device))}
    assert states == {first: IssuanceState.REVOKING, second: IssuanceState.INTENT}
    (ca,) = await registry.read(lambda t: t.links(request.device))
    assert (ca.system, ca.wanted, ca.next_at) == (System.CA, Wanted.ABSENT, fleet.later)


async def test_a_late_leaf_is_kept_for_revocation_and_does_not_use_up_the_key(
    registry: RegistryStore, fleet: Any
) -> None:
    request = fleet.request("cam-1")
    first = await fleet.begin(registry, request)
    second = await fleet.begin(registry, request, now=fleet.later)
    assert await fleet.store(registry, first) == Lost(first)
    facts = await registry.read(lambda t: t.facts(request, fleet.now))
    assert facts.stored is None
    assert isinstance(await fleet.store(registry, second, now=fleet.later), Stored)
    picture = await registry.read(lambda t: t.picture(request.device))
    assert picture.revoking == (first,)
    assert len(picture.leaves) == 2
    assert picture.current is not None
    assert picture.current.serial == second


@pytest.mark.parametrize("late", [False, True])
async def test_a_leaf_is_lost_after_deadline_or_refusal(registry: RegistryStore, fleet: Any, late: bool) -> None:
    request = fleet.request("cam-1")
    serial = await fleet.begin(registry, request)
    if not late:
        await registry.write(lambda t: t.refuse_attempt(serial))
    lost = await fleet.store(registry, serial, now=fleet.later if late else fleet.now)
    assert lost == Lost(serial)
    (issuance,) = await registry.read(lambda t: t.issuances(request.device))
    assert issuance.state is IssuanceState.REVOKING
    assert issuance.leaf is not None
    device = await registry.read(lambda t: t.device(request.device))
    assert device is not None
    assert device.state is DeviceState.REGISTERED


async def test_a_leaf_that_comes_after_decommission_is_lost(registry: RegistryStore, fleet: Any) -> None:
    request = fleet.request("cam-1")
    serial = await fleet.begin(registry, request)
    assert await registry.write(lambda t: t.tombstone(request.device, fleet.now))
    assert await fleet.store(registry, serial) == Lost(serial)
    with pytest.raises(Retired):
        await fleet.begin(registry, request)


async def test_storing_the_same_leaf_again_answers_the_same(registry: RegistryStore, fleet: Any) -> None:
    serial = await fleet.begin(registry, fleet.request("cam-1"))
    assert await fleet.store(registry, serial) == await fleet.store(registry, serial, now=fleet.at(days=1))


async def test_a_leaf_of_an_attempt_that_was_never_begun_is_a_bug(registry: RegistryStore, fleet: Any) -> None:
    with pytest.raises(LookupError):
        await fleet.store(registry, Serial(7))


async def test_the_cas_own_serial_replaces_ours_in_the_same_commit(registry: RegistryStore, fleet: Any) -> None:
    ours = await fleet.begin(registry, fleet.request("cam-1"))
    theirs = Serial(4711)
    stored = await fleet.store(registry, ours, leaf=theirs)
    assert isinstance(stored, Stored)
    assert stored.issuance.serial == theirs
    (issuance,) = await registry.read(lambda t: t.issuances(fleet.id("cam-1")))
    assert issuance.serial == theirs
    assert await fleet.store(registry, ours, leaf=theirs) == stored


async def test_a_second_leaf_for_one_attempt_is_known_and_can_be_revoked(registry: RegistryStore, fleet: Any) -> None:
    ours = await fleet.begin(registry, fleet.request("cam-1"))
    await fleet.store(registry, ours)
    other = Serial(4711)
    assert await fleet.store(registry, ours, leaf=other) == Lost(other)
    picture = await registry.read(lambda t: t.picture(fleet.id("cam-1")))
    assert picture.revoking == (other,)
    assert picture.current is not None
    assert picture.current.serial == ours


async def test_a_forgotten_attempt_leaves_nothing_to_revoke(registry: RegistryStore, fleet: Any) -> None:
    request = fleet.request("cam-1")
    serial = await fleet.begin(registry, request)
    await registry.write(lambda t: t.forget_attempt(serial))
    facts = await registry.read(lambda t: t.facts(request, fleet.now))
    assert facts.attempt is None
    assert facts.wg_owner is None
    assert facts.lease is not None
    assert await registry.read(lambda t: t.issuances(request.device)) == ()


async def test_the_sweep_closes_what_is_refused_or_late_and_keeps_the_key_usable(
    registry: RegistryStore, fleet: Any
) -> None:
    requests = [fleet.request(f"cam-{n}") for n in range(3)]
    serials = [await fleet.begin(registry, request) for request in requests]
    await registry.write(lambda t: t.refuse_attempt(serials[0]))
    assert await registry.write(lambda t: t.sweep_attempts(fleet.now, 10)) == 1
    assert await registry.write(lambda t: t.sweep_attempts(fleet.later, 1)) == 1
    assert await registry.write(lambda t: t.sweep_attempts(fleet.later, 10)) == 1
    assert await registry.write(lambda t: t.sweep_attempts(fleet.later, 10)) == 0
    for request in requests:
        links = await registry.read(lambda t, device=request.device: t.links(device))
        assert [link.system for link in links] == [System.CA]
        again = await fleet.begin(registry, request, now=fleet.later)
        assert isinstance(await fleet.store(registry, again, now=fleet.later), Stored)


async def test_a_key_belongs_to_one_device(registry: RegistryStore, fleet: Any) -> None:
    await fleet.begin(registry, fleet.request("cam-1"))
    stolen = fleet.request("cam-1")
    thief = type(stolen)(fleet.id("cam-2"), stolen.csr, fleet.wg_key("cam-2"))
    facts = await registry.write(lambda t: t.facts(thief, fleet.now))
    assert facts.device is None
    assert facts.key_owner is not None
    assert facts.key_owner.device == fleet.id("cam-1")
    with pytest.raises(KeyInUse):
        await fleet.begin(registry, thief)
    assert await registry.read(lambda t: t.device(fleet.id("cam-2"))) is None


async def test_a_wireguard_key_is_held_by_one_device_until_its_quarantine_is_over(
    registry: RegistryStore, fleet: Any
) -> None:
    await fleet.enroll(registry, "cam-1")
    thief = fleet.request("cam-2", wg=None)
    thief = type(thief)(thief.device, thief.csr, fleet.wg_key("cam-1 1"))
    facts = await registry.read(lambda t: t.facts(thief, fleet.now))
    assert facts.wg_owner is not None
    assert facts.wg_owner.device == fleet.id("cam-1")
    with pytest.raises(WireGuardKeyInUse):
        await fleet.begin(registry, thief)
    await registry.write(lambda t: t.tombstone(fleet.id("cam-1"), fleet.now))
    await registry.write(lambda t: t.free_lease(fleet.id("cam-1"), fleet.at(hours=1)))
    with pytest.raises(WireGuardKeyInUse):
        await fleet.begin(registry, thief, now=fleet.at(minutes=59))
    await fleet.begin(registry, thief, now=fleet.at(hours=1))


async def test_a_renewal_is_pending_beside_the_current_certificate(registry: RegistryStore, fleet: Any) -> None:
    first = await fleet.enroll(registry, "cam-1")
    serials = []
    for key in ("2", "3"):
        serial = await fleet.begin(registry, fleet.request("cam-1", key=key), kind=Kind.RENEW)
        stored = await fleet.store(registry, serial)
        assert isinstance(stored, Stored)
        assert stored.issuance.state is IssuanceState.PENDING
        assert stored.lease == first.lease
        serials.append(serial)
    states = [one.state for one in await registry.read(lambda t: t.issuances(fleet.id("cam-1")))]
    assert states == [IssuanceState.CURRENT, IssuanceState.REVOKING, IssuanceState.PENDING]
    device = await registry.read(lambda t: t.device(fleet.id("cam-1")))
    assert device is not None
    assert device.generation == 1
    links = {link.system: link.next_at for link in await registry.read(lambda t: t.links(fleet.id("cam-1")))}
    assert links[System.CA] == fleet.now


async def test_a_reenrollment_replaces_everything_but_the_address(registry: RegistryStore, fleet: Any) -> None:
    first = await fleet.enroll(registry, "cam-1")
    window = Window(fleet.id("cam-1"), 1, "alice", fleet.now, fleet.at(hours=1), None, None, compromised=False)
    assert await registry.write(lambda t: t.open_window(window))
    request = fleet.request("cam-1", key="2", wg="2")
    facts = await registry.read(lambda t: t.facts(request, fleet.now))
    assert facts.window == window
    serial = await fleet.begin(registry, request, kind=Kind.REENROLL, generation=2, proven=True)
    assert (await registry.read(lambda t: t.facts(request, fleet.now))).window == window
    stored = await fleet.store(registry, serial)
    assert isinstance(stored, Stored)
    assert stored.lease is not None
    assert first.lease is not None
    assert stored.lease.address == first.lease.address
    assert stored.lease.wg_key == fleet.wg_key("cam-1 2")
    facts = await registry.read(lambda t: t.facts(fleet.request("cam-1"), fleet.now))
    assert facts.window is None
    assert facts.device is not None
    assert (facts.device.generation, facts.device.proven) == (2, True)
    assert facts.stored is not None
    assert facts.stored.state is IssuanceState.REVOKING
    assert facts.wg_owner is not None
    assert facts.wg_owner.generation == 1
    after = await registry.read(lambda t: t.facts(fleet.request("cam-1"), fleet.now + fleet.quarantine))
    assert after.wg_owner is None


async def test_a_reenrollment_without_wireguard_key_ends_the_old_tunnel(registry: RegistryStore, fleet: Any) -> None:
    await fleet.enroll(registry, "cam-1")
    serial = await fleet.begin(registry, fleet.request("cam-1", key="2", wg=None), kind=Kind.REENROLL, generation=2)
    stored = await fleet.store(registry, serial)
    assert isinstance(stored, Stored)
    assert stored.lease is not None
    assert stored.lease.wg_key is None
    links = {link.system: link.wanted for link in await registry.read(lambda t: t.links(fleet.id("cam-1")))}
    assert links[System.WIREGUARD] is Wanted.ABSENT
    assert await registry.read(lambda t: t.peers()) == ()


async def test_an_empty_pool_writes_nothing_even_if_the_unit_goes_on(opened: Any, installed: Any, fleet: Any) -> None:
    registry = await opened()
    await installed(registry, 1)
    await fleet.begin(registry, fleet.request("cam-1"))
    attempt = fleet.attempt(fleet.request("cam-2"))

    def stubborn(t: Any) -> None:
        try:
            t.begin_attempt(attempt)
        except PoolEmpty:
            return

    with pytest.raises(PoolEmpty):
        await registry.write(stubborn)
    assert await registry.read(lambda t: t.device(fleet.id("cam-2"))) is None
    await fleet.begin(registry, fleet.request("cam-3", wg=None))


async def test_addresses_are_reused_longest_free_first_and_never_before_their_time(
    opened: Any, installed: Any, fleet: Any
) -> None:
    registry = await opened()
    await installed(registry, 3)
    old = [await fleet.enroll(registry, f"cam-{n}") for n in range(3)]
    for n, minutes in ((0, 30), (1, 10), (2, 20)):
        await registry.write(lambda t, n=n: t.tombstone(fleet.id(f"cam-{n}"), fleet.now))
        await registry.write(lambda t, n=n, m=minutes: t.free_lease(fleet.id(f"cam-{n}"), fleet.at(minutes=m)))
    with pytest.raises(PoolEmpty):
        await fleet.begin(registry, fleet.request("new-0"), now=fleet.at(minutes=9))
    got = []
    for n in range(2):
        await fleet.begin(registry, fleet.request(f"new-{n}"), now=fleet.at(minutes=25))
        got.append((await registry.read(lambda t, n=n: t.lease(fleet.id(f"new-{n}")))).address)
    assert got == [old[1].lease.address, old[2].lease.address]
    with pytest.raises(PoolEmpty):
        await fleet.begin(registry, fleet.request("new-2"), now=fleet.at(minutes=25))


async def test_times_keep_their_microseconds_and_their_zone(registry: RegistryStore, fleet: Any) -> None:
    moment = fleet.now + timedelta(microseconds=1)
    await fleet.enroll(registry, "cam-1", now=moment)
    (issuance,) = await registry.read(lambda t: t.issuances(fleet.id("cam-1")))
    assert issuance.deadline == moment + timedelta(seconds=15)
    assert issuance.deadline.utcoffset() == timedelta(0)
    with pytest.raises(TypeError):
        await fleet.begin(registry, fleet.request("cam-2"), now=moment.replace(tzinfo=None))
