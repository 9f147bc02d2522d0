from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from enroll.plan import (
    RULES,
    Action,
    Due,
    Found,
    Identity,
    Keys,
    Last,
    Next,
    Phase,
    Progress,
    Wanted,
    deciding_rule,
    next_action,
)

VALUES: dict[str, tuple[Any, ...]] = {
    "unfit": (False, True),
    "older": (False, True),
    "keys": tuple(Keys),
    "identity": tuple(Identity),
    "next": tuple(Next),
    "due": tuple(Due),
    "last": tuple(Last),
    "anchored": (False, True),
    "renewal": tuple(Phase),
    "activation": tuple(Phase),
    "refresh": tuple(Phase),
    "broker": tuple(Phase),
    "doubted": (False, True),
    "tunnel": tuple(Phase),
    "updaters": tuple(Phase),
    "renew_now": (False, True),
}


def test_the_facets_of_the_rules_are_those_of_the_situation() -> None:
    named = {facet for rule in RULES for facet in rule.when}
    known = {field.name for part in (Found, Progress, Wanted) for field in fields(part)} | {"due"}
    assert known == set(VALUES)
    assert named <= known
    for rule in RULES:
        for facet, values in rule.when.items():
            assert values <= frozenset(VALUES[facet]), (rule, facet)


def test_every_facet_decides_something() -> None:
    assert set(VALUES) == {facet for rule in RULES for facet in rule.when}


def test_the_table_is_total() -> None:
    """The last two rules for each kind of identity catch what is left: so nothing falls through."""
    none_left = [rule for rule in RULES if set(rule.when) == {"identity"}]
    caught = frozenset().union(*(rule.when["identity"] for rule in none_left))
    assert caught == frozenset(Identity)


def test_no_rule_is_dead() -> None:
    """For each rule there is a situation that it, and none before it, decides."""
    for index, rule in enumerate(RULES):
        assert _witness(index) is not None, f"rule {index} can never decide: {rule}"


def _witness(index: int) -> dict[str, Any] | None:
    rule = RULES[index]
    facets = sorted({facet for earlier in RULES[: index + 1] for facet in earlier.when})
    choices = [tuple(rule.when.get(facet, VALUES[facet])) for facet in facets]
    for values in product(*choices):
        situation = dict(zip(facets, values, strict=True))
        if not any(
            all(situation[facet] in allowed for facet, allowed in earlier.when.items()) for earlier in RULES[:index]
        ):
            return situation
    return None


@dataclass(frozen=True)
class World:
    """A situation, and how the device came to it."""

    found: Found
    due: Due
    progress: Progress
    wanted: Wanted


STARTS = [
    World(Found(unfit, older, keys, identity, next_), due, Progress(), Wanted(renew_now))
    for unfit, older, keys, identity, next_, due, renew_now in product(
        (False, True), (False, True), Keys, Identity, Next, Due, (False, True)
    )
    # An identity needs its keys, and an older client's folder is one without ours.
    if not (older and (identity is not Identity.NONE or unfit or keys is Keys.READY))
    if not (identity is Identity.NONE and due is not Due.NOT_YET)
]


def outcomes(world: World, action: Action) -> Iterator[World]:
    """What the world may do with an action: every success, every failure, every crash just before and after."""
    found, due, progress = world.found, world.due, world.progress
    ends = [Last.WELL]
    if action in {Action.FETCH_ROOT, Action.ENROLL, Action.CONNECT, Action.REFRESH, Action.RENEW, Action.ACTIVATE}:
        ends = list(Last)
    if action in {Action.MAKE_NEXT_KEY, Action.RAISE_TUNNEL, Action.WRITE_UPDATERS}:
        ends = [Last.WELL, Last.EXHAUSTED]
    for last in ends:
        if last is Last.AGAIN and action not in {Action.FETCH_ROOT, Action.ENROLL, Action.CONNECT}:
            continue
        for refused in (False, True) if action is Action.CONNECT else (False,):
            after = progress.after(action, last, refused=refused)
            for changed, age in effects(found, due, action, last):
                anchored = after.anchored or (action is Action.FETCH_ROOT and last is Last.WELL)
                anchored = anchored or changed.identity is not Identity.NONE
                yield World(changed, age, replace(after, anchored=anchored), world.wanted)


def effects(found: Found, due: Due, action: Action, last: Last) -> Iterator[tuple[Found, Due]]:
    well = last is Last.WELL
    match action:
        case Action.PROMOTE:
            yield replace(found, identity=Identity.HELD, next=Next.NONE, keys=Keys.READY), Due.NOT_YET
        case Action.SET_ASIDE:
            for keys, identity in product(Keys, (Identity.NONE, found.identity)):
                yield replace(found, unfit=False, keys=keys, identity=identity), due
        case Action.TAKE_OVER:
            for identity, keys in product((Identity.NONE, Identity.PARTIAL), Keys):
                yield replace(found, older=False, identity=identity, keys=keys), Due.NOT_YET
        case Action.MAKE_KEYS:
            yield replace(found, keys=Keys.READY), due
        case Action.ENROLL if well:
            yield replace(found, identity=Identity.HELD), Due.NOT_YET
        case Action.MAKE_NEXT_KEY if well:
            yield replace(found, next=Next.KEY), due
        case Action.RENEW if well:
            yield replace(found, next=Next.PENDING), due
            yield replace(found, next=Next.CONFIRMED), due
        case Action.ACTIVATE if well:
            yield replace(found, next=Next.CONFIRMED), due
        case Action.RENEW | Action.ACTIVATE:
            yield found, due
            yield replace(found, next=Next.NONE), due  # useless by the bridge's word
        case Action.REFRESH if well:
            yield replace(found, identity=Identity.HELD), Due.NOT_YET if due is Due.UNKNOWN else due
        case _:
            yield found, due


def explore() -> dict[World, Action]:
    reached: dict[World, Action] = {}
    waiting = deque(STARTS)
    while waiting:
        world = waiting.popleft()
        if world in reached:
            continue
        action = next_action(world.found, world.due, world.progress, world.wanted)
        reached[world] = action
        if action not in {Action.FINISH, Action.LATER, Action.STOP}:
            waiting.extend(outcomes(world, action))
    return reached


@pytest.fixture(scope="module")
def reached() -> dict[World, Action]:
    return explore()


def test_every_action_is_reached(reached: dict[World, Action]) -> None:
    assert set(reached.values()) == set(Action)


def test_every_rule_decides_a_reachable_situation(reached: dict[World, Action]) -> None:
    deciding = {id(deciding_rule(w.found, w.due, w.progress, w.wanted)) for w in reached}
    assert deciding == {id(rule) for rule in RULES}


def test_every_run_can_end(reached: dict[World, Action], count: Any) -> None:
    """From each reachable situation an end is reached: no run goes round in circles for ever."""
    count("situations of the agent's plan", len(reached))
    ends = {world for world, action in reached.items() if action in {Action.FINISH, Action.LATER, Action.STOP}}
    before: dict[World, set[World]] = {}
    for world, action in reached.items():
        if world not in ends:
            for after in outcomes(world, action):
                before.setdefault(after, set()).add(world)
    waiting, good = deque(ends), set(ends)
    while waiting:
        for world in before.get(waiting.popleft(), ()):
            if world not in good:
                good.add(world)
                waiting.append(world)
    assert good == set(reached)


def test_a_run_finishes_only_with_an_identity_in_order(reached: dict[World, Action]) -> None:
    for world, action in reached.items():
        if action is Action.FINISH:
            assert world.found.identity is Identity.HELD
            assert world.found.next in {Next.NONE, Next.KEY}
            assert world.progress.broker is Phase.DONE
            assert world.due is not Due.EXPIRED


def test_only_a_final_word_stops_for_good(reached: dict[World, Action]) -> None:
    for world, action in reached.items():
        assert (action is Action.STOP) == (world.progress.last is Last.FINAL)


def test_a_request_for_a_certificate_has_its_key_on_disk(reached: dict[World, Action]) -> None:
    for world, action in reached.items():
        if action is Action.ENROLL:
            assert world.found.keys is Keys.READY
        if action is Action.RENEW:
            assert world.found.next is Next.KEY


def test_a_confirmed_pair_only_goes_forward(reached: dict[World, Action]) -> None:
    for world, action in reached.items():
        if world.found.next is Next.CONFIRMED and world.progress.last is not Last.FINAL:
            assert action is Action.PROMOTE


def test_nothing_unfit_is_ever_used(reached: dict[World, Action]) -> None:
    for world, action in reached.items():
        if world.found.unfit and world.found.next is not Next.CONFIRMED:
            assert action in {Action.SET_ASIDE, Action.STOP}


def test_an_unreachable_broker_holds_no_tunnel_and_no_renewal_up(reached: dict[World, Action]) -> None:
    for world, action in reached.items():
        if action is Action.WAIT and world.found.identity is not Identity.NONE:
            assert world.progress.tunnel is not Phase.UNTRIED
