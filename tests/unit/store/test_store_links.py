"""Orders for outside systems: claims that nobody takes twice, and news that is never lost under a claim."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from bridge.model.records import Kind, Link, System, Wanted
from bridge.ports.registry import Claim, Settlement
from bridge.store.open import RegistryStore

TB, HB, WG, CA = System.THINGSBOARD, System.HAWKBIT, System.WIREGUARD, System.CA


async def claim(
    registry: RegistryStore, fleet: Any, system: System = TB, holder: str = "me", now: Any = None, limit: int = 10
) -> tuple[Claim, ...]:
    now = now or fleet.now
    until = now + (fleet.at(seconds=30) - fleet.now)
    return await registry.write(lambda t: t.claim_due(system, holder, now, until, limit))


async def link(registry: RegistryStore, fleet: Any, system: System = TB, name: str = "cam-1") -> Link:
    return {one.system: one for one in await registry.read(lambda t: t.links(fleet.id(name)))}[system]


async def test_a_due_link_is_claimed_once(registry: RegistryStore, fleet: Any) -> None:
    await fleet.enroll(registry, "cam-1")
    (mine,) = await claim(registry, fleet)
    assert (mine.link.device, mine.link.system, mine.epoch) == (fleet.id("cam-1"), TB, 2)
    assert (mine.link.attempts, mine.link.claimed_by, mine.until) == (1, "me", fleet.at(seconds=30))
    assert await claim(registry, fleet, holder="other") == ()
    assert await registry.read(lambda t: t.claim_holds(mine, fleet.now))
    assert await registry.read(lambda t: t.next_due(TB)) == fleet.at(seconds=30)
    (again,) = await claim(registry, fleet, holder="other", now=fleet.at(seconds=30))
    assert again.link.attempts == 2
    assert not await registry.read(lambda t: t.claim_holds(mine, fleet.at(seconds=29)))


async def test_a_claim_ends_with_its_deadline_also_when_nobody_took_it(registry: RegistryStore, fleet: Any) -> None:
    await fleet.enroll(registry, "cam-1")
    (mine,) = await claim(registry, fleet)
    late = fleet.at(seconds=30)
    assert not await registry.read(lambda t: t.claim_holds(mine, late))
    assert not await registry.write(lambda t: t.settle(mine, Settlement(late, None), late))
    after = await link(registry, fleet)
    assert (after.settled_at, after.next_at, after.claimed_by) == (None, late, None)


async def test_nothing_is_claimed_before_it_is_due_and_the_longest_due_comes_first(
    registry: RegistryStore, fleet: Any
) -> None:
    for n in (2, 0, 1):
        await fleet.enroll(registry, f"cam-{n}", now=fleet.at(minutes=n))
    due = await claim(registry, fleet, now=fleet.at(minutes=1))
    assert [one.link.device.value for one in due] == ["cam-0", "cam-1"]
    assert await registry.read(lambda t: t.next_due(TB)) == fleet.at(minutes=1, seconds=30)


async def test_cuts_come_first(registry: RegistryStore, fleet: Any) -> None:
    for n in range(3):
        await fleet.enroll(registry, f"cam-{n}")
    await registry.write(lambda t: t.tombstone(fleet.id("cam-2"), fleet.at(minutes=1)))
    due = await claim(registry, fleet, now=fleet.at(minutes=2), limit=2)
    assert [(one.link.device.value, one.link.wanted) for one in due] == [
        ("cam-2", Wanted.ABSENT),
        ("cam-0", Wanted.PRESENT),
    ]


async def test_agreement_is_written_and_the_claim_given_back(registry: RegistryStore, fleet: Any) -> None:
    await fleet.enroll(registry, "cam-1")
    (mine,) = await claim(registry, fleet)
    settled = Settlement(fleet.at(seconds=1), fleet.at(minutes=5), external_id="uuid-1")
    assert await registry.write(lambda t: t.settle(mine, settled, fleet.at(seconds=1)))
    after = await link(registry, fleet)
    assert (after.settled_at, after.next_at) == (fleet.at(seconds=1), fleet.at(minutes=5))
    assert (after.attempts, after.external_id, after.claimed_by, after.claimed_until) == (0, "uuid-1", None, None)
    assert await registry.read(lambda t: t.next_due(TB)) == fleet.at(minutes=5)


async def test_a_failure_is_kept_with_its_count(registry: RegistryStore, fleet: Any) -> None:
    await fleet.enroll(registry, "cam-1")
    (mine,) = await claim(registry, fleet)
    failed = Settlement(None, fleet.at(seconds=5), error="503", foreign=True)
    assert await registry.write(lambda t: t.settle(mine, failed, fleet.now))
    after = await link(registry, fleet)
    assert (after.settled_at, after.last_error, after.foreign, after.attempts) == (None, "503", True, 1)
    (mine,) = await claim(registry, fleet, now=fleet.at(seconds=5))
    assert await registry.write(lambda t: t.settle(mine, Settlement(fleet.at(seconds=6), None), fleet.at(seconds=6)))
    after = await link(registry, fleet)
    assert (after.last_error, after.foreign, after.attempts, after.next_at) == (None, False, 0, None)
    assert await registry.read(lambda t: t.next_due(TB)) is None


async def test_a_hint_makes_links_of_living_devices_due_and_counts_the_known(
    registry: RegistryStore, fleet: Any
) -> None:
    await fleet.enroll(registry, "cam-1")
    await fleet.enroll(registry, "dead")
    await registry.write(lambda t: t.tombstone(fleet.id("dead"), fleet.now))
    ids = [fleet.id(name) for name in ("CAM-1", "dead", "unknown")]
    before = await link(registry, fleet, name="dead")
    assert await registry.write(lambda t: t.hint(ids, fleet.at(seconds=5))) == 2
    hawkbit = await link(registry, fleet, HB)
    assert (hawkbit.next_at, hawkbit.hints) == (fleet.at(seconds=5), 1)
    thingsboard = await link(registry, fleet)
    assert (thingsboard.next_at, thingsboard.hints) == (fleet.now, 1)  # due already, it keeps its place
    assert (await link(registry, fleet, WG)).hints == 0
    assert await link(registry, fleet, name="dead") == before


async def test_a_hint_under_a_claim_breaks_it_not_and_is_not_lost(registry: RegistryStore, fleet: Any) -> None:
    await fleet.enroll(registry, "cam-1")
    (mine,) = await claim(registry, fleet)
    assert await registry.write(lambda t: t.hint([fleet.id("cam-1")], fleet.at(seconds=1))) == 1
    assert await registry.read(lambda t: t.claim_holds(mine, fleet.at(seconds=2)))
    assert await claim(registry, fleet, holder="other", now=fleet.at(seconds=2)) == ()
    assert await registry.write(lambda t: t.settle(mine, Settlement(fleet.now, None), fleet.at(seconds=3)))
    after = await link(registry, fleet)
    assert (after.next_at, after.hints) == (fleet.at(seconds=3), 1)
    (mine,) = await claim(registry, fleet, now=fleet.at(seconds=3))
    assert await registry.write(lambda t: t.settle(mine, Settlement(fleet.now, None), fleet.at(seconds=4)))
    assert (await link(registry, fleet)).hints == 0


async def test_a_claim_is_lost_when_the_fate_of_the_device_changes(registry: RegistryStore, fleet: Any) -> None:
    await fleet.enroll(registry, "cam-1")
    (mine,) = await claim(registry, fleet)
    await registry.write(lambda t: t.tombstone(fleet.id("cam-1"), fleet.at(seconds=1)))
    assert not await registry.read(lambda t: t.claim_holds(mine, fleet.at(seconds=1)))
    made = Settlement(fleet.at(seconds=2), None, external_id="uuid-1")
    assert not await registry.write(lambda t: t.settle(mine, made, fleet.at(seconds=2)))
    after = await link(registry, fleet)
    assert (after.wanted, after.settled_at, after.next_at) == (Wanted.ABSENT, None, fleet.at(seconds=2))
    assert (after.claimed_by, after.external_id) == (None, "uuid-1")


async def test_who_lost_the_claim_to_another_makes_it_look_again(registry: RegistryStore, fleet: Any) -> None:
    await fleet.enroll(registry, "cam-1")
    (slow,) = await claim(registry, fleet, holder="slow")
    (fast,) = await claim(registry, fleet, holder="fast", now=fleet.at(seconds=30))
    assert not await registry.write(lambda t: t.settle(slow, Settlement(fleet.now, None), fleet.at(seconds=31)))
    assert await registry.write(lambda t: t.settle(fast, Settlement(fleet.now, None), fleet.at(seconds=32)))
    assert (await link(registry, fleet)).next_at == fleet.at(seconds=32)


async def test_something_more_to_revoke_under_a_claim_is_not_lost(registry: RegistryStore, fleet: Any) -> None:
    request = fleet.request("cam-1")
    await fleet.begin(registry, request)
    await fleet.begin(registry, request)
    (mine,) = await claim(registry, fleet, CA)
    await registry.write(lambda t: t.sweep_attempts(fleet.later, 10))
    assert await registry.write(lambda t: t.settle(mine, Settlement(fleet.later, None), fleet.later))
    assert (await link(registry, fleet, CA)).next_at == fleet.later


async def test_the_first_connect_counts_and_no_later_one(registry: RegistryStore, fleet: Any) -> None:
    await registry.write(lambda t: t.mark_connected(fleet.id("cam-1"), fleet.now, fleet.now))
    await fleet.enroll(registry, "cam-1")
    for minutes in (1, 2):
        moment = fleet.at(minutes=minutes)
        await registry.write(lambda t, m=moment: t.mark_connected(fleet.id("CAM-1"), m, m))
    device = await registry.read(lambda t: t.device(fleet.id("cam-1")))
    assert device.first_connected_at == fleet.at(minutes=1)
    assert (await link(registry, fleet, HB)).next_at == fleet.at(minutes=1)
    serial = await fleet.begin(registry, fleet.request("cam-1", key="2", wg="2"), kind=Kind.REENROLL, generation=2)
    await fleet.store(registry, serial, now=fleet.now)
    assert (await link(registry, fleet, HB)).next_at == fleet.now


async def test_peers_are_those_that_are_wanted_under_a_rising_revision(registry: RegistryStore, fleet: Any) -> None:
    await fleet.enroll(registry, "cam-1")
    await fleet.enroll(registry, "cam-2", wg=None)
    await fleet.begin(registry, fleet.request("cam-3"))
    revision = await registry.write(lambda t: t.raise_peer_revision())
    peers = await registry.read(lambda t: t.peers())
    assert peers == (("cam-1", fleet.wg_key("cam-1 1").text, int(IPv4Address("10.8.0.2"))),)
    assert await registry.write(lambda t: t.raise_peer_revision()) == revision + 1
    await registry.write(lambda t: t.tombstone(fleet.id("cam-1"), fleet.now))
    assert await registry.read(lambda t: t.peers()) == ()


async def test_a_system_switched_on_later_learns_of_every_device(opened: Any, installed: Any, fleet: Any) -> None:
    first = await opened(frozenset({TB}))
    await installed(first, 5)
    for name, wg in (("cam-1", "1"), ("cam-2", None), ("dead", "1")):
        await fleet.enroll(first, name, wg=wg)
    await first.write(lambda t: t.tombstone(fleet.id("dead"), fleet.now))
    await first.close()
    second = await opened()
    shown = {
        name: {(one.system, one.wanted) for one in await second.read(lambda t, n=name: t.links(fleet.id(n)))}
        for name in ("cam-1", "cam-2", "dead")
    }
    assert shown["cam-1"] == {(TB, Wanted.PRESENT), (HB, Wanted.PRESENT), (WG, Wanted.PRESENT)}
    assert shown["cam-2"] == {(TB, Wanted.PRESENT), (HB, Wanted.PRESENT)}
    assert shown["dead"] == {(system, Wanted.ABSENT) for system in System}
    assert len(await claim(second, fleet, HB)) == 3
