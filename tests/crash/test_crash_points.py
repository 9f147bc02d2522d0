"""The bridge is killed before and after every effect; then the device comes again, and all is as if nothing had been.

The points are not listed anywhere: each scenario is run again and again, dying one boundary later each time, until a
run comes to its end.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType

import pytest

from bridge.ports import authority, platform, registry, runtime, tunnels, updates
from tests.crash.examination import Evidence, examine
from tests.crash.fuse import guarded, is_beginning
from tests.crash.plan import Plan, read_journal
from tests.crash.scenarios import SCENARIOS
from tests.crash.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

AT_ONCE = 4
DEATH = -signal.SIGKILL
OBSERVED = {"registry.Registry", "authority.CertificateAuthority"}
OBSERVED |= {"platform.DevicePlatform", "updates.UpdateServer", "tunnels.TunnelServer"}

Record = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Point:
    """One run: where it died (``None``: it came to its end), and every boundary it had reached."""

    died_at: str | None
    reached: tuple[str, ...]


async def lived(stage: Stage, plan: Plan) -> Point:
    """Let a victim live, and the device come again afterwards; examine what is then."""
    status = await stage.run(plan)
    assert status in {0, DEATH}, plan.log.read_text()
    boundaries = read_journal(plan.journal)
    assert (status == DEATH) == (len(deadly(plan, [one.label for one in boundaries])) - 1 == plan.die_at)
    signed_before = stage.signed(plan.device)
    offset = boundaries[-1].offset if boundaries else 0.0
    again = replace(plan, recovering=True, die_at=None, offset=offset)
    where = f"{plan.scenario}, death {plan.die_at}: {boundaries[-1].label}"
    assert await stage.run(again) == 0, f"{where}\n{again.log.read_text()}"
    report = json.loads(again.report.read_text())
    evidence = Evidence(plan, SCENARIOS[plan.scenario], report, signed_before, stage.signed(plan.device))
    try:
        examine(evidence)
    except AssertionError as e:
        e.add_note(f"{where} (see {plan.folder})")
        raise
    await asyncio.to_thread(stage.databases.give_back, plan.database)
    labels = tuple(boundary.label for boundary in boundaries)
    return Point(labels[-1] if status == DEATH else None, labels)


def deadly(plan: Plan, reached: Sequence[str]) -> list[str]:
    """Return the boundaries at which runs like this one die."""
    pairs = zip(reached, ("", *reached), strict=False)
    return [one for one, last in pairs if plan.both_sides or not last or is_beginning(last) or not is_beginning(one)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_killed_at_every_effect_and_asked_again(stage: Stage, scenario: str, count: Record) -> None:
    short = f"{list(SCENARIOS).index(scenario):02}"
    deaths: list[str] = []
    for first in itertools.count(step=AT_ONCE):
        plans = [
            replace(stage.plan(scenario, f"{short}-{number:03}"), die_at=number)
            for number in range(first, first + AT_ONCE)
        ]
        points = await asyncio.gather(*(lived(stage, plan) for plan in plans))
        deaths += [point.died_at for point in points if point.died_at is not None]
        complete = [point for point in points if point.died_at is None]
        if complete:
            break
    # Every boundary of the whole story was a death, once, in its order.
    reached = complete[0].reached
    assert deaths == deadly(plans[0], reached)
    sides = Counter(map(is_beginning, reached))
    assert sides[True] == sides[False] > 0
    count("boundaries", len(reached))
    count(f"deaths, {scenario}", len(deaths))
    count("deaths in all", len(deaths))


async def test_the_scenarios_reach_every_effect_of_every_port(stage: Stage, count: Record) -> None:
    """A new effect that no scenario has is found here; one that a scenario has is counted by itself."""
    plans = [stage.plan(scenario, f"whole-{number}") for number, scenario in enumerate(SCENARIOS)]
    points = await asyncio.gather(*(lived(stage, plan) for plan in plans))
    reached = {label.partition(" ")[2] for point in points for label in point.reached}
    expected = {
        f"{name}.{method}"
        for name, port in (
            ("authority", authority.CertificateAuthority),
            ("platform", platform.DevicePlatform),
            ("updates", updates.UpdateServer),
            ("tunnels", tunnels.TunnelServer),
        )
        for method in asynchronous(port)
        if method != "check"  # only asks; the composition calls it for /readyz
    }
    assert expected - reached == set()
    commits = {label for label in reached if label.startswith("commit of")}
    count("kinds of effects that deaths surround", len(reached))
    assert len(commits) >= len({"begin", "store", "refuse", "forget", "claim", "settle", "sweep"})


async def test_every_port_with_effects_is_known() -> None:
    """Another outside system would be another port: it must get a fuse, and a scenario."""
    found = set()
    for module in (authority, platform, registry, runtime, tunnels, updates):
        found |= ports_with_effects(module)
    assert found == OBSERVED


def ports_with_effects(module: ModuleType) -> set[str]:
    short = module.__name__.rpartition(".")[2]
    classes = [one for _, one in inspect.getmembers(module, inspect.isclass) if one.__module__ == module.__name__]
    return {f"{short}.{one.__name__}" for one in classes if asynchronous(one)}


def asynchronous(port: type) -> list[str]:
    return [name for name, _ in inspect.getmembers(port, inspect.iscoroutinefunction) if not name.startswith("_")]


async def test_a_guarded_call_has_two_sides_also_where_it_fails() -> None:
    class Port:
        def plain(self) -> int:
            return 1

        async def works(self) -> int:
            return 2

        async def fails(self) -> None:
            raise ValueError("broken")

    class Counting:
        seen: list[str] = []  # noqa: RUF012 - of this test alone

        def reach(self, boundary: str) -> None:
            self.seen.append(boundary)

    fuse = Counting()
    port = guarded("port", Port(), fuse)  # type: ignore[arg-type]
    assert (port.plain(), await port.works()) == (1, 2)
    with pytest.raises(ValueError, match="broken"):
        await port.fails()
    assert fuse.seen == [f"{side} port.{name}" for name in ("works", "fails") for side in ("before", "after")]
