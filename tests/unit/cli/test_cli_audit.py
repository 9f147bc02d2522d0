"""``iot-bridge audit …``: exit codes, what is named, and that an export is checked where no registry is."""

from __future__ import annotations

import asyncio
import getpass
import io
import json
import re
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bridge.app.serving import Serving, running
from bridge.cli import app, rendering
from bridge.cli.exits import exit_code
from bridge.config import load
from bridge.config.settings import variables


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in variables():
        monkeypatch.delenv(name, raising=False)


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def iot_bridge(*arguments: str | Path) -> Done:
    """Run the command in this process; a mistake that is no error of ours is raised here."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        rendering.console.file = out
        try:
            with exit_code():
                app(list(map(str, arguments)), standalone_mode=False)
        except SystemExit as e:
            status = int(e.code or 0)
    return Done(status, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True)
def _console_as_it_was() -> Iterator[None]:
    yield
    rendering.console.file = None  # type: ignore[assignment] # whatever sys.stdout is at the time


def served(data: Path) -> None:
    """Start the server and end it: at its end everything is sealed."""

    async def work() -> None:
        async with running(load({}, bridge_data=data), Serving(port=0)):
            pass

    asyncio.run(work())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A registry with two sealed entries and an unsealed one."""
    folder = tmp_path / "data"
    iot_bridge("device", "register", "dev-1", "--data", folder)
    served(folder)
    iot_bridge("decommission", "dev-1", "--reason", "stolen", "--data", folder)
    return folder


def test_verify_counts_and_prints_a_head_to_keep(data: Path) -> None:
    done = iot_bridge("audit", "verify", "--data", data)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 entries good, 1 signed heads, 1 not sealed yet" in done.stdout
    assert re.search(r"^eyJ\S+$", done.stdout, re.MULTILINE)


def test_the_first_bad_entry_is_named_with_exit_1(data: Path) -> None:
    with sqlite3.connect(data / "registry.sqlite") as connection:
        connection.execute("UPDATE audit SET actor = 'operator:nobody' WHERE action = 'device.registered'")
    connection.close()
    done = iot_bridge("audit", "verify", "--data", data)
    assert done.returncode == 1
    assert "entry 1 (device.registered of dev-1" in done.stderr
    as_json = iot_bridge("audit", "verify", "--json", "--data", data)
    assert (as_json.returncode, json.loads(as_json.stdout)["first_bad"]["sequence"]) == (1, 1)


def test_a_head_that_was_kept_shows_an_old_copy_of_the_registry(data: Path, tmp_path: Path) -> None:
    with sqlite3.connect(data / "registry.sqlite") as connection, sqlite3.connect(tmp_path / "old") as old:
        connection.backup(old)
    served(data)
    log = tmp_path / "log"
    log.write_text("..." + iot_bridge("audit", "verify", "--json", "--data", data).stdout)
    assert iot_bridge("audit", "verify", "--head", log, "--data", data).returncode == 0
    with sqlite3.connect(tmp_path / "old") as old, sqlite3.connect(data / "registry.sqlite") as connection:
        old.backup(connection)
    assert iot_bridge("audit", "verify", "--data", data).returncode == 0
    done = iot_bridge("audit", "verify", "--head", log, "--data", data)
    assert done.returncode == 1
    assert "the trail was cut" in done.stderr


def test_an_export_is_checked_without_any_registry(data: Path, tmp_path: Path) -> None:
    out, key = tmp_path / "trail.jsonl", tmp_path / "bridge.pub"
    assert "2 entries" in iot_bridge("audit", "export", "--out", out, "--data", data).stdout
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert iot_bridge("audit", "export", "--out", out, "--data", data).returncode == 2  # never over a file
    assert iot_bridge("audit", "export", "--data", data).stdout == out.read_text()
    shown = iot_bridge("audit", "key", "--data", data)
    key.write_text(shown.stdout)
    elsewhere = ("--data", tmp_path / "nothing-here")
    alone = iot_bridge("audit", "verify", "--file", out, *elsewhere)
    assert (alone.returncode, "that the file itself names" in alone.stdout) == (0, True)
    for given in (key, shown.stderr.strip()):
        checked = iot_bridge("audit", "verify", "--file", out, "--key", given, *elsewhere)
        assert (checked.returncode, "itself" in checked.stdout) == (0, False)
    assert iot_bridge("audit", "verify", "--file", out, "--key", "ab" * 32, *elsewhere).returncode == 1
    out.write_bytes(out.read_bytes().replace(b"dev-1", b"dev-2"))
    broken = iot_bridge("audit", "verify", "--file", out, *elsewhere)
    assert (broken.returncode, "entry 1 (device.registered of dev-2" in broken.stderr) == (1, True)
    assert not (tmp_path / "nothing-here").exists()


def test_entries_say_who_did_what_under_which_number(data: Path) -> None:
    lines: list[dict[str, Any]] = json.loads(iot_bridge("audit", "list", "--json", "--data", data).stdout)
    actor = f"operator:{getpass.getuser()}"
    assert [(one["action"], one["actor"]) for one in lines] == [
        ("device.registered", actor),
        ("signing_key.trusted", "server"),
        ("device.decommissioned", actor),
    ]
    assert len({one["request_id"] for one in lines if one["actor"] == actor}) == 2
    assert json.loads(lines[2]["detail"]) == {"reason": "stolen"}
    for options, number in ((("--device", "DEV-1"), 2), (("--action", "device."), 2), (("--limit", "1"), 1)):
        assert len(json.loads(iot_bridge("audit", "list", *options, "--json", "--data", data).stdout)) == number
    assert json.loads(iot_bridge("audit", "list", "--until", "2020-01-01", "--json", "--data", data).stdout) == []
    assert "unsealed" in iot_bridge("audit", "list", "--since", "2020-01-01T00:00", "--data", data).stdout


def test_a_lost_key_is_replaced_by_an_operators_word(data: Path) -> None:
    (data / "signing.key").unlink()
    done = iot_bridge("serve", "--port", "0", "--data", data)
    assert (done.returncode, "trust-key" in done.stderr) == (2, True)
    assert iot_bridge("audit", "trust-key", "--data", data).returncode == 0
    assert "in use already" in iot_bridge("audit", "trust-key", "--data", data).stdout
    served(data)
    verdict = json.loads(iot_bridge("audit", "verify", "--json", "--data", data).stdout)
    assert (verdict["ok"], verdict["heads"] >= 2, len(verdict["keys"])) == (True, True, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "--key", "xy"),
        ("verify", "--head", "xy"),
        ("verify", "--head", "."),
        ("verify", "--file", "missing"),
        ("verify", "--file", "."),
        ("list", "--since", "noon"),
        ("list", "--device", "10.0.0.1"),
        ("key",),
    ],
)
def test_mistakes_are_exit_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = iot_bridge("audit", *arguments, "--data", tmp_path)
    assert (done.returncode, done.stderr.startswith("iot-bridge: ")) == (2, True), done.stderr
