"""The server of devices: loads the agent once, then forks a process for each order and tells how it ended.

    python -m tests.devicecrash.victims

Orders come in as lines of JSON and go out as exit statuses (negative: the signal), one a line. A fork of a process
without threads costs milliseconds, a new interpreter with the agent's libraries half a second.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from enroll import mqtt, updaters
from enroll.agent import Agent, Runtime
from enroll.config import Settings, TunnelMode
from enroll.disk import reset
from enroll.disk.files import PosixDisk
from enroll.errors import EnrollError, exit_code
from enroll.keys.file import FileKeys
from enroll.names import BridgeUrl, DeviceId, Fingerprint
from enroll.network.transport import Heard, HttpsNetwork
from enroll.running import addresses
from enroll.tunnel import Completed
from tests.devicecrash.flash import Flash, FlashDisk
from tests.devicecrash.fuse import Fuse
from tests.devicecrash.orders import Case, Order, Report

_LOADED = (mqtt, updaters)
_LONGEST_SLEEP = 0.2


@dataclass
class Rtc:
    """The device's clock, wrong by what its file says."""

    case: Case
    offset: timedelta

    @classmethod
    def of(cls, case: Case) -> Rtc:
        return cls(case, timedelta(seconds=float(case.rtc.read_text()) if case.rtc.exists() else 0.0))

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(min(seconds, _LONGEST_SLEEP))

    def set(self, moment: datetime) -> None:
        self.offset = moment - datetime.now(UTC)
        self.case.rtc.write_text(str(self.offset.total_seconds()))


@dataclass
class Networked:
    """A machine with systemd-networkd and without wireguard-tools."""

    case: Case

    def is_root(self) -> bool:
        return True

    def find(self, command: str) -> str | None:
        return f"/usr/bin/{command}" if command == "networkctl" else None

    def has_interface(self, name: str) -> bool:
        return self.case.interface.exists()

    def runs_systemd(self) -> bool:
        return True

    def group(self, name: str) -> int | None:
        return os.getegid()

    def give(self, path: Path, group: int) -> None:
        os.chown(path, -1, group)

    def run(self, arguments: Sequence[str], stdin: str = "") -> Completed:
        match arguments:
            case ["networkctl", "reload"]:
                self.case.interface.touch()
            case ["networkctl", "delete", _]:
                self.case.interface.unlink(missing_ok=True)
            case _:
                return Completed(1, "", f"no such command: {arguments}")
        return Completed(0, "", "")


@dataclass(frozen=True)
class Known:
    hardware: dict[str, Any] = field(default_factory=lambda: {"cpu_cores": 4})
    network: dict[str, Any] = field(default_factory=lambda: {"hostname": "box"})


class InFront(HttpsNetwork):
    """The network of a device whose update server has TLS: the embedded one has none, and update clients want it."""

    def enroll(self, *given: Any) -> Heard:
        return self._with_tls(super().enroll(*given))

    def activate(self, *given: Any) -> Heard:
        return self._with_tls(super().activate(*given))

    def _with_tls(self, heard: Heard) -> Heard:
        heard.body["hawkbit"]["url"] = "https://updates.example"
        return heard


def settings_of(order: Order) -> Settings:
    case = order.case
    return Settings(
        bridge=BridgeUrl.parse(order.bridge),
        device_id=DeviceId(order.device),
        folder=case.certs,
        root_pins=(Fingerprint.parse(order.pin),),
        issuer_pins=(Fingerprint.parse(order.issuer),) if order.issuer else (),
        budget=order.budget,
        set_clock=True,
        telemetry=True,
        tunnel=TunnelMode.NETWORKD if order.outfit else TunnelMode.NONE,
        networkd_dir=case.networkd,
        rauc_config=case.updaters / "rauc.conf" if order.outfit else None,
        swupdate_config=case.updaters / "swupdate.cfg" if order.outfit else None,
    )


def runtime_of(order: Order, flash: Flash, events: list[dict[str, Any]]) -> Runtime:
    """Everything real but clock and machine; the disk keeps account of what is on the medium."""
    rtc = Rtc.of(order.case)
    return Runtime(
        clock=rtc,
        set_clock=rtc.set,
        uniform=lambda low, high: low + (high - low) * 0.3,
        disk=FlashDisk(PosixDisk(), flash),
        machine=Networked(order.case),
        network=InFront({}),
        provider=FileKeys(),
        report=lambda event: events.append(event.to_json()),
        addresses=addresses,
        inventory=Known,
    )


def live(order: Order) -> Report:
    """Live to the end, or to the death that the order has."""
    case = order.case
    flash = Flash.open(case.flash, case.cache)
    fuse = Fuse(order, flash)
    events: list[dict[str, Any]] = []
    settings = settings_of(order)
    runtime = fuse.guard(runtime_of(order, flash, events))
    connect = fuse.effect("mqtt.connect_once", mqtt.connect_once)
    mqtt.connect_once = (lambda *_: "not asked") if order.preparing else connect
    code, error = 0, ""
    try:
        if order.act == "stray":
            (case.flash / "stray").write_text("of nobody")
        elif order.act == "reset":
            reset.forget(settings.folder, runtime.disk, settings.interface)
        else:
            Agent(settings, runtime, renew_now=order.act == "renew").run()
    except EnrollError as e:
        code, error = exit_code(e), f"{type(e).__name__}: {e}"
    fuse.reach("the end")
    fuse.close()
    flash.save(case.cache)
    return Report(code, error, events, tuple(fuse.boundaries), tuple(fuse.uncounted))


def _run(line: str) -> NoReturn:
    order = Order.read(line)
    log = os.open(order.case.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    status = 1
    try:
        live(order).write(order.case.report)
        status = 0
    except BaseException:  # noqa: BLE001 - the parent reads it in the log
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Serve until standard input ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _run(line)
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
