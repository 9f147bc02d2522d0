"""Renewal in the registry: one current certificate at every moment, and the replaced one given up in its turn."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from bridge.model.facts import Activate, Lost, Stored
from bridge.model.records import DeviceState, Issuance, IssuanceState, Kind, Link, System, Wanted, Window
from bridge.ports.registry import Settlement
from bridge.store.open import RegistryStore

CURRENT, PENDING, SUPERSEDED = IssuanceState.CURRENT, IssuanceState.PENDING, IssuanceState.SUPERSEDED
REVOKING, REVOKED, INTENT = IssuanceState.REVOKING, IssuanceState.REVOKED, IssuanceState.INTENT
TB, CA = System.THINGSBOARD, System.CA


class Renewing:
    """One device, walked through renewals."""

    def __init__(self, registry: RegistryStore, fleet: Any, name: str = "cam-1") -> None:
        self.registry, self.fleet, self.id = registry, fleet, fleet.id(name)

    async def renew(self, key: str = "2", wg: str | None = None) -> Issuance:
        request = self.fleet.request(self.id.value, key=key, wg=wg)
        stored = await self.fleet.store(self.registry, await self.fleet.begin(self.registry, request, kind=Kind.RENEW))
        assert isinstance(stored, Stored)
        return stored.issuance

    async def epoch(self) -> int:
        device = await self.registry.read(lambda t: t.device(self.id))
        assert device is not None
        return int(device.epoch)

    async def activate(self, pending: Issuance, epoch: int | None = None) -> Stored | None:
        wanted = Activate(pending, await self.epoch() if epoch is None else epoch)
        return await self.registry.write(lambda t: t.activate(wanted, self.fleet.at(seconds=5)))

    async def states(self) -> list[IssuanceState]:
        return [one.state for one in await self.registry.read(lambda t: t.issuances(self.id))]

    async def links(self) -> dict[System, Link]:
        return {link.system: link for link in await self.registry.read(lambda t: t.links(self.id))}

    async def settle(self, system: System, *, seconds: float, foreign: bool = False, agreed: bool = True) -> bool:
        now = self.fleet.at(seconds=seconds)
        until = self.fleet.at(seconds=seconds + 30)
        (claim,) = await self.registry.write(lambda t: t.claim_due(system, "me", now, until, 10))
        settlement = Settlement(now if agreed else None, None if agreed else now, foreign=foreign)
        return await self.registry.write(lambda t: t.settle(claim, settlement, now))


@pytest.fixture
async def cam(registry: RegistryStore, fleet: Any) -> Renewing:
    """In service, agreed everywhere."""
    await fleet.enroll(registry, "cam-1")
    device = Renewing(registry, fleet)
    for system in (TB, System.WIREGUARD):
        assert await device.settle(system, seconds=1)
    return device


async def test_an_activated_certificate_is_current_and_the_other_superseded(cam: Renewing) -> None:
    pending = await cam.renew()
    before, epoch = await cam.links(), await cam.epoch()
    stored = await cam.activate(pending)
    assert stored is not None
    assert stored.issuance == replace(pending, state=CURRENT)
    assert stored.lease == await cam.registry.read(lambda t: t.lease(cam.id))
    assert await cam.states() == [SUPERSEDED, CURRENT]
    assert await cam.epoch() == epoch + 1
    links = await cam.links()
    thingsboard = links.pop(TB)
    assert (thingsboard.wanted, thingsboard.settled_at) == (Wanted.PRESENT, None)
    assert thingsboard.next_at == cam.fleet.at(seconds=5)
    # Nothing else moves: hawkBit and the VPN know no leaf, and nothing is to be revoked yet.
    assert links == {system: link for system, link in before.items() if system is not TB}
    picture = await cam.registry.read(lambda t: t.picture(cam.id))
    assert picture is not None
    assert picture.current == stored.issuance
    assert picture.revoking == ()


async def test_a_moved_epoch_loses_and_writes_nothing(cam: Renewing) -> None:
    pending = await cam.renew()
    epoch, links = await cam.epoch(), await cam.links()
    assert await cam.activate(pending, epoch - 1) is None
    assert await cam.activate(pending, epoch + 1) is None
    assert (await cam.states(), await cam.epoch(), await cam.links()) == ([CURRENT, PENDING], epoch, links)


async def test_what_is_no_longer_pending_undoes_everything(cam: Renewing) -> None:
    pending = await cam.renew()
    assert await cam.activate(pending) is not None
    epoch = await cam.epoch()
    with pytest.raises(AssertionError, match="not pending"):
        await cam.activate(pending)
    assert (await cam.states(), await cam.epoch()) == ([SUPERSEDED, CURRENT], epoch)


async def test_the_replaced_leaf_is_revoked_in_the_commit_that_settles_the_platform(cam: Renewing) -> None:
    await cam.activate(await cam.renew())
    assert await cam.settle(TB, seconds=6, agreed=False)
    assert await cam.states() == [SUPERSEDED, CURRENT]
    assert await cam.settle(TB, seconds=7)
    assert await cam.states() == [REVOKING, CURRENT]
    ca = (await cam.links())[CA]
    assert (ca.wanted, ca.next_at) == (Wanted.ABSENT, cam.fleet.at(seconds=7))
    assert await cam.settle(CA, seconds=8)


async def test_a_settlement_of_the_platform_that_saw_the_former_leaf_revokes_nothing(cam: Renewing) -> None:
    pending = await cam.renew()
    await cam.registry.write(lambda t: t.hint([cam.id], cam.fleet.at(seconds=3)))
    now, until = cam.fleet.at(seconds=4), cam.fleet.at(seconds=60)
    (claim,) = await cam.registry.write(lambda t: t.claim_due(TB, "slow", now, until, 1))
    await cam.activate(pending)
    assert not await cam.registry.write(lambda t: t.settle(claim, Settlement(now, None), cam.fleet.at(seconds=6)))
    assert await cam.states() == [SUPERSEDED, CURRENT]
    thingsboard = (await cam.links())[TB]
    assert (thingsboard.settled_at, thingsboard.claimed_by) == (None, None)
    assert await cam.settle(TB, seconds=7)
    assert await cam.states() == [REVOKING, CURRENT]


async def test_other_systems_and_other_devices_settlements_release_nothing(cam: Renewing) -> None:
    await cam.fleet.enroll(cam.registry, "cam-2")
    await cam.activate(await cam.renew())
    await cam.registry.write(lambda t: t.mark_connected(cam.id, cam.fleet.now, cam.fleet.now))
    assert await cam.settle(System.HAWKBIT, seconds=6)
    assert await cam.settle(System.WIREGUARD, seconds=6)  # cam-2's
    now, until = cam.fleet.at(seconds=6), cam.fleet.at(seconds=60)
    claims = await cam.registry.write(lambda t: t.claim_due(TB, "me", now, until, 10))
    (other,) = [claim for claim in claims if claim.link.device != cam.id]
    assert await cam.registry.write(lambda t: t.settle(other, Settlement(now, None), now))
    await cam.registry.write(lambda t: t.sweep_attempts(now, 10))
    assert await cam.states() == [SUPERSEDED, CURRENT]


async def test_a_foreign_object_at_the_platform_holds_no_revocation_up(cam: Renewing) -> None:
    await cam.activate(await cam.renew())
    assert await cam.settle(TB, seconds=6, foreign=True, agreed=False)
    assert await cam.states() == [REVOKING, CURRENT]


async def test_two_activations_before_the_platform_is_told_release_both(cam: Renewing) -> None:
    await cam.activate(await cam.renew("2"))
    await cam.activate(await cam.renew("3"))
    assert await cam.states() == [SUPERSEDED, SUPERSEDED, CURRENT]
    assert await cam.settle(TB, seconds=6)
    assert await cam.states() == [REVOKING, REVOKING, CURRENT]


async def test_without_a_platform_the_replaced_leaf_is_revoked_at_once(opened: Any, installed: Any, fleet: Any) -> None:
    registry = await opened(frozenset({CA}))
    await installed(registry, 5)
    await fleet.enroll(registry, "cam-1")
    cam = Renewing(registry, fleet)
    await cam.activate(await cam.renew())
    assert await cam.states() == [REVOKING, CURRENT]
    assert {link.system: link.next_at for link in (await cam.links()).values()} == {CA: fleet.at(seconds=5)}


async def test_the_sweep_finds_a_replaced_leaf_whose_platform_was_switched_off(cam: Renewing, opened: Any) -> None:
    await cam.activate(await cam.renew())
    await cam.registry.close()
    cam.registry = await opened(frozenset(System) - {TB})
    await cam.registry.write(lambda t: t.forget_links([TB]))
    assert await cam.registry.write(lambda t: t.sweep_attempts(cam.fleet.at(seconds=9), 10)) == 1
    assert await cam.states() == [REVOKING, CURRENT]
    assert (await cam.links())[CA].next_at == cam.fleet.at(seconds=9)
    assert await cam.registry.write(lambda t: t.sweep_attempts(cam.fleet.at(seconds=10), 10)) == 0


async def test_a_pending_certificate_is_revoked_when_it_ends(cam: Renewing) -> None:
    await cam.renew()
    end = cam.fleet.at(days=30)
    assert await cam.registry.write(lambda t: t.sweep_attempts(cam.fleet.at(days=29), 10)) == 0
    assert await cam.states() == [CURRENT, PENDING]
    assert await cam.registry.write(lambda t: t.sweep_attempts(end, 10)) == 1
    assert await cam.states() == [CURRENT, REVOKING]
    assert (await cam.links())[CA].next_at == end
    assert await cam.registry.write(lambda t: t.sweep_attempts(end, 10)) == 0


async def test_no_more_is_swept_at_once_than_is_asked_for(registry: RegistryStore, fleet: Any) -> None:
    for name in ("cam-1", "cam-2", "cam-3"):
        await fleet.enroll(registry, name)
        await Renewing(registry, fleet, name).renew()
    swept = [await registry.write(lambda t: t.sweep_attempts(fleet.at(days=31), 2)) for _ in range(3)]
    assert swept == [2, 1, 0]


async def test_activation_closes_an_attempt_whose_proof_it_ended(cam: Renewing) -> None:
    pending = await cam.renew("2", wg="1")
    serial = await cam.fleet.begin(cam.registry, cam.fleet.request("cam-1", key="3"), kind=Kind.RENEW)
    await cam.activate(pending)
    assert await cam.states() == [SUPERSEDED, CURRENT, REVOKING]
    assert isinstance(await cam.fleet.store(cam.registry, serial), Lost)
    assert await cam.states() == [SUPERSEDED, CURRENT, REVOKING]
    # The peer's key is the lease's, not the attempt's: it is held as before.
    facts = await cam.registry.read(lambda t: t.facts(cam.fleet.request("cam-1", key="4"), cam.fleet.now))
    assert facts.wg_owner is not None
    assert facts.lease.wg_key == cam.fleet.wg_key("cam-1 1")


async def test_a_tombstone_ends_everything_whatever_the_order(cam: Renewing) -> None:
    pending = await cam.renew()
    epoch = await cam.epoch()
    await cam.activate(pending)
    await cam.registry.write(lambda t: t.tombstone(cam.id, cam.fleet.at(seconds=6)))
    assert await cam.states() == [REVOKING, REVOKING]
    assert await cam.activate(pending, epoch) is None
    assert await cam.activate(pending) is None  # at its very epoch too: it is not active
    assert await cam.states() == [REVOKING, REVOKING]


async def test_a_reenrollment_ends_what_was_pending_and_what_was_superseded(cam: Renewing) -> None:
    await cam.activate(await cam.renew("2"))
    pending = await cam.renew("3")
    epoch = await cam.epoch()
    now, fleet = cam.fleet.now, cam.fleet
    window = Window(cam.id, 1, "alice", now, fleet.at(hours=1), None, None, compromised=False)
    assert await cam.registry.write(lambda t: t.open_window(window))
    serial = await fleet.begin(cam.registry, fleet.request("cam-1", key="4", wg="4"), kind=Kind.REENROLL, generation=2)
    await fleet.store(cam.registry, serial)
    assert await cam.states() == [REVOKING, REVOKING, REVOKING, CURRENT]
    assert await cam.activate(pending, epoch) is None
    assert (await cam.links())[CA].next_at == now


async def test_leaf_facts_tell_of_the_devices_own_leaves_only(cam: Renewing) -> None:
    await cam.fleet.enroll(cam.registry, "cam-2")
    pending = await cam.renew()
    other = (await cam.registry.read(lambda t: t.issuances(cam.fleet.id("cam-2"))))[0]
    read = cam.registry.read
    facts = await read(lambda t: t.leaf_facts(cam.fleet.id("CAM-1"), pending.leaf_sha256, cam.fleet.now))
    assert (facts.issuance, facts.attempt, facts.now) == (pending, None, cam.fleet.now)
    assert facts.device is not None
    assert facts.device.id == cam.id
    assert facts.lease is not None
    assert (await read(lambda t: t.leaf_facts(cam.id, other.leaf_sha256, cam.fleet.now))).issuance is None
    nobody = await read(lambda t: t.leaf_facts(cam.fleet.id("nobody"), pending.leaf_sha256, cam.fleet.now))
    assert (nobody.device, nobody.issuance, nobody.attempt, nobody.lease) == (None, None, None, None)
    serial = await cam.fleet.begin(cam.registry, cam.fleet.request("cam-1", key="3"), kind=Kind.RENEW)
    facts = await read(lambda t: t.leaf_facts(cam.id, pending.leaf_sha256, cam.fleet.now))
    assert facts.attempt is not None
    assert (facts.attempt.serial, facts.attempt.state) == (serial, INTENT)


async def test_a_leaf_that_came_too_late_is_nobodys(cam: Renewing) -> None:
    serial = await cam.fleet.begin(cam.registry, cam.fleet.request("cam-1", key="2"), kind=Kind.RENEW)
    assert isinstance(await cam.fleet.store(cam.registry, serial, now=cam.fleet.later), Lost)
    late = cam.fleet.leaf(serial).leaf_sha256
    assert (await cam.registry.read(lambda t: t.leaf_facts(cam.id, late, cam.fleet.now))).issuance is None


async def test_many_at_once_activate_once(cam: Renewing) -> None:
    pending = await cam.renew()
    epoch = await cam.epoch()
    done = await asyncio.gather(*(cam.activate(pending, epoch) for _ in range(8)))
    assert len([one for one in done if one is not None]) == 1
    assert await cam.states() == [SUPERSEDED, CURRENT]


async def test_activations_and_a_tombstone_at_once_leave_nothing_alive(cam: Renewing) -> None:
    pending = await cam.renew()
    epoch = await cam.epoch()
    end = cam.registry.write(lambda t: t.tombstone(cam.id, cam.fleet.at(seconds=6)))
    await asyncio.gather(*(cam.activate(pending, epoch) for _ in range(4)), end)
    assert await cam.states() == [REVOKING, REVOKING]
    device = await cam.registry.read(lambda t: t.device(cam.id))
    assert device is not None
    assert device.state is DeviceState.TOMBSTONE


async def test_the_revoked_leaf_is_over(cam: Renewing) -> None:
    await cam.activate(await cam.renew())
    await cam.settle(TB, seconds=6)
    old = (await cam.registry.read(lambda t: t.issuances(cam.id)))[0]
    await cam.registry.write(lambda t: t.mark_revoked([old.serial], cam.fleet.at(seconds=7)))
    assert await cam.states() == [REVOKED, CURRENT]
