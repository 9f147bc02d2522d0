"""A worker over a real registry: claims, backoff, bugs that hurt nobody else, hints that are used up, a clean end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import StoreUnavailable, SystemFailed
from bridge.model.facts import Csr, EnrollmentRequest, NewAttempt, SignedLeaf
from bridge.model.identity import DeviceId, Fingerprint, Pem
from bridge.model.records import Installation, Kind, Link, System
from bridge.ports.registry import Claim, Settlement
from bridge.reconcile.door import Guard
from bridge.reconcile.service import Hints, Reconciler
from bridge.reconcile.worker import Pace, Worker
from bridge.store.open import open_registry


class Dice:
    def __init__(self, fraction: float = 0.999) -> None:
        self.chance = fraction

    def octets(self, count: int) -> bytes:
        return b"\x07" * count

    def fraction(self) -> float:
        return self.chance


Play = Callable[[Claim, Guard], Any]


@dataclass
class ScriptedDoor:
    """Does what the test laid out for each device, else agrees."""

    clock: Any
    plays: dict[str, Play] = field(default_factory=dict)
    seen: list[Claim] = field(default_factory=list)

    async def agree(self, claim: Claim, guard: Guard) -> Settlement:
        self.seen.append(claim)
        play = self.plays.get(claim.link.device.value)
        found = await play(claim, guard) if play else None
        return found or Settlement(self.clock.now(), None)


@dataclass
class House:
    registry: Any
    clock: Any
    door: ScriptedDoor
    worker: Worker

    async def link(self, name: str, system: System = System.THINGSBOARD) -> Link:
        links = await self.registry.read(lambda tx: tx.links(DeviceId(name)))
        return next(link for link in links if link.system is system)

    def another(self, **changes: Any) -> Worker:
        return Worker(System.THINGSBOARD, self.door, self.registry, self.clock, Dice(), replace(Pace(), **changes))

    async def enroll(self, kit: Any, *names: str) -> None:
        for name in names:
            spki = Fingerprint.of(name.encode())
            csr = Csr(Pem("csr"), spki, spki, b"", b"")
            number = kit.serial(sum(name.encode()))
            attempt = NewAttempt(
                EnrollmentRequest(DeviceId(name), csr), Kind.FIRST, 1, False, number, kit.now + timedelta(15), kit.now
            )
            leaf = SignedLeaf(number, Pem(name), Pem("chain"), spki, kit.now, kit.now + timedelta(days=9))
            await self.registry.write(lambda tx, a=attempt: tx.begin_attempt(a))
            await self.registry.write(lambda tx, a=attempt, s=leaf: tx.store_certificate(a.serial, s, kit.now))


@pytest.fixture
async def house(tmp_path: Path, kit: Any) -> AsyncIterator[House]:
    store = await open_registry(
        tmp_path / "registry.db", systems=frozenset(System), quarantine=timedelta(hours=1), migrate=True
    )
    root = Fingerprint.of(b"root")
    installation = Installation("inst", "embedded", "tenant", root, (root,))
    first, last = IPv4Address("10.8.0.2"), IPv4Address("10.8.0.9")
    await store.write(lambda tx: tx.install(installation, first, last, kit.now))
    clock = kit.clock()
    door = ScriptedDoor(clock)
    worker = Worker(System.THINGSBOARD, door, store, clock, Dice(), Pace(idle=timedelta(milliseconds=50)))
    yield House(store, clock, door, worker)
    await store.close()


async def fails(claim: Claim, guard: Guard) -> None:
    raise SystemFailed("the platform is down")


async def has_a_bug(claim: Claim, guard: Guard) -> None:
    raise ZeroDivisionError


async def test_what_is_due_is_worked_off_once(house: House, kit: Any) -> None:
    await house.enroll(kit, "a", "b", "c")
    assert await house.worker.step() == 3
    assert await house.worker.step() == 0
    assert (await house.link("a")).settled_at == kit.now


async def test_failure_is_kept_and_tried_again_later(house: House, kit: Any) -> None:
    await house.enroll(kit, "a")
    house.door.plays["a"] = fails
    await house.worker.step()
    link = await house.link("a")
    assert link.last_error == "the platform is down"
    assert link.settled_at is None
    assert kit.now < link.next_at < kit.now + timedelta(seconds=2)
    assert link.claimed_by is None

    house.door.plays.clear()
    house.clock.moment = link.next_at
    await house.worker.step()
    link = await house.link("a")
    assert (link.last_error, link.attempts) == (None, 0)


async def test_backoff_of_a_cut_never_exceeds_fifteen_seconds_and_restarts_on_agreement(house: House, kit: Any) -> None:
    await house.enroll(kit, "a", "b")
    await house.worker.step()
    await house.registry.write(lambda tx: tx.tombstone(DeviceId("b"), kit.now))
    await house.registry.write(lambda tx: tx.hint([DeviceId("a")], kit.now))
    house.door.plays |= {"a": fails, "b": fails}
    longest = {"a": 0.0, "b": 0.0}
    for _ in range(14):
        await house.worker.step()
        for name in ("a", "b"):
            link = await house.link(name)
            longest[name] = max(longest[name], (link.next_at - house.clock.moment).total_seconds())
        house.clock.moment += timedelta(seconds=301)
    assert 14 < longest["b"] <= 15
    assert 290 < longest["a"] <= 300


async def test_bug_in_the_door_hurts_only_its_own_link(house: House, kit: Any) -> None:
    await house.enroll(kit, "a", "b", "c")
    house.door.plays["b"] = has_a_bug
    assert await house.worker.step() == 3
    assert (await house.link("a")).settled_at == (await house.link("c")).settled_at == kit.now
    link = await house.link("b")
    assert "internal error" in link.last_error
    assert "ZeroDivision" not in link.last_error


async def test_claim_is_lost_where_the_devices_fate_changes_and_the_link_is_due_at_once(house: House, kit: Any) -> None:
    await house.enroll(kit, "a")
    written: list[str] = []

    async def retired_under_its_hands(claim: Claim, guard: Guard) -> None:
        await guard()
        written.append("before")
        await house.registry.write(lambda tx: tx.tombstone(DeviceId("a"), kit.now))
        await guard()
        written.append("after")

    house.door.plays["a"] = retired_under_its_hands
    await house.worker.step()
    link = await house.link("a")
    assert written == ["before"]
    assert link.settled_at is None
    assert link.next_at <= kit.now
    assert link.claimed_by is None


async def test_result_of_a_claim_that_ran_out_counts_for_nothing(house: House, kit: Any) -> None:
    await house.enroll(kit, "a")

    async def too_slow(claim: Claim, guard: Guard) -> None:
        house.clock.moment = claim.until

    house.door.plays["a"] = too_slow
    await house.worker.step()
    link = await house.link("a")
    assert link.settled_at is None
    assert link.next_at <= house.clock.now()


async def test_two_workers_never_hold_the_same_link(house: House, kit: Any) -> None:
    await house.enroll(kit, *"abcdef")
    counts = await asyncio.gather(house.worker.step(), house.another().step(), house.another(at_once=1).step())
    assert sum(counts) == 6
    assert len({claim.link.device for claim in house.door.seen}) == 6


async def test_hints_are_used_up_and_one_that_comes_meanwhile_is_not_lost(house: House, kit: Any) -> None:
    await house.enroll(kit, "a")
    await house.worker.step()

    async def hinted_again(claim: Claim, guard: Guard) -> None:
        house.door.plays.clear()
        await house.registry.write(lambda tx: tx.hint([DeviceId("a")], house.clock.now()))

    await house.registry.write(lambda tx: tx.hint([DeviceId("a")], house.clock.now()))
    house.door.plays["a"] = hinted_again
    assert [await house.worker.step() for _ in range(3)] == [1, 1, 0]
    assert (await house.link("a")).hints == 0


async def test_running_worker_is_woken_and_ends_with_its_work_done(house: House, kit: Any) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def slowly(claim: Claim, guard: Guard) -> None:
        begun.set()
        await go.wait()

    house.door.plays["a"] = slowly
    running = asyncio.create_task(house.worker.run())
    await house.enroll(kit, "a")
    house.worker.wake()
    await begun.wait()
    running.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await house.link("a")).settled_at == kit.now


async def test_slow_link_holds_up_no_other(house: House, kit: Any) -> None:
    await house.enroll(kit, "a", "b")
    go, done = asyncio.Event(), asyncio.Event()

    async def slowly(claim: Claim, guard: Guard) -> None:
        await go.wait()

    async def quickly(claim: Claim, guard: Guard) -> None:
        done.set()

    house.door.plays |= {"a": slowly, "b": quickly}
    running = asyncio.create_task(house.worker.run())
    await asyncio.wait_for(done.wait(), 10)
    go.set()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


# -- the reconciler ----------------------------------------------------------------------------------------------
async def test_reconciler_survives_a_store_that_is_down_and_works_off_hints(house: House, kit: Any) -> None:
    await house.enroll(kit, "a")
    hints, unknown = Hints(), []
    broken = [3]

    class Moody:
        def __getattr__(self, name: str) -> Any:
            return getattr(house.registry, name)

        async def write(self, unit: Any) -> Any:
            if broken[0]:
                broken[0] -= 1
                raise StoreUnavailable("locked")
            return await house.registry.write(unit)

    door = ScriptedDoor(house.clock)
    seen = asyncio.Event()

    async def look(claim: Claim, guard: Guard) -> None:
        if claim.link.hints:
            seen.set()

    door.plays["a"] = look
    worker = Worker(System.THINGSBOARD, door, Moody(), house.clock, Dice(), Pace(idle=timedelta(milliseconds=20)))
    running = asyncio.create_task(Reconciler(Moody(), [worker], hints, house.clock, unknown.append).run())

    async def keep_hinting() -> None:
        while not seen.is_set():
            hints.offer([DeviceId("a"), DeviceId("nobody")])
            await asyncio.sleep(0.02)

    await asyncio.wait_for(keep_hinting(), 20)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert broken == [0]
