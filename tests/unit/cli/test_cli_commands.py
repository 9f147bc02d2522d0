"""The operators' command: exit codes, the JSON that scripts rely on, orders that wait for a server."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bridge.app.serving import Serving, running
from bridge.cli import app
from bridge.cli.exits import code_of, exit_code
from bridge.config import load
from bridge.config.settings import variables
from bridge.errors import BridgeError, Misconfigured
from bridge.lifecycle.service import OrderRefused
from bridge.model.facts import Csr, EnrollmentRequest, NewAttempt, SignedLeaf
from bridge.model.identity import DeviceId, Fingerprint, Pem, Serial
from bridge.model.records import Kind, System
from bridge.store.lock import FolderLock
from bridge.store.open import open_registry

Run = Callable[..., Result]
SHOWN = {"device_id", "state", "generation", "epoch", "proven", "address", "issuances", "links"}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in variables():
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def run(data: Path) -> Run:
    """Run the command as ``iot-bridge`` does, with this test's data folder."""

    def command(*arguments: str, folder: bool = True) -> Result:
        def main() -> None:
            with exit_code():
                app([*arguments, *(("--data", str(data)) if folder else ())])

        return CliRunner().invoke(_Entry(main), [])

    return command


class _Entry:
    """Lets the runner catch output and exit code of a plain function."""

    name = "iot-bridge"

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function

    def main(self, *_: Any, **__: Any) -> None:
        self._function()


@pytest.fixture(autouse=True)
def _as_click(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.testing._get_command", lambda entry: entry)


def written(result: Result) -> Any:
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def enroll(data: Path, name: str = "dev-1") -> None:
    """Give the device a certificate, behind the command's back."""

    async def work() -> None:
        store = await open_registry(
            data / "registry.sqlite", systems=frozenset(System), quarantine=timedelta(hours=1), migrate=False
        )
        now = datetime.now(UTC)
        key, number = Fingerprint.of(name.encode()), Serial((1 << 127) + 5)
        request = EnrollmentRequest(DeviceId(name), Csr(Pem("csr"), key, key, b"", b""))
        attempt = NewAttempt(request, Kind.FIRST, 1, False, number, now + timedelta(seconds=15), now)
        leaf = SignedLeaf(number, Pem("leaf"), Pem("chain"), key, now, now + timedelta(days=90))
        await store.write(lambda tx: tx.begin_attempt(attempt))
        await store.write(lambda tx: tx.store_certificate(number, leaf, now))
        await store.close()

    asyncio.run(work())


# -- exit codes --------------------------------------------------------------------------------------------------
def family(kind: type[BridgeError]) -> set[type[BridgeError]]:
    return {kind}.union(*(family(child) for child in kind.__subclasses__()))


def test_every_error_has_one_of_the_agreed_codes() -> None:
    codes = {}
    for kind in family(BridgeError):
        try:
            error = kind("x")
        except TypeError:
            error = kind("x", retry_after=1.0)
        codes[kind.__name__] = code_of(error)
    assert set(codes.values()) == {1, 2, 75}
    assert codes["Misconfigured"] == codes["BadDeviceId"] == codes["BadRequest"] == 2
    assert codes["CaUnreachable"] == codes["StoreUnavailable"] == 75
    assert codes[OrderRefused.__name__] == 1


def test_error_is_printed_with_what_to_do(run: Run) -> None:
    result = run("device", "show", "dev-1")
    assert result.exit_code == 1
    assert "iot-bridge: the id dev-1 is not known" in result.stderr
    assert "iot-bridge device show ID" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("device", "register", "10.0.0.1"),
        ("device", "register", "localhost"),
        ("device", "register", "a/b"),
        ("device", "register", "dev-1", "--ttl", "soon"),
        ("device", "register", "dev-1", "--ttl", "999999999999d"),
        ("device", "register", "dev-1", "--key-sha256", "abc"),
        ("re-enroll", "dev-1", "--ttl", "1y"),
        ("re-enroll", "dev-1", "--ttl", "9999999d"),
        ("decommission", "dev-1", "--timeout", "0"),
        ("device", "list", "--state", "gone"),
        ("device", "nonsense"),
        ("nonsense",),
        ("serve", "--port", "70000"),
        ("wireguard", "sync", "--once", "--keep-outside", "vpn"),
        ("wireguard", "sync", "--once", "--interface", "no such/name"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_two(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, (result.output, result.exception)
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", [("device", "list"), ("serve", "--port", "0"), ("config", "check")])
def test_wrong_configuration_is_two_and_names_its_variable(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("BRIDGE_TLS", "maybe")
    result = run(*command)
    assert result.exit_code == 2
    assert "BRIDGE_TLS" in result.stderr


def test_data_folder_that_cannot_be_one_is_two(run: Run, data: Path) -> None:
    data.write_text("a file")
    for command in (("device", "list"), ("serve", "--port", "0")):
        result = run(*command)
        assert result.exit_code == 2, (result.output, result.exception)
        assert "--data" in result.stderr


def test_refused_orders_are_one(run: Run, data: Path) -> None:
    assert run("device", "register", "dev-1").exit_code == 0
    for command in (("device", "register", "DEV-1"), ("re-enroll", "dev-1"), ("reinstate", "dev-1")):
        assert run(*command).exit_code == 1
    enroll(data)
    assert run("device", "abandon", "dev-1").exit_code == 1


def test_without_arguments_there_is_help(run: Run) -> None:
    result = run(folder=False)
    assert "decommission" in result.output
    assert result.exit_code in {0, 2}


# -- devices -----------------------------------------------------------------------------------------------------
def test_device_show_has_the_agreed_members(run: Run, data: Path) -> None:
    run("device", "register", "dev-1", "--name", "Pump")
    fresh = written(run("device", "show", "dev-1", "--json"))
    assert set(fresh) >= SHOWN
    assert (fresh["device_id"], fresh["state"], fresh["generation"], fresh["proven"]) == (
        "dev-1",
        "registered",
        0,
        False,
    )
    assert (fresh["address"], fresh["issuances"], fresh["links"]) == (None, [], [])

    enroll(data)
    shown = written(run("device", "show", "DEV-1", "--json"))
    assert (shown["device_id"], shown["state"], shown["generation"]) == ("dev-1", "active", 1)
    assert isinstance(shown["epoch"], int)
    assert {"serial", "state", "generation", "leaf_sha256", "not_after"} <= set(shown["issuances"][0])
    assert {link["system"] for link in shown["links"]} >= {"thingsboard", "hawkbit"}
    assert {"system", "wanted", "state", "attempts", "last_error"} <= set(shown["links"][0])


def test_device_show_for_people(run: Run, data: Path) -> None:
    run("device", "register", "dev-1")
    enroll(data)
    result = run("device", "show", "dev-1")
    assert result.exit_code == 0
    assert all(word in result.output for word in ("dev-1", "active", "unproven", "thingsboard", "generation 1"))


def test_device_list_is_json_for_scripts_and_lines_for_people(run: Run, data: Path) -> None:
    assert written(run("device", "list", "--json")) == []
    for name in ("b", "a", "C"):
        run("device", "register", name)
    assert [one["device_id"] for one in written(run("device", "list", "--json"))] == ["a", "b", "C"]
    assert written(run("device", "list", "--json", "--state", "active")) == []
    assert "a  registered  generation 0  unproven" in run("device", "list").output


def test_voucher_is_shown_once_and_kept_as_a_digest(run: Run, data: Path) -> None:
    told = written(run("device", "register", "dev-1", "--voucher", "--json"))
    assert re.fullmatch(r"PROV-[A-Z2-9]{4}-[A-Z2-9]{4}", told["voucher"])
    assert not set(told["voucher"][5:]) & set("IO01")
    for path in data.rglob("*"):
        assert not path.is_file() or told["voucher"].encode() not in path.read_bytes()
    assert told["voucher"] not in run("device", "show", "dev-1").output
    assert written(run("device", "register", "dev-2", "--json"))["voucher"] is None


def test_abandoned_id_is_gone(run: Run) -> None:
    run("device", "register", "dev-1")
    assert written(run("device", "abandon", "dev-1", "--json")) == {"device_id": "dev-1", "state": "abandoned"}
    assert run("device", "show", "dev-1").exit_code == 1


def test_window_is_opened_for_as_long_as_was_said(run: Run, data: Path) -> None:
    run("device", "register", "dev-1")
    enroll(data)
    told = written(run("re-enroll", "dev-1", "--ttl", "2h", "--voucher", "--json"))
    lasts = datetime.fromisoformat(told["window_expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=119) < lasts <= timedelta(hours=2)
    assert told["voucher"].startswith("PROV-")
    assert written(run("device", "show", "dev-1", "--json"))["window_expires_at"] == told["window_expires_at"]


# -- orders and the server ---------------------------------------------------------------------------------------
def test_without_a_server_the_order_is_recorded_and_waiting_for_it_is_75(run: Run, data: Path) -> None:
    run("device", "register", "dev-1")
    enroll(data)
    plain = run("decommission", "dev-1")
    assert plain.exit_code == 0
    assert "recorded and waits" in plain.output
    waiting = run("decommission", "dev-1", "--wait", "--json")
    assert waiting.exit_code == 75
    shown = json.loads(waiting.stdout)
    assert shown["state"] == "retiring"
    assert set(shown) >= SHOWN
    assert "iot-bridge serve" in waiting.stderr


def test_with_a_server_that_does_not_get_it_done_waiting_ends_at_75(run: Run, data: Path) -> None:
    run("device", "register", "dev-1")
    enroll(data)
    with FolderLock(data):
        result = run("decommission", "dev-1", "--wait", "--timeout", "1", "--json")
    assert result.exit_code == 75
    assert json.loads(result.stdout)["state"] == "retiring"
    assert "after 1 s" in result.stderr


def test_json_stays_json_while_orders_wait(run: Run, data: Path) -> None:
    run("device", "register", "dev-1")
    enroll(data)
    assert written(run("decommission", "dev-1", "--json"))["state"] == "retiring"


def iot_bridge(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "bridge", *arguments, "--data", str(data)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(data.parent)},
        timeout=60,
    )


async def test_server_carries_out_what_another_process_ordered(run: Run, data: Path) -> None:
    assert (await asyncio.to_thread(run, "device", "register", "dev-1")).exit_code == 0
    order = ("decommission", "dev-1", "--wait", "--timeout", "30", "--json")
    async with running(load({}, bridge_data=data), Serving(port=0)):
        done = await asyncio.to_thread(iot_bridge, data, *order)
    assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "retired")


def test_second_server_on_one_folder_is_two(run: Run, data: Path) -> None:
    data.mkdir()
    with FolderLock(data):
        result = run("serve", "--port", "0")
    assert result.exit_code == 2
    assert "another process" in result.stderr


def test_order_names_who_gave_it_even_where_users_have_no_names(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert run("device", "register", "dev-1").exit_code == 0

    async def look() -> list[str]:
        store = await open_registry(
            data / "registry.sqlite", systems=frozenset(), quarantine=timedelta(hours=1), migrate=False
        )
        with store.engine.connect() as connection:
            actors = [row[0] for row in connection.exec_driver_sql("SELECT actor FROM audit")]
        await store.close()
        return actors

    assert asyncio.run(look()) == [f"operator:uid {os.getuid()}"]


# -- configuration -----------------------------------------------------------------------------------------------
def test_config_check_of_the_embedded_stack(run: Run) -> None:
    found = written(run("config", "check", "--json"))
    assert [one["part"] for one in found] == ["settings", "registry"]
    assert all(one["ok"] for one in found)
    assert "no server runs" in found[1]["text"]


def test_config_check_says_which_server_does_not_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = {
        "STEP_CA_URL": "https://127.0.0.1:1",
        "STEP_CA_FINGERPRINT": "ab" * 32,
        "STEP_CA_PROVISIONER_NAME": "devices",
        "STEP_CA_PROVISIONER_PASSWORD": "s3cret",
        "BRIDGE_ADMISSION": "registered",
        "BRIDGE_TLS": "off",
    }
    for name, value in real.items():
        monkeypatch.setenv(name, value)
    result = run("config", "check")
    assert result.exit_code == 1
    assert "FAIL" in result.output
    assert "STEP_CA_URL=https://127.0.0.1:1" in result.output
    assert "s3cret" not in result.output


def test_serve_without_its_ca_is_not_now(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "STEP_CA_URL": "https://127.0.0.1:1",
        "STEP_CA_FINGERPRINT": "ab" * 32,
        "STEP_CA_PROVISIONER_NAME": "devices",
        "STEP_CA_PROVISIONER_PASSWORD": "s3cret",
        "BRIDGE_ADMISSION": "registered",
        "BRIDGE_TLS": "off",
    }.items():
        monkeypatch.setenv(name, value)
    result = run("serve", "--port", "0")
    assert result.exit_code == 75, (result.output, result.exception)


def test_misconfigured_server_says_what_to_run() -> None:
    assert "iot-bridge config check" in Misconfigured.advice


def test_command_itself_ends_with_its_code(data: Path) -> None:
    done = iot_bridge(data, "device", "show", "dev-1")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("iot-bridge: ")


def test_new_issuing_ca_is_trusted_once(run: Run) -> None:
    digest = "ab" * 32
    assert run("ca", "trust", digest.upper(), "--json").exit_code == 0
    assert run("ca", "trust", digest).exit_code == 1
    assert run("ca", "trust", "ab").exit_code == 2
