"""The agent's plan: total, without dead rules, and what may never happen does not, in any situation it can reach."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import fields
from itertools import product
from typing import Any

from enroll.plan import RULES, Action, Due, Found, Identity, Keys, Last, Next, Phase, Progress, Wanted
from tests.unit.enroll.states import ENDS, PAGE, VALUES, World, outcomes, reachable, render


def test_the_facets_of_the_rules_are_those_of_the_situation() -> None:
    known = {field.name for part in (Found, Progress, Wanted) for field in fields(part)} | {"due"}
    assert known == set(VALUES)
    for rule in RULES:
        for facet, values in rule.when.items():
            assert values <= frozenset(VALUES[facet]), (rule, facet)


def test_every_facet_decides_something() -> None:
    assert set(VALUES) == {facet for rule in RULES for facet in rule.when}


def test_the_table_is_total() -> None:
    """Rules that ask for the identity alone catch what no rule before them took: so nothing falls through."""
    catching = [rule.when["identity"] for rule in RULES if set(rule.when) == {"identity"}]
    assert frozenset[Any]().union(*catching) == frozenset(Identity)


def test_no_rule_is_dead() -> None:
    """For each rule there is a situation that it, and none before it, decides."""
    for index, rule in enumerate(RULES):
        assert _witness(index) is not None, f"rule {index + 1} can never decide: {rule}"


def _witness(index: int) -> dict[str, Any] | None:
    rule, earlier = RULES[index], RULES[:index]
    facets = sorted({facet for one in RULES[: index + 1] for facet in one.when})
    for values in product(*(tuple(rule.when.get(facet, VALUES[facet])) for facet in facets)):
        situation = dict(zip(facets, values, strict=True))
        if not any(one.applies(situation) for one in earlier):
            return situation
    return None


def test_every_action_and_every_rule_is_reached() -> None:
    assert set(reachable().values()) == set(Action)
    assert {id(world.rule) for world in reachable()} == {id(rule) for rule in RULES}


def test_every_run_can_end(count: Callable[[str, int], None]) -> None:
    """From each reachable situation an end is reached: no run goes round in circles for ever."""
    count("situations of the agent's plan", len(reachable()))
    before: dict[World, set[World]] = {}
    for world, action in reachable().items():
        if action not in ENDS:
            for after in outcomes(world):
                before.setdefault(after, set()).add(world)
    good = {world for world, action in reachable().items() if action in ENDS}
    waiting = deque(good)
    while waiting:
        for world in before.get(waiting.popleft(), ()):
            if world not in good:
                good.add(world)
                waiting.append(world)
    assert good == set(reachable())


def test_only_waiting_for_others_goes_round(count: Callable[[str, int], None]) -> None:
    """A run in which nobody else fails takes each action a bounded number of times."""
    longest = 0
    for start in [world for world in reachable() if world.progress == Progress()]:
        world, steps = start, 0
        while world.action not in ENDS:
            world = next(iter(outcomes(world)))
            steps += 1
            assert steps < 30, start
        longest = max(longest, steps)
    count("actions of the longest run without a failure", longest)


def test_a_run_finishes_only_with_an_identity_in_order() -> None:
    for world, action in reachable().items():
        if action is Action.FINISH:
            assert world.found.identity is Identity.HELD
            assert world.found.next in {Next.NONE, Next.KEY}
            assert world.progress.broker is Phase.DONE
            assert world.due is not Due.EXPIRED


def test_only_a_final_word_stops_for_good() -> None:
    for world, action in reachable().items():
        assert (action is Action.STOP) == (world.progress.last is Last.FINAL)


def test_a_request_for_a_certificate_has_its_key_on_disk() -> None:
    for world, action in reachable().items():
        if action is Action.ENROLL:
            assert world.found.keys is Keys.READY
            assert world.progress.anchored
        if action is Action.RENEW:
            assert world.found.next is Next.KEY


def test_a_confirmed_pair_only_goes_forward() -> None:
    for world, action in reachable().items():
        if world.found.next is Next.CONFIRMED and world.progress.last is not Last.FINAL:
            assert action is Action.PROMOTE


def test_nothing_unfit_stays_where_the_disk_lets_it_go() -> None:
    """An identity goes on beside a file that cannot be set aside; without one, nothing is done before it is."""
    for world, action in reachable().items():
        if world.found.unfit and world.found.next is not Next.CONFIRMED and action is not Action.STOP:
            refused = world.found.identity is not Identity.NONE and world.progress.set_aside is Phase.FAILED
            assert (action is Action.SET_ASIDE) or refused


def test_waiting_for_the_broker_holds_neither_tunnel_nor_activation_up() -> None:
    for world, action in reachable().items():
        if action is Action.WAIT and world.found.identity is not Identity.NONE:
            assert world.progress.tunnel is not Phase.UNTRIED


def test_a_refused_connect_repeats_the_activation() -> None:
    refused = Progress(activation=Phase.FAILED).after(Action.CONNECT, Last.AGAIN, refused=True)
    unreachable = Progress(activation=Phase.FAILED).after(Action.CONNECT, Last.AGAIN, refused=False)
    assert refused.activation is Phase.UNTRIED
    assert unreachable.activation is Phase.FAILED


def test_the_documented_table_is_the_code() -> None:
    assert PAGE.read_text() == render(), "run: .venv/bin/python -m tests.unit.enroll.states --write"
