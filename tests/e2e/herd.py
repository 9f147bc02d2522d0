"""Many devices in one process: the agent's own core over real HTTPS and MQTT, one thread and one folder each.

``python -m tests.e2e.herd`` reads an order as JSON from its input and prints one line of JSON for each device.
"""

from __future__ import annotations

import json
import random
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography import x509

from enroll.agent import Agent, Runtime
from enroll.config import Settings, TunnelMode
from enroll.disk.files import PosixDisk
from enroll.errors import EnrollError, TryAgainError
from enroll.inventory import Inventory
from enroll.keys.file import FileKeys
from enroll.names import BridgeUrl, DeviceId, Fingerprint
from enroll.network.transport import Heard, HttpsNetwork
from enroll.trust.clock import SystemClock

STACK_BYTES = 512 * 1024


class CountingNetwork(HttpsNetwork):
    """The real thing, and how often it was asked for what."""

    def __init__(self) -> None:
        super().__init__({})
        self.asked: Counter[str] = Counter()

    def fetch_unverified_root(self, base: str, pin: Fingerprint, seconds: float) -> bytes:
        self.asked["root"] += 1
        return super().fetch_unverified_root(base, pin, seconds)

    def enroll(
        self, base: str, device_id: str, body: Mapping[str, Any], context: ssl.SSLContext, seconds: float
    ) -> Heard:
        self.asked["enroll"] += 1
        return super().enroll(base, device_id, body, context, seconds)


class NoTunnel:
    """A machine on which nothing may be run."""

    def is_root(self) -> bool:
        return False

    def find(self, _command: str) -> str | None:
        return None

    def has_interface(self, _name: str) -> bool:
        return False

    def run(self, arguments: Any) -> Any:
        raise AssertionError(f"nothing may be run here: {arguments}")


class UnsyncedDisk(PosixDisk):
    """Five hundred devices share one disk here: what is synced is of other tests."""

    def sync(self, path: Path) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass


def boot(order: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Run one device until it is enrolled and its broker has let it in; tell how it went."""
    network, waits = CountingNetwork(), Counter[str]()
    folder = Path(order["folder"]) / name

    def report(event: Any) -> None:
        if event.name == "waiting":
            waits[event.fields["code"]] += 1

    settings = Settings(
        bridge=BridgeUrl.parse(order["url"]),
        device_id=DeviceId(name),
        folder=folder,
        root_pins=(Fingerprint(order["root_sha256"]),),
        start_spread=order["start_spread"],
        budget=order["budget"],
        tunnel=TunnelMode.NONE,
    )
    clock = SystemClock()
    runtime = Runtime(
        clock=clock,
        set_clock=clock.set,
        uniform=random.SystemRandom().uniform,
        disk=UnsyncedDisk(),
        machine=NoTunnel(),
        network=network,
        provider=FileKeys(),
        report=report,
        addresses=lambda _host: (),
        inventory=lambda: Inventory({"cpu_cores": 1}, {"hostname": name}),
    )
    begun, runs, end = time.monotonic(), 0, ""
    while end != "enrolled":
        runs += 1
        try:
            Agent(settings, runtime).run()
            end = "enrolled"
        except TryAgainError as e:  # exit 75: a service manager starts it again
            end = e.code
            time.sleep(random.SystemRandom().uniform(0, order["restart_seconds"]))
        except EnrollError as e:
            end = f"{e.code}: {e}"
            break
    told = {
        "id": name,
        "end": end,
        "runs": runs,
        "seconds": round(time.monotonic() - begun, 2),
        "asked": dict(network.asked),
    }
    told["waits"] = dict(waits)
    if end == "enrolled":
        told["serial"] = str(x509.load_pem_x509_certificate((folder / "device.crt").read_bytes()).serial_number)
        told["address"] = json.loads((folder / "enrolled").read_text())["address"]
    return told


def main() -> None:
    order = json.load(sys.stdin)
    threading.stack_size(STACK_BYTES)
    printing = threading.Lock()

    def run(name: str) -> None:
        told = boot(order, name)
        with printing:
            print(json.dumps(told), flush=True)  # noqa: T201 - what this command is for

    threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in order["names"]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
