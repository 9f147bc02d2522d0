"""The agent is killed at every effect it has, and loses power there; then it is started again, and holds one identity.

The points are not listed anywhere: a run of each scenario tells what effects there are, and what a loss of power could
leave behind at each.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from tests.devicecrash.examination import examine_death, examine_end
from tests.devicecrash.field import Field
from tests.devicecrash.orders import Boundary, Loss
from tests.devicecrash.scenarios import SCENARIOS, come_again

SHARDS = {"first enrollment": 2, "renewal": 4, "re-enrollment": 3, "takeover": 2, "overtaken renewal": 3}
WITHIN = (0.003, 0.02, 0.08)
"""Seconds after the begin of a request: it has been sent, or not, and the bridge is at work on it, or has done it."""
NEVER_REACHED = {"disk.remove_folder", "disk.restrict", "machine.give"}
"""Effects that no scenario has: an empty ``next/`` stays; nothing here is too readable; the group is right already."""

Record = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Death:
    """Where, and what is lost."""

    at: int
    label: str
    loss: Loss | None = None
    during: float | None = None


def deaths(boundaries: tuple[Boundary, ...]) -> list[Death]:
    """Return a kill at every boundary, one within every request, and every loss of power that leaves something else."""
    found = []
    for at, boundary in enumerate(boundaries):
        found.append(Death(at, boundary.label))
        found += [Death(at, boundary.label, loss) for loss in boundary.losses]
        if boundary.label.startswith("network."):
            found += [Death(at, boundary.label, during=seconds) for seconds in WITHIN]
    return found


def shards() -> list[tuple[str, int]]:
    return [(name, shard) for name in SCENARIOS for shard in range(SHARDS.get(name, 1))]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "shard"), shards())
def test_killed_at_every_effect_and_started_again(field: Field, name: str, shard: int, count: Record) -> None:
    every = deaths(field.study(name).boundaries)
    mine = every[shard :: SHARDS.get(name, 1)]
    for death in mine:
        die(field, name, death)
    count(f"deaths of the device, {name}", len(mine))
    count("deaths of the device, all", len(mine))
    count("deaths of the device by loss of power", sum(death.loss is not None for death in mine))


def die(field: Field, name: str, death: Death) -> None:
    scenario = SCENARIOS[name]
    device = scenario.before(field)
    former = field.registry.current(device.id)
    order = replace(device.order, act=scenario.act, die_at=death.at, loss=death.loss, during=death.during)
    try:
        status = field.devices.run(order)
        assert status == -signal.SIGKILL or (death.during and status == 0), device.case.log.read_text()
        if scenario.holds:
            examine_death(device)
        report = (scenario.again or come_again)(device, former)
        examine_end(device, scenario, report, former)
    except AssertionError as e:
        e.add_note(f"{name}: {death} (see {device.case.folder})")
        raise
    field.forget(device)
