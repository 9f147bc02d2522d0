"""The use case over a real registry: whatever the CA, the caller or the clock does, every certificate is known."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bridge.errors import (
    AttemptOpen,
    CaBadAnswer,
    CaRefused,
    CaUnreachable,
    InProgress,
    NotAdmitted,
    PoolEmpty,
    StoreUnavailable,
    WireGuardKeyInUse,
)
from bridge.model.identity import DeviceId
from bridge.model.records import IssuanceState, System


async def test_certificate_is_issued_once_and_answered_again(bench: Any) -> None:
    await bench.register()
    request = bench.request()
    first = await bench.enrollment.enroll(request)
    again = await bench.enrollment.enroll(request)

    assert first.created
    assert not again.created
    assert again.issuance == first.issuance
    assert first.issuance.state is IssuanceState.CURRENT
    assert bench.ca.signed == [first.issuance.serial]


async def test_ca_is_asked_only_after_the_attempt_with_our_serial_is_safe(bench: Any) -> None:
    await bench.register()
    bench.ca.gate.clear()
    running = asyncio.create_task(bench.enrollment.enroll(bench.request()))
    await bench.ca.asked.wait()

    assert await bench.known_serials() == {bench.ca.orders[0].serial}
    assert await bench.states() == ["intent"]
    assert bench.ca.orders[0].serial.value.bit_length() == 128
    bench.ca.gate.set()
    await running


async def test_refused_device_leaves_nothing_behind_and_the_ca_in_peace(bench: Any) -> None:
    with pytest.raises(NotAdmitted):
        await bench.enrollment.enroll(bench.request())
    assert await bench.registry.read(lambda tx: tx.device(DeviceId("dev-1"))) is None
    assert bench.ca.orders == []


# -- what the CA may do ------------------------------------------------------------------------------------------
async def test_request_that_surely_never_left_is_forgotten_and_may_be_repeated_at_once(bench: Any) -> None:
    await bench.register()
    request = bench.request()
    bench.ca.script.append(CaUnreachable("no connection", surely_not_sent=True))
    with pytest.raises(CaUnreachable):
        await bench.enrollment.enroll(request)

    assert await bench.states() == []
    assert (await bench.enrollment.enroll(request)).created
    assert await bench.states() == ["current"]


async def test_attempt_that_the_ca_refused_is_closed_and_revoked_by_the_next(bench: Any) -> None:
    await bench.register()
    request = bench.request()
    bench.ca.script.append(CaRefused("no"))
    with pytest.raises(CaRefused):
        await bench.enrollment.enroll(request)
    assert await bench.states() == ["intent"]

    assert (await bench.enrollment.enroll(request)).created
    assert await bench.states() == ["revoking", "current"]
    assert len({order.serial for order in bench.ca.orders}) == 2


@pytest.mark.parametrize(
    "failure",
    [CaUnreachable("time-out"), CaBadAnswer("nonsense"), RuntimeError("a bug")],
    ids=lambda e: type(e).__name__,
)
async def test_unknown_outcome_holds_until_the_deadline_then_is_revoked_under_a_new_serial(
    bench: Any, failure: Exception
) -> None:
    await bench.register()
    request = bench.request()
    bench.ca.script.append(failure)
    with pytest.raises(type(failure)):
        await bench.enrollment.enroll(request)

    bench.clock.advance(5)
    with pytest.raises(InProgress) as wait:
        await bench.enrollment.enroll(request)
    assert wait.value.retry_after == 10
    with pytest.raises(AttemptOpen):
        await bench.enrollment.enroll(bench.request())

    bench.clock.advance(10)
    assert (await bench.enrollment.enroll(request)).created
    assert await bench.states() == ["revoking", "current"]
    assert len({order.serial for order in bench.ca.orders}) == 2


async def test_sweep_revokes_what_nobody_came_back_for_and_leaves_the_key_usable(bench: Any) -> None:
    await bench.register()
    request = bench.request()
    bench.ca.script.append(CaBadAnswer("nonsense"))
    with pytest.raises(CaBadAnswer):
        await bench.enrollment.enroll(request)

    assert await bench.sweep() == 0
    bench.clock.advance(15)
    assert await bench.sweep() == 1
    assert await bench.states() == ["revoking"]
    due = await bench.registry.read(lambda tx: tx.next_due(System.CA))
    assert due is not None
    assert (await bench.enrollment.enroll(request)).created


async def test_leaf_that_comes_after_its_deadline_is_never_delivered_and_will_be_revoked(bench: Any) -> None:
    await bench.register()
    request = bench.request()
    bench.ca.gate.clear()
    running = asyncio.create_task(bench.enrollment.enroll(request))
    await bench.ca.asked.wait()
    bench.clock.advance(15)
    bench.ca.gate.set()
    with pytest.raises(InProgress):
        await running

    assert await bench.states() == ["revoking"]
    assert await bench.known_serials() == set(bench.ca.signed)
    assert (await bench.enrollment.enroll(request)).created


async def test_leaf_that_was_overtaken_is_lost_and_the_overtaker_keeps_its_own(bench: Any) -> None:
    await bench.register()
    slow, fast = bench.request(), bench.request()
    bench.ca.gate.clear()
    running = asyncio.create_task(bench.enrollment.enroll(slow))
    await bench.ca.asked.wait()
    bench.clock.advance(15)
    bench.ca.asked.clear()
    overtaking = asyncio.create_task(bench.enrollment.enroll(fast))
    await bench.ca.asked.wait()
    bench.ca.gate.set()
    with pytest.raises(InProgress):
        await running
    won = await overtaking

    assert won.issuance.spki == fast.csr.spki
    assert sorted(await bench.states()) == ["current", "revoking"]
    assert await bench.known_serials() == set(bench.ca.signed)


async def test_leaf_for_a_device_that_was_retired_meanwhile_is_lost(bench: Any) -> None:
    await bench.register()
    bench.ca.gate.clear()
    running = asyncio.create_task(bench.enrollment.enroll(bench.request()))
    await bench.ca.asked.wait()
    assert await bench.registry.write(lambda tx: tx.tombstone(DeviceId("dev-1"), bench.clock.now()))
    bench.ca.gate.set()
    with pytest.raises(InProgress):
        await running

    assert await bench.states() == ["revoking"]
    assert await bench.known_serials() == set(bench.ca.signed)


# -- what the caller may do --------------------------------------------------------------------------------------
async def test_caller_that_hangs_up_does_not_stop_the_certificate_from_being_stored(bench: Any) -> None:
    await bench.register()
    request = bench.request()
    bench.ca.gate.clear()
    running = asyncio.create_task(bench.enrollment.enroll(request))
    await bench.ca.asked.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    bench.ca.gate.set()
    await bench.enrollment.drain()

    assert await bench.states() == ["current"]
    assert not (await bench.enrollment.enroll(request)).created
    assert len(bench.ca.signed) == 1


async def test_failure_that_nobody_waits_for_any_more_is_no_stray_error(bench: Any) -> None:
    await bench.register()
    bench.ca.gate.clear()
    bench.ca.script.append(CaBadAnswer("nonsense"))
    running = asyncio.create_task(bench.enrollment.enroll(bench.request()))
    await bench.ca.asked.wait()
    running.cancel()
    bench.ca.gate.set()
    await bench.enrollment.drain()
    assert await bench.states() == ["intent"]


async def test_same_key_at_the_same_time_is_signed_once_and_answered_to_all(bench: Any) -> None:
    await bench.register()
    request = bench.request()
    bench.ca.gate.clear()
    first = asyncio.create_task(bench.enrollment.enroll(request))
    await bench.ca.asked.wait()
    others = [asyncio.create_task(bench.enrollment.enroll(request)) for _ in range(4)]
    await bench.registry.write(lambda tx: tx.sweep_attempts(bench.clock.now(), 1))  # behind their questions
    bench.ca.gate.set()
    answers = await asyncio.gather(first, *others)

    assert [answer.created for answer in answers] == [True, False, False, False, False]
    assert len({answer.issuance.serial for answer in answers}) == 1
    assert len(bench.ca.orders) == 1


async def test_same_key_in_another_process_is_told_to_come_back(bench: Any) -> None:
    await bench.register()
    request = bench.request()
    bench.ca.gate.clear()
    running = asyncio.create_task(bench.enrollment.enroll(request))
    await bench.ca.asked.wait()
    with pytest.raises(InProgress) as wait:
        await bench.another_process().enroll(request)
    assert wait.value.retry_after == 15
    bench.ca.gate.set()
    assert (await running).created


async def test_waiting_ends_with_patience(bench: Any) -> None:
    await bench.register()
    hurried = bench.another_process(patience=timedelta(milliseconds=20))
    request = bench.request()
    bench.ca.gate.clear()
    running = asyncio.create_task(hurried.enroll(request))
    await bench.ca.asked.wait()
    with pytest.raises(InProgress):
        await hurried.enroll(request)
    bench.ca.gate.set()
    await running


async def test_two_keys_at_the_same_time_get_one_certificate(bench: Any) -> None:
    await bench.register()
    outcomes = await asyncio.gather(
        *(bench.enrollment.enroll(bench.request()) for _ in range(6)), return_exceptions=True
    )
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
    assert await bench.states() == ["current"]


async def test_drain_waits_for_all_that_is_under_way_and_for_nothing_else(bench: Any) -> None:
    await asyncio.wait_for(bench.enrollment.drain(), 1)
    for name in ("dev-1", "dev-2"):
        await bench.register(name)
    bench.ca.gate.clear()
    for name in ("dev-1", "dev-2"):
        bench.ca.asked.clear()
        running = asyncio.create_task(bench.enrollment.enroll(bench.request(name)))
        await bench.ca.asked.wait()
        running.cancel()
    draining = asyncio.create_task(bench.enrollment.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    bench.ca.gate.set()
    await draining
    assert await bench.states("dev-1") == await bench.states("dev-2") == ["current"]


# -- addresses and keys of the VPN -------------------------------------------------------------------------------
async def test_address_is_leased_with_a_key_and_kept_through_attempts(bench: Any, world: Any) -> None:
    await bench.register()
    request = bench.request(wg_key=world.wg("a"))
    bench.ca.script.append(CaRefused("no"))
    with pytest.raises(CaRefused):
        await bench.enrollment.enroll(request)
    leased = await bench.registry.read(lambda tx: tx.lease(DeviceId("dev-1")))
    enrolled = await bench.enrollment.enroll(request)

    assert enrolled.lease == replace(leased, wg_key=world.wg("a"))


async def test_empty_pool_refuses_before_the_ca_is_asked_and_keeps_nothing(bench: Any, world: Any) -> None:
    for number in (1, 2, 3):
        await bench.register(f"dev-{number}")
    for number in (1, 2):
        await bench.enrollment.enroll(bench.request(f"dev-{number}", wg_key=world.wg(f"{number}")))
    with pytest.raises(PoolEmpty):
        await bench.enrollment.enroll(bench.request("dev-3", wg_key=world.wg("3")))

    assert len(bench.ca.orders) == 2
    assert await bench.states("dev-3") == []
    assert (await bench.enrollment.enroll(bench.request("dev-3"))).lease is None


async def test_wireguard_key_of_another_device_is_refused(bench: Any, world: Any) -> None:
    for name in ("dev-1", "dev-2"):
        await bench.register(name)
    await bench.enrollment.enroll(bench.request(wg_key=world.wg("a")))
    with pytest.raises(WireGuardKeyInUse):
        await bench.enrollment.enroll(bench.request("dev-2", wg_key=world.wg("a")))


async def test_without_a_vpn_a_wireguard_key_asks_for_nothing(bench: Any, world: Any) -> None:
    await bench.register()
    enrollment = bench.another_process(tunnels=False)
    enrolled = await enrollment.enroll(bench.request(wg_key=world.wg("a")))
    assert enrolled.lease is None
    assert enrolled.issuance.wg_key is None


# -- the store ---------------------------------------------------------------------------------------------------
class Failing:
    """The registry, until the chosen write."""

    def __init__(self, inner: Any, fails_at: int) -> None:
        self._inner, self._left = inner, fails_at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def write(self, unit: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            raise StoreUnavailable("disk full")
        return await self._inner.write(unit)


async def test_certificate_that_could_not_be_stored_is_known_by_its_serial_and_revoked(bench: Any) -> None:
    await bench.register()
    request = bench.request()
    enrollment = bench.another_process()
    enrollment._registry = Failing(bench.registry, fails_at=2)
    with pytest.raises(StoreUnavailable):
        await enrollment.enroll(request)

    assert await bench.known_serials() == set(bench.ca.signed)
    bench.clock.advance(15)
    assert await bench.sweep() == 1
    assert await bench.states() == ["revoking"]


async def test_ca_is_not_asked_where_the_intent_could_not_be_written(bench: Any) -> None:
    await bench.register()
    enrollment = bench.another_process()
    enrollment._registry = Failing(bench.registry, fails_at=1)
    with pytest.raises(StoreUnavailable):
        await enrollment.enroll(bench.request())
    assert bench.ca.orders == []
