"""The disk is full, or read-only, at every effect on it: that is told, nothing is lost, and the next run goes on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

import pytest

from tests.devicecrash.examination import examine_death, examine_end
from tests.devicecrash.field import Device, Field
from tests.devicecrash.orders import Refusal, Report
from tests.devicecrash.scenarios import Scenario, come_again, enrolled, renew_again

Record = Callable[[str, int], None]

SCENARIOS = {
    "first enrollment": Scenario(Field.device),
    "renewal": Scenario(enrolled, "renew", renew_again, certificates=2, holds=True),
}
TAKES_SPACE = {"create", "make_folder"}


def refusals(labels: list[str]) -> Iterator[Refusal]:
    """Yield a full disk at every effect, lasting where the effect takes space, and a read-only one at every fifth."""
    on_disk = [label.partition(" ")[0].removeprefix("disk.") for label in labels if label.startswith("disk.")]
    for at, method in enumerate(on_disk):
        yield Refusal(at, errno.ENOSPC, lasting=method in TAKES_SPACE)
        if at % 5 == 0:
            yield Refusal(at, errno.EROFS, lasting=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shard", range(2))
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_disk_that_refuses_is_told_and_recovered_from(field: Field, name: str, shard: int, count: Record) -> None:
    scenario = SCENARIOS[name]
    device = scenario.before(field)
    labels = [one.label for one in device.live(scenario.act, study=True).boundaries]
    mine = list(refusals(labels))[shard::2]
    for refusal in mine:
        device = scenario.before(field)
        former = field.registry.current(device.id)
        report = device.live(scenario.act, refusal=refusal)
        try:
            told(device, report, refusal)
            if scenario.holds:
                examine_death(device)
                the_broker_was_reached(report, refusal)
            examine_end(device, scenario, (scenario.again or come_again)(device, former), former)
        except AssertionError as e:
            label = [one for one in labels if one.startswith("disk.")][refusal.at]
            e.add_note(f"{name}: {label}: {refusal} {report.error} (see {device.case.folder})")
            raise
        field.forget(device)
    count("disks that refused", len(mine))


def told(device: Device, report: Report, refusal: Refusal) -> None:
    """The run says what is wrong, in its error or in an event."""
    assert report.code in {0, 75}
    said = [report.error, *(str(event.get("why", "")) for event in report.events)]
    assert any(os.strerror(refusal.number) in text for text in said), report


def the_broker_was_reached(report: Report, refusal: Refusal) -> None:
    """A device that has an identity connects although its disk refuses.

    But where the disk breaks for good between the bridge's yes and the last rename of the promotion: the way is
    forward, and it is a rename. A full disk does not get so far: it is found out before the bridge is asked.
    """
    labels = [one.label for one in report.boundaries]
    first = [at for at, label in enumerate(labels) if label.startswith("disk.")][refusal.at]
    lasting = refusal.number == errno.EROFS and "network.activate" in labels[:first]
    if lasting or report.error.startswith("StorageError: cannot promote"):
        return
    accepted = report.event("mqtt")
    assert accepted is not None
    assert accepted["accepted"] is True
