"""Laws of the small parts: one run for many callers, a bounded ear, a bounded wait."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.model.identity import DeviceId
from bridge.model.records import Wanted
from bridge.reconcile.backoff import delay
from bridge.reconcile.coalesce import Coalesced
from bridge.reconcile.service import Hints


class Work:
    def __init__(self) -> None:
        self.begun = self.ended = 0
        self.gate = asyncio.Event()
        self.started = asyncio.Event()
        self.failure: Exception | None = None

    async def __call__(self) -> int:
        assert self.begun == self.ended, "never two at a time"
        self.begun += 1
        mine = self.begun
        self.started.set()
        try:
            await self.gate.wait()
            if self.failure:
                raise self.failure
        finally:
            self.ended += 1
        return mine


async def test_everybody_gets_a_run_that_began_after_the_question() -> None:
    work = Work()
    once = Coalesced(work)
    first = asyncio.create_task(once())
    await work.started.wait()
    late = [asyncio.create_task(once()) for _ in range(10)]
    await asyncio.sleep(0)
    work.gate.set()
    assert await first == 1
    assert await asyncio.gather(*late) == [2] * 10
    assert work.begun == 2


async def test_those_who_ask_together_share_one_run() -> None:
    work = Work()
    work.gate.set()
    once = Coalesced(work)
    assert await asyncio.gather(*(once() for _ in range(10))) == [1] * 10
    assert await once() == 2


async def test_failure_reaches_all_who_share_the_run_and_nobody_else() -> None:
    work = Work()
    work.failure = ValueError("no")
    once = Coalesced(work)
    work.gate.set()
    outcomes = await asyncio.gather(*(once() for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ValueError] * 3
    work.failure = None
    assert await once() == 2


async def test_caller_that_goes_takes_nothing_from_the_others() -> None:
    work = Work()
    once = Coalesced(work)
    callers = [asyncio.create_task(once()) for _ in range(3)]
    await work.started.wait()
    callers[0].cancel()
    await asyncio.sleep(0)
    work.gate.set()
    assert await asyncio.gather(*callers[1:]) == [1, 1]
    assert callers[0].cancelled()


async def test_failure_that_nobody_waits_for_is_no_stray_error() -> None:
    work = Work()
    work.failure = ValueError("no")
    once = Coalesced(work)
    caller = asyncio.create_task(once())
    await work.started.wait()
    caller.cancel()
    work.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    work.failure = None
    assert await once() == 2


async def test_ear_is_bounded_and_the_same_id_takes_one_place() -> None:
    hints = Hints(capacity=2)
    assert hints.offer([DeviceId("a"), DeviceId("A"), DeviceId("a")])
    assert hints.offer([DeviceId("b")])
    assert not hints.offer([DeviceId("c")])
    assert hints.offer([DeviceId("a")])
    assert {device.folded for device in await hints.take()} == {"a", "b"}
    assert hints.offer([DeviceId("c")])
    assert await hints.take() == (DeviceId("c"),)


async def test_taking_waits_for_something() -> None:
    hints = Hints()
    taking = asyncio.create_task(hints.take())
    await asyncio.sleep(0)
    assert not taking.done()
    hints.offer([])
    await asyncio.sleep(0)
    assert not taking.done()
    hints.offer([DeviceId("a")])
    assert await taking == (DeviceId("a"),)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(Wanted), st.floats(0, 1, exclude_max=True))
def test_wait_is_never_none_and_never_too_long(attempts: int, wanted: Wanted, fraction: float) -> None:
    wait = delay(attempts, wanted, fraction)
    longest = timedelta(seconds=15 if wanted is Wanted.ABSENT else 300)
    assert timedelta(seconds=0.25) <= wait <= longest


@settings(deadline=None)
@given(st.integers(0, 100), st.sampled_from(Wanted))
def test_wait_grows_with_failures(attempts: int, wanted: Wanted) -> None:
    assert delay(attempts, wanted, 0.9) <= delay(attempts + 1, wanted, 0.9)
