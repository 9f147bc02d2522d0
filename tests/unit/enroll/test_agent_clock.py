"""Runs on clocks that are wrong by decades, jump, or go back: enrolled once, nothing thrown away, expiry honoured."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from enroll.errors import RootMismatchError, TryAgainError
from enroll.names import Fingerprint
from tests.unit.enroll.hostility import A_DAY, picture

WRONG = {
    "1970": datetime(1970, 1, 2, tzinfo=UTC),
    "2038+1": datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
    "2106": datetime(2106, 2, 8, tzinfo=UTC),
}
"""Below the floor, and beyond the end of the pinned root twice."""
ZONED = "%Y-%m-%dT%H:%M:%SZ"


def flag(device: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(device.read("enrolled"))
    return found


def later(device: Any, pki: Any, shift: timedelta) -> None:
    """Let the bridge live that much later: its time, and the certificates it issues from now on."""
    bridge, moment = device.bridge, pki.now + shift

    def leaf_for(public_key: Any, device_id: str) -> Any:
        spki = public_key.public_numbers()
        found = [c for c in bridge.leaves.values() if c.public_key().public_numbers() == spki]
        made = found[0] if found else pki.sub.leaf(public_key, device_id, begin=moment, end=moment + 30 * A_DAY)
        bridge.leaves.setdefault(f"{spki.x:x}", made)
        return made

    bridge.leaf_for = leaf_for
    right = bridge._full_answer

    def full(leaf: Any, name: str, /, **changes: Any) -> Any:
        renew_after = max(leaf.not_valid_before_utc + 20 * A_DAY, pki.now)
        said = {"server_time": moment.isoformat(), "renew_after": renew_after.isoformat()}
        return right(leaf, name, **(said | changes))

    bridge._full_answer = full


# -- first boots -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("year", WRONG)
def test_a_first_boot_on_a_wrong_clock_ends_enrolled_at_the_bridges_time(device: Any, pki: Any, year: str) -> None:
    device.clock.belief = WRONG[year]
    device.run()
    assert device.event("enrolled")["enrolled_at"] == pki.now.strftime(ZONED)
    assert flag(device)["seen_at"] == pki.now.strftime(ZONED)
    assert len(device.bridge.posts) == 1


@pytest.mark.parametrize("year", WRONG)
def test_a_wrong_clock_believes_no_other_root(device: Any, year: str) -> None:
    device.clock.belief = WRONG[year]
    with pytest.raises(RootMismatchError):
        device.run(root_pins=(Fingerprint("ab" * 32),))
    assert device.bridge.posts == []


PLACES = ("root", "enroll")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("before", "after"), list(itertools.permutations([*WRONG, "now"], 2)))
def test_a_jump_during_a_first_boot_changes_nothing(device: Any, pki: Any, place: str, before: str, after: str) -> None:
    moments = WRONG | {"now": pki.now}
    device.clock.belief = moments[before]
    right = getattr(device.bridge, place)

    def jumping(*given: Any) -> Any:
        device.clock.belief = moments[after]
        return right(*given)

    setattr(device.bridge, place, jumping)
    device.run()
    assert flag(device)["enrolled_at"] == pki.now.strftime(ZONED)
    # And the next start, on whichever of the two, finds everything as it is.
    kept = picture(device.folder)
    for shown in (before, after):
        device.clock.belief = moments[shown]
        device.run()
        assert picture(device.folder) == kept
    assert "set_aside" not in device.names()
    assert device.names().count("enrolled") == 1


def test_a_jump_after_the_time_was_heard_moves_no_belief(device: Any, pki: Any) -> None:
    """The certificate is valid for 30 days: neither jump may make it look expired within the run."""
    device.bridge.mqtt = None
    told: list[datetime] = []
    right = device.machine.find

    def find(command: str) -> Any:
        device.clock.belief = WRONG["2038+1"] if not told else pki.now + 35 * A_DAY
        told.append(device.clock.belief)
        return right(command)

    device.machine.find = find
    device.clock.belief = WRONG["1970"]
    device.run()
    assert told
    assert len(device.bridge.posts) == 1
    assert "next" not in device.files()


# -- later runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("year", WRONG)
@pytest.mark.parametrize("reachable", [True, False])
def test_a_clock_that_is_lost_between_runs_throws_nothing_away(
    device: Any, problem: Any, year: str, reachable: bool
) -> None:
    device.run()
    kept = picture(device.folder)
    device.clock.belief = WRONG[year]
    if not reachable:
        device.bridge.enroll = lambda _: problem(503, "ca_unreachable")
    device.run()
    assert picture(device.folder) == kept
    assert device.names()[5] == "already_enrolled"
    assert not {"set_aside", "invalid_enrollment", "renewed", "enrolled"} & set(device.names()[5:])


def test_a_clock_that_goes_back_between_runs_is_below_what_was_seen(device: Any, pki: Any) -> None:
    device.clock.belief = WRONG["1970"]
    device.run()
    later(device, pki, 10 * A_DAY)
    device.run()
    assert flag(device)["seen_at"] == (pki.now + 10 * A_DAY).strftime(ZONED)
    # Above the build's date and the leaf's beginning, and yet a time that has passed: the bridge is asked.
    device.clock.belief = pki.now + 9 * A_DAY
    asked = len(device.bridge.posts)
    device.run()
    assert len(device.bridge.posts) == asked + 1
    device.clock.belief = pki.now + 11 * A_DAY
    device.run()
    assert len(device.bridge.posts) == asked + 1
    assert device.names().count("enrolled") == 1


@pytest.mark.parametrize("shown", ["1970", "2106", "right"])
def test_expiry_is_honoured_with_and_without_a_clock(
    device: Any, pki: Any, reply: Any, problem: Any, shown: str
) -> None:
    """A device without a clock learns of it from the bridge's word, which is no time that could be believed."""
    device.run()
    later(device, pki, 31 * A_DAY)
    expired = problem(409, "expired", "a renewal or a re-enrollment is needed")
    device.bridge.enroll = lambda r: reply(device.bridge.answer(r), 201) if "proof" in r else expired
    device.clock.belief = WRONG.get(shown, pki.now + 31 * A_DAY)
    old = device.event("enrolled")["serial"]
    device.bridge.requests.clear()
    device.run()
    assert device.event("renewed")["serial"] != old
    proven = [post["proof"] for post in device.bridge.posts if "proof" in post]
    assert [device.bridge.claims(proof)["act"] for proof in proven] == ["renew", "activate"]
    assert flag(device)["not_after"] == (pki.now + 61 * A_DAY).strftime(ZONED)
    device.bridge.enroll = lambda r: reply(device.bridge.answer(r))
    kept = picture(device.folder)
    device.run()
    assert picture(device.folder) == kept


def test_a_certificate_that_only_a_wrong_clock_calls_expired_is_kept(device: Any, pki: Any, problem: Any) -> None:
    """Within the root's life the clock is believed: a renewal is begun beside the identity, and nothing is lost."""
    device.run()
    kept = picture(device.folder)
    device.clock.belief = pki.now + 40 * A_DAY
    right = device.bridge.enroll
    device.bridge.enroll = lambda _: problem(503, "ca_unreachable")
    with pytest.raises(TryAgainError):
        device.run(budget=1.0)
    after = picture(device.folder)
    assert {name: after[name] for name in kept if name != "."} == {n: kept[n] for n in kept if n != "."}
    device.bridge.enroll = right
    device.clock.belief = pki.now
    device.run()
    assert flag(device)["serial"] == str(device.event("enrolled")["serial"])
    assert "renewed" not in device.names()


# -- the system's clock ----------------------------------------------------------------------------------------------


def clock_of(device: Any) -> tuple[list[datetime], Callable[[datetime], None]]:
    calls: list[datetime] = []

    def set_clock(moment: datetime) -> None:
        calls.append(moment)
        device.clock.belief = moment

    device.set_clock = set_clock
    return calls, set_clock


@pytest.mark.parametrize("year", WRONG)
def test_the_clock_is_set_once_where_that_is_wanted(device: Any, pki: Any, year: str) -> None:
    calls, _ = clock_of(device)
    device.clock.belief = WRONG[year]
    device.run(set_clock=True)
    assert calls == [pki.now]
    assert device.event("clock") == {
        "event": "clock",
        "shown": WRONG[year].isoformat(),
        "believed": pki.now.isoformat(),
        "what": "was set",
    }
    asked = len(device.bridge.posts)
    device.run(set_clock=True)
    assert (len(calls), len(device.bridge.posts)) == (1, asked)


@pytest.mark.parametrize("year", WRONG)
def test_the_clock_is_never_set_where_it_is_not_wanted(device: Any, year: str) -> None:
    calls, _ = clock_of(device)
    device.clock.belief = WRONG[year]
    device.run(set_clock=False)
    device.run(set_clock=False, renew_now=True)
    assert calls == []
    assert "clock" not in device.names()


def test_a_clock_that_is_nearly_right_is_left_alone(device: Any, pki: Any) -> None:
    calls, _ = clock_of(device)
    device.clock.belief = pki.now + timedelta(seconds=20)
    device.run(set_clock=True)
    assert calls == []


@pytest.mark.parametrize("lie", ["1970-01-02T00:00:00+00:00", "2199-01-01T00:00:00+00:00"])
@pytest.mark.parametrize("year", [*WRONG, "now"])
def test_the_clock_is_never_set_to_what_is_not_proven(device: Any, reply: Any, pki: Any, lie: str, year: str) -> None:
    calls, _ = clock_of(device)
    device.clock.belief = WRONG.get(year, pki.now)
    device.bridge.enroll = lambda request: reply(device.bridge.answer(request, server_time=lie), 201)
    if year == "now":
        device.run(set_clock=True)
    else:
        with pytest.raises(TryAgainError, match="does not hold against its own certificates"):
            device.run(set_clock=True, budget=1.0)
    assert calls == []


def test_a_clock_that_may_not_be_set_costs_nothing(device: Any, pki: Any) -> None:
    def forbidden(_moment: datetime) -> None:
        raise PermissionError(1, "Operation not permitted")

    device.set_clock = forbidden
    device.clock.belief = WRONG["1970"]
    device.run(set_clock=True)
    assert "Operation not permitted" in device.event("clock")["what"]
    assert flag(device)["enrolled_at"] == pki.now.strftime(ZONED)


def test_a_renewal_may_set_the_clock_too(device: Any, pki: Any) -> None:
    calls, _ = clock_of(device)
    device.run(set_clock=True)
    assert calls == []
    device.clock.belief = WRONG["2106"]
    device.run(set_clock=True, renew_now=True)
    assert calls == [pki.now]
