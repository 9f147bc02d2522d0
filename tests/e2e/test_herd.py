"""Five hundred devices that start together, at a bridge that is overloaded at first, ends, and is killed."""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ca.standin.hierarchy import load_or_make
from ca.standin.signing import Signer
from tests.e2e.background import Background
from tests.e2e.overload import ANSWERS, Overload
from tests.e2e.processes import Bridge, clean_environment, wait_for
from tests.e2e.tenants import signed_by_embedded_ca, write_server_certificate

DEVICES = 500
PROCESSES = 4
SECONDS = 240.0
BUDGET = 20.0
"""Seconds of one run; without a herd to wait for it is 90, and a service manager waits minutes between runs."""


class Herd:
    """The processes, and what their devices told."""

    def __init__(self, folder: Path, url: str, root_sha256: str) -> None:
        self.names = [f"herd-{number:03}" for number in range(DEVICES)]
        self.cpu = 0.0
        self._folder = folder
        self._running = []
        for number in range(PROCESSES):
            order = {
                "url": url,
                "root_sha256": root_sha256,
                "folder": str(folder),
                "names": self.names[number::PROCESSES],
                "start_spread": 5.0,
                "budget": BUDGET,
                "restart_seconds": 4.0,
            }
            self._running.append(self._start(number, order))

    def _start(self, number: int, order: dict[str, Any]) -> subprocess.Popen[bytes]:
        given = self._folder / f"order-{number}.json"
        given.write_text(json.dumps(order))
        with given.open("rb") as source, (self._folder / f"told-{number}").open("wb") as target:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.herd"],
                stdin=source,
                stdout=target,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parents[2],
                env=clean_environment(),
            )

    def told(self) -> list[dict[str, Any]]:
        """What the devices told that are done."""
        lines = []
        for number in range(PROCESSES):
            text = (self._folder / f"told-{number}").read_text()
            lines += text[: text.rfind("\n") + 1].splitlines()
        return [json.loads(line) for line in lines]

    def ended(self) -> bool:
        """Tell whether all processes have; what CPU they took is kept."""
        for process in list(self._running):
            ended, _, used = os.wait4(process.pid, os.WNOHANG)
            if ended:
                process.returncode = 0
                self._running.remove(process)
                self.cpu += used.ru_utime + used.ru_stime
        return not self._running

    def stop(self) -> None:
        for process in self._running:
            process.kill()
            process.wait(20)


def rows(bridge: Bridge, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{bridge.data}/registry.sqlite?mode=ro", uri=True, timeout=10)) as registry:
        return registry.execute(statement).fetchall()


def enrolled(bridge: Bridge) -> int:
    return int(rows(bridge, "SELECT count(*) FROM issuance WHERE state = 'current'")[0][0])


@contextmanager
def overloaded(bridge: Bridge, folder: Path) -> Iterator[Overload]:
    """A door before the bridge with a certificate of the same CA, as a proxy of the same tenant has it."""
    hierarchy = load_or_make(bridge.data / "embedded" / "ca" / "pki", datetime.now(UTC))
    certificate, key = write_server_certificate(Signer(hierarchy), folder / "door")
    certificate.write_text(key.read_text() + certificate.read_text())
    background = Background()
    with ExitStack() as stack:
        stack.callback(background.close)
        yield background.enter(stack, Overload(int(bridge.url.rpartition(":")[2]), certificate))


@pytest.mark.real  # not for its servers, which are our own: two cores are busy with it for a minute
@pytest.mark.timeout(SECONDS + 60)
def test_a_herd_ends_enrolled_once_each(tmp_path: Path, count: Callable[[str, int], None]) -> None:
    variables = {"BRIDGE_ADMISSION": "open", "WG_SUBNET": "10.8.0.0/20", "BRIDGE_SIGN_DEADLINE": "11s"}
    begun = time.monotonic()
    with Bridge(tmp_path / "bridge", variables) as bridge, ExitStack() as stack:
        bridge.port = int(bridge.url.rpartition(":")[2])
        door = stack.enter_context(overloaded(bridge, tmp_path))
        folder = tmp_path / "herd"
        folder.mkdir()
        herd = Herd(folder, f"https://127.0.0.1:{door.port}", bridge.ready["root_sha256"])
        stack.callback(herd.stop)
        wait_for(lambda: door.answered.total() >= DEVICES, SECONDS)
        door.busy = False
        wait_for(lambda: enrolled(bridge) >= DEVICES // 5, SECONDS)
        at_term = enrolled(bridge)
        bridge.stop()
        bridge.start()
        wait_for(lambda: enrolled(bridge) >= DEVICES // 2, SECONDS)
        at_kill = enrolled(bridge)
        bridge.kill()
        bridge.start()
        assert at_kill < DEVICES, "the herd was through before the bridge was killed"
        wait_for(herd.ended, SECONDS)
        told = herd.told()
        check(bridge, folder, herd.names, told)
        signed = signed_by_embedded_ca(bridge)
    lasted = time.monotonic() - begun
    assert set(door.answered) == set(ANSWERS)
    summary(herd, told, door, lasted, (at_term, at_kill), len(signed))
    count("devices of the herd enrolled", len(told))
    asked = sorted(sum(one["asked"].values()) for one in told)
    count("requests of the herd", sum(asked))


def check(bridge: Bridge, folder: Path, names: list[str], told: list[dict[str, Any]]) -> None:
    """All are enrolled, none twice, and every device holds what the registry says."""
    assert Counter(one["end"] for one in told) == {"enrolled": DEVICES}
    assert sorted(one["id"] for one in told) == names
    states = dict(rows(bridge, "SELECT id, state FROM device"))
    assert states == dict.fromkeys(names, "active")
    taken = rows(bridge, "SELECT device, serial, leaf FROM issuance WHERE taken")
    assert sorted(device for device, *_ in taken) == names
    current = dict(rows(bridge, "SELECT device, serial FROM issuance WHERE state = 'current'"))
    assert {one["id"]: one["serial"] for one in told} == current
    for device, _, leaf in taken:
        assert (folder / device / "device.crt").read_text().strip() == leaf.strip()
    addresses = [one["address"] for one in told]
    assert len(set(addresses)) == DEVICES
    assert None not in addresses


def summary(
    herd: Herd, told: list[dict[str, Any]], door: Overload, lasted: float, restarts: tuple[int, int], signed: int
) -> None:
    asked = sorted(sum(one["asked"].values()) for one in told)
    runs = sorted(one["runs"] for one in told)
    seconds = sorted(one["seconds"] for one in told)
    waits = sum((Counter(one["waits"]) for one in told), Counter())
    spread = ", ".join(
        f"{what} {low:g}/{statistics.median(found):g}/{high:g}"
        for what, found in (("requests", asked), ("runs", runs), ("seconds", seconds))
        for low, high in [(found[0], found[-1])]
    )
    print(  # noqa: T201 - a measurement to read
        f"\nherd: {DEVICES} devices in {PROCESSES} processes, {lasted:.1f} s, {herd.cpu:.0f} s of CPU in them; SIGTERM "
        f"at {restarts[0]} enrolled, SIGKILL at {restarts[1]}; per device, min/median/max: {spread}; certificates "
        f"signed: {signed}; refused at the door: {dict(door.answered)}; waits: {dict(waits)}"
    )
