"""The agent is killed at every effect it has, and loses power there; then it is started again, and holds one identity.

The points are not listed anywhere: a run of each scenario tells what effects there are, and what a loss of power could
leave behind at each.
"""

from __future__ import annotations

import inspect
import signal
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from random import Random

import pytest

from enroll.agent import Runtime
from tests.devicecrash.examination import examine_death, examine_end
from tests.devicecrash.field import Field
from tests.devicecrash.flash import Flash
from tests.devicecrash.fuse import LOOKS, Fuse
from tests.devicecrash.orders import Boundary, Loss
from tests.devicecrash.scenarios import SCENARIOS, come_again
from tests.devicecrash.victims import runtime_of

SHARDS = {
    "first enrollment": 3,
    "renewal": 6,
    "re-enrollment": 3,
    "takeover": 2,
    "damaged key": 2,
    "overtaken renewal": 2,
}
WITHIN = (0.003, 0.02, 0.08)
"""Seconds after the begin of a request: it has been sent, or not, and the bridge is at work on it, or has done it."""
AT_WORK = {"network.enroll", "network.activate"}
NEVER_REACHED = {
    "disk.remove_folder",  # an empty next/ stays
    "disk.restrict",  # nothing here is readable by too many
    "machine.give",  # the group is right already
    "network.fetch_root",  # the system's trust only
    "network.server_chain",  # where a server's certificate looks too old or too new
}
"""Effects that no scenario has; the three that are no looks change nothing but a mode, an owner or a folder's name."""

TWICE = 15

Record = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Death:
    """Where, and what is lost."""

    at: int
    label: str
    loss: Loss | None = None
    during: float | None = None


TRIES = 3
"""A broker that has not heard of the device yet is asked once more: then the same place has another number."""


def deaths(name: str, boundaries: tuple[Boundary, ...]) -> list[Death]:
    """Return kills at every boundary, some within each request, and losses of power that leave something else."""
    found = []
    for at, boundary in enumerate(boundaries):
        if boundary.new or SCENARIOS[name].everywhere:
            found.append(Death(at, boundary.label))
        losses = boundary.losses
        if not SCENARIOS[name].everywhere:  # elsewhere it is one content after the other
            losses = tuple(loss for n, loss in enumerate(losses) if loss.content == "whole" or (n + at) % 3 == 0)
        found += [Death(at, boundary.label, loss) for loss in losses]
        if boundary.label in AT_WORK:
            found += [Death(at, boundary.label, during=seconds) for seconds in WITHIN]
    return found


def shards() -> list[tuple[str, int]]:
    return [(name, shard) for name in SCENARIOS for shard in range(SHARDS.get(name, 1))]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "shard"), shards())
def test_killed_at_every_effect_and_started_again(field: Field, name: str, shard: int, count: Record) -> None:
    every = deaths(name, field.study(name).boundaries)
    mine = every[shard :: SHARDS.get(name, 1)]
    for death in mine:
        die(field, name, death)
    count(f"deaths of the device, {name}", len(mine))
    count("deaths of the device, all", len(mine))
    count("deaths of the device by loss of power", sum(death.loss is not None for death in mine))


def die(field: Field, name: str, death: Death) -> None:
    scenario = SCENARIOS[name]
    for _ in range(TRIES):
        device = scenario.before(field)
        former = field.registry.current(device.id)
        order = replace(device.order, act=scenario.act, die_at=death.at, loss=death.loss, during=death.during)
        try:
            status = field.devices.run(order)
            assert status == -signal.SIGKILL or (death.during and status == 0), device.case.log.read_text()
            last = device.case.journal.read_text().splitlines()[-1]
            if scenario.holds:
                examine_death(device)
            report = (scenario.again or come_again)(device, former)
            examine_end(device, scenario, report, former)
        except AssertionError as e:
            e.add_note(f"{name}: {death} (see {device.case.folder})")
            raise
        field.forget(device)
        if death.during or last.split(" ")[0] == death.label.split(" ")[0]:
            return
    raise AssertionError(f"{name}: {TRIES} times something else was done at {death}, last {last}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["first enrollment", "renewal"])
def test_killed_and_then_without_power_before_anything_was_synced(field: Field, name: str, count: Record) -> None:
    """What a killed process wrote is seen by the next one, and may still be lost."""
    random = Random(name)
    points = len(field.study(name).boundaries)
    for number in range(TWICE):
        scenario = SCENARIOS[name]
        device = scenario.before(field)
        former = field.registry.current(device.id)
        first, second = sorted(random.sample(range(points), 2))
        loss = Loss((), random.choice(("zero", "half", "empty")))
        assert field.devices.run(replace(device.order, act=scenario.act, die_at=first)) == -signal.SIGKILL
        act = scenario.act if field.registry.current(device.id) == former else "run"
        order = replace(device.order, act=act, die_at=random.randrange(1, 1 + points - first), loss=loss)
        assert field.devices.run(order) in {-signal.SIGKILL, 0}, device.case.log.read_text()
        try:
            if scenario.holds:
                examine_death(device)
            examine_end(device, scenario, (scenario.again or come_again)(device, former), former)
        except AssertionError as e:
            e.add_note(f"{name}, {number}: {first}, {second}, {order} (see {device.case.folder})")
            raise
        field.forget(device)
    count("devices that died twice", TWICE)


def test_every_part_of_the_runtime_is_counted(field: Field) -> None:
    """A part that is new gets its boundaries by itself; what only looks is named, and exists."""
    device = field.device()
    runtime = runtime_of(device.order, Flash.scan(device.case.flash), [])
    guarded = Fuse(device.order, Flash.scan(device.case.flash)).guard(runtime)
    for part in fields(Runtime):
        assert getattr(guarded, part.name) is not getattr(runtime, part.name)
    assert calls() >= LOOKS


def test_the_scenarios_reach_every_effect(field: Field, count: Record) -> None:
    reached = {boundary.label.split(" ")[0] for name in SCENARIOS for boundary in field.study(name).boundaries}
    assert reached - {"mqtt.connect_once", "the"} == calls() - LOOKS - NEVER_REACHED
    count("kinds of effects that deaths of the device surround", len(reached) - 1)


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_effect_goes_around_what_is_counted(field: Field, name: str) -> None:
    assert field.study(name).uncounted == ()


def test_an_effect_that_goes_around_is_seen(field: Field) -> None:
    (seen,) = field.device().live("stray", study=True).uncounted
    assert seen.startswith("open ")


def calls() -> set[str]:
    """Return every call that the runtime's Protocols offer, and every function among its parts."""
    found = set()
    for name, kind in typing.get_type_hints(Runtime).items():
        methods = [m for m, _ in inspect.getmembers(kind, _is_member) if not m.startswith("_")]
        found |= {f"{name}.{method}" for method in methods} if inspect.isclass(kind) else {name}
    return found


def _is_member(one: object) -> bool:
    return inspect.isfunction(one) or isinstance(one, property)
