"""The bridge is killed while an agent renews, at moments that are drawn from a seed: one live certificate is left."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from random import Random
from urllib.parse import urlsplit

import pytest

from tests.devicecrash.examination import examine_death, examine_end
from tests.devicecrash.field import Device, Field, devices
from tests.devicecrash.scenarios import Scenario, enrolled, renew_again
from tests.e2e.processes import Bridge, wait_for
from tests.e2e.tenants import embedded_tenant

Record = Callable[[str, int], None]

ROUNDS = 6
MOMENTS = ("network.enroll", "network.activate")
LONGEST = 0.06
PATIENCE = 2.0
SOON = 30.0


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """A bridge that may be killed, always at the same address."""
    folder = tmp_path_factory.mktemp("devices")
    bridge = Bridge(tmp_path_factory.mktemp("bridge"), {"BRIDGE_ADMISSION": "open"})
    with devices(folder / "server.log") as server, bridge:
        bridge.port = urlsplit(bridge.url).port or 0
        made = Field(embedded_tenant(bridge, tmp_path_factory.mktemp), server, folder)
        yield made
        made.tenant.eyes.close()


@pytest.mark.timeout(300)
def test_the_bridge_is_killed_while_a_device_renews(own: Field, count: Record) -> None:
    random = Random("the bridge is killed")
    device = enrolled(own)
    for number in range(ROUNDS):
        former = own.registry.current(device.id)
        moment, delay = MOMENTS[number % len(MOMENTS)], random.uniform(0, LONGEST)
        try:
            renew_while_the_bridge_dies(device, moment, delay)
            restart(own, device)
            report = wait_for(partial(renew_again, device, former), SOON)
            examine_end(device, Scenario(enrolled, certificates=None), report, former)
        except AssertionError as e:
            e.add_note(f"{number}: {delay:.3f} s after {moment} began (see {device.case.folder})")
            raise
    count("deaths of the bridge while a device renews", ROUNDS)


def renew_while_the_bridge_dies(device: Device, moment: str, delay: float) -> None:
    """Start a renewal, and kill the bridge so long after the request was begun."""
    device.case.journal.write_text("")
    renewal = threading.Thread(
        target=device.field.devices.run, args=[replace(device.order, act="renew", budget=PATIENCE)]
    )
    renewal.start()
    wait_for(lambda: moment in device.case.journal.read_text())
    death = threading.Timer(delay, os.kill, [device.field.bridge.pid, signal.SIGKILL])
    death.start()
    death.join()
    renewal.join()


def restart(field: Field, device: Device) -> None:
    """Start the bridge again, on what it had; the device holds what is current in it."""
    field.bridge.stop()
    (field.bridge.folder / "ready.json").unlink()
    field.registry.let_claims_expire(device.id)
    field.bridge.start()
    field.tenant.eyes.close()
    field.tenant = embedded_tenant(field.bridge, field.tenant.make_folder)
    examine_death(device)
