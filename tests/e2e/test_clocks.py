"""Agents as processes whose clock is moved by libfaketime, at a bridge that lives in the present, or later."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import create_connection, create_server, socket
from typing import Any

import pytest

from ca.standin.hierarchy import load_or_make
from tests.e2e.processes import BIN, Bridge, Device, clean_environment, wait_for
from tests.e2e.tenants import Tenant, embedded_tenant, signed_by_embedded_ca

pytestmark = pytest.mark.real

WRONG = {"1970": "@1970-01-02 00:00:00", "2038+1": "@2038-01-19 03:14:08", "2106": "@2106-02-08 00:00:00"}
LIFETIME = timedelta(days=2)


def library() -> str:
    """libfaketime as Debian installs it; a test without it must fail."""
    return str(next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")))


@pytest.fixture(scope="session", autouse=True)
def _sleep(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have Python's sleep wait by select: libfaketime 0.9.10 spoils a sleep until a moment of CLOCK_MONOTONIC."""
    folder = tmp_path_factory.mktemp("sleep")
    (folder / "sitecustomize.py").write_text(
        "import select, time\ntime.sleep = lambda s: select.select([], [], [], s)\n"
    )
    FIXED["PYTHONPATH"] = str(folder)


FIXED = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1", "TZ": "UTC"}


def shifted(moment: str) -> dict[str, str]:
    """Variables for a process that lives at another time: ``@`` and a time in UTC at which it starts, or ``+3d``."""
    return FIXED | {"LD_PRELOAD": library(), "FAKETIME": moment}


def steered(file: Path, moment: str) -> dict[str, str]:
    """The same for a process whose clock the test goes on moving by writing the file."""
    file.write_text(moment)
    return shifted(moment) | {"FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1"} | {"FAKETIME": ""}


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenant]:
    """A bridge with leaves of two days, and a root that is half through its life: it ends before 2038."""
    folder = tmp_path_factory.mktemp("bridge")
    pki = folder / "data" / "embedded" / "ca" / "pki"
    pki.parent.mkdir(parents=True, mode=0o700)
    root = load_or_make(pki, datetime.now(UTC) - timedelta(days=365 * 9 + 180)).root.certificate
    assert root.not_valid_after_utc < datetime(2038, 1, 19, tzinfo=UTC)
    with Bridge(folder, {"BRIDGE_CERT_LIFETIME": "2d"}) as bridge:
        made = embedded_tenant(bridge, tmp_path_factory.mktemp)
        yield made
        made.eyes.close()


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """A bridge under a root of its own, whose authorities have the same names."""
    with Bridge(tmp_path_factory.mktemp("stranger"), {"BRIDGE_ADMISSION": "open"}) as bridge:
        yield bridge


def flag(device: Device) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(device.path("enrolled").read_text())
    return found


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def is_now(moment: datetime) -> bool:
    return abs(moment - datetime.now(UTC)) < timedelta(minutes=2)


def contents(device: Device) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in device.folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("year", WRONG)
def test_a_first_boot_ends_enrolled_and_connected(tenant: Tenant, year: str) -> None:
    device = tenant.device("boot")

    boot = device.run(**shifted(WRONG[year]))

    assert boot.status == 0, (boot.output, boot.errors)
    assert boot.event("mqtt")["accepted"] is True
    assert is_now(at(flag(device)["enrolled_at"]))
    kept = contents(device)
    # On any other clock the same identity is found, and the broker takes it.
    for other in (*WRONG.values(), "+0"):
        again = device.run(**shifted(other))
        assert again.status == 0, (other, again.output, again.errors)
        assert again.event("already_enrolled")["serial"] == str(device.serial)
        assert again.event("mqtt")["accepted"] is True
        assert contents(device) == kept
    assert signed_by_embedded_ca(tenant.bridge).count(device.serial) == 1


@pytest.mark.parametrize("year", WRONG)
def test_another_root_and_another_name_are_refused_whatever_the_clock(
    tenant: Tenant, stranger: Bridge, year: str
) -> None:
    device = tenant.device("wary")

    wrong = device.run(budget=2, **shifted(WRONG[year]), STEP_CA_FINGERPRINT="ab" * 32)
    assert (wrong.status, wrong.event("stopped")["code"]) == (75, "root_mismatch"), wrong.errors
    other = device.run(budget=2, **shifted(WRONG[year]), BRIDGE_API_URL=stranger.url)
    assert (other.status, other.event("stopped")["code"]) == (75, "root_mismatch"), other.errors
    root = device.path("root.crt")
    root.write_text(tenant.root_pem)
    other = device.run(budget=2, **shifted(WRONG[year]), BRIDGE_API_URL=stranger.url)
    assert (other.status, other.event("stopped")["code"]) == (75, "unreachable"), other.errors
    assert "does not hold against the pinned root" in other.event("stopped")["why"]
    with forwarded(tenant.bridge.url) as elsewhere:
        lost = device.run(budget=2, **shifted(WRONG[year]), BRIDGE_API_URL=elsewhere)

    assert (lost.status, lost.event("stopped")["code"]) == (75, "unreachable"), lost.errors
    assert "IP address mismatch" in lost.event("stopped")["why"]
    assert set(contents(device)) == {"device.key", "device.csr", "wg.key", "root.crt"}
    assert tenant.bridge.show(device.id)["issuances"] == []


def test_a_clock_ahead_within_the_roots_life_is_believed_and_costs_no_identity(tenant: Tenant) -> None:
    """Nothing tells it from an old key of a server: the run says what to check, and the next one is well."""
    device = tenant.booted("ahead")
    kept = contents(device)

    ahead = device.run(budget=3, **shifted("+2000d"))

    assert ahead.status == 75, ahead.output
    assert "check the clock" in ahead.output
    assert {name: kept[name] for name in kept} == {name: contents(device)[name] for name in kept}
    assert device.run().status == 0
    assert contents(device) == kept


def test_expiry_is_honoured(tenant: Tenant) -> None:
    device = tenant.booted("old")
    first = device.serial
    assert at(flag(device)["not_after"]) - datetime.now(UTC) < LIFETIME

    # Its clock runs ahead of the leaf's end, the bridge's does not: renewed all the same, and its time believed.
    ahead = device.run(**shifted("+3d"))

    assert ahead.status == 0, (ahead.output, ahead.errors)
    assert ahead.event("renewed")["serial"] == str(device.serial) != str(first)
    assert ahead.event("mqtt")["accepted"] is True
    assert is_now(at(flag(device)["seen_at"]))


@contextmanager
def living(bridge: Bridge, moment: Mapping[str, str]) -> Iterator[None]:
    """Have the bridge live at another time."""
    present = bridge.variables
    bridge.port = int(bridge.url.rpartition(":")[2])
    bridge.stop()
    bridge.variables = {**present, **moment}
    bridge.start()
    try:
        yield
    finally:
        bridge.stop()
        bridge.variables = present
        bridge.start()


@pytest.mark.parametrize("clock", ["+3d", "1970", "2106"])
def test_a_leaf_that_everybody_knows_to_be_expired_proves_its_renewal_within_the_grace(
    tmp_path_factory: pytest.TempPathFactory, clock: str
) -> None:
    """A device that was off for too long: with a clock, and without any."""
    with Bridge(tmp_path_factory.mktemp("bridge"), {"BRIDGE_CERT_LIFETIME": "2d"}) as bridge:
        tenant = embedded_tenant(bridge, tmp_path_factory.mktemp)
        tenant.eyes.close()
        device = tenant.booted("late")
        first = device.serial
        with living(bridge, shifted("+3d")):
            late = device.run(**shifted(WRONG.get(clock, clock)))

            assert late.status == 0, (late.output, late.errors)
            assert late.event("renewed")["serial"] == str(device.serial) != str(first)
            assert late.event("mqtt")["accepted"] is True
            assert at(flag(device)["not_after"]) > datetime.now(UTC) + timedelta(days=4)
            wait_for(lambda: [one["state"] for one in bridge.show(device.id)["issuances"]] == ["revoked", "current"])
        # What was proven by then is a floor: a clock that goes back to the present is behind it, and is not believed.
        kept = contents(device)
        back = device.run(budget=3, **shifted("+0"))
        assert back.event("already_enrolled")["serial"] == str(device.serial)
        assert contents(device) == kept


@pytest.mark.parametrize(
    ("before", "after"),
    [("1970", "2106"), ("2106", "1970"), ("1970", "now"), ("now", "1970"), ("now", "2038+1"), ("2038+1", "now")],
)
def test_a_jump_while_the_agent_waits_changes_nothing(tenant: Tenant, tmp_path: Path, before: str, after: str) -> None:
    moments = WRONG | {"now": "+0"}
    device = tenant.device("jump", registered=False)
    device.folder.mkdir(mode=0o700)
    clock = tmp_path / "clock"
    with started(device, steered(clock, moments[before]), tmp_path / "out") as (agent, output):
        wait_for(lambda: '"waiting"' in output.read_text())
        clock.write_text(moments[after])
        tenant.bridge.order("device", "register", device.id)
        assert agent.wait(60) == 0, output.read_text()
    events = [json.loads(line) for line in output.read_text().splitlines()]
    assert [one["event"] for one in events if one["event"] in {"enrolled", "mqtt", "set_aside"}] == ["enrolled", "mqtt"]
    assert is_now(at(flag(device)["enrolled_at"]))
    assert len(tenant.bridge.show(device.id)["issuances"]) == 1


@contextmanager
def started(device: Device, variables: Mapping[str, str], output: Path) -> Iterator[tuple[Any, Path]]:
    known = {
        "BRIDGE_API_URL": device.url,
        "STEP_CA_FINGERPRINT": device.root_sha256,
        "DEVICE_ID": device.id,
        "CERTS_DIR": str(device.folder),
        "ENROLL_TUNNEL": "none",
    }
    with ExitStack() as stack:
        stream = stack.enter_context(output.open("wb"))
        environment = clean_environment() | known | dict(variables)
        command = [BIN / "iot-enroll", "run", "--json"]
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
        stack.callback(process.wait, 20)
        stack.callback(process.kill)
        yield process, output


@contextmanager
def forwarded(url: str) -> Iterator[str]:
    """Make the bridge reachable under an address that its certificate does not name."""
    port = int(url.rpartition(":")[2])
    listener = create_server(("127.0.0.2", 0))
    threads: list[threading.Thread] = []

    def pump(source: socket, target: socket) -> None:
        with source, target:
            try:
                while data := source.recv(65536):
                    target.sendall(data)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = create_connection(("127.0.0.1", port))
            for pair in ((near, far), (far, near)):
                threads.append(threading.Thread(target=pump, args=pair, daemon=True))
                threads[-1].start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"https://127.0.0.2:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(2)
        listener.close()
        thread.join(10)
