"""`make demo` itself: every line true, plain text without a terminal, and nothing left running, however it ends."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "compose.demo", "--no-tunnel"]


def environment(folder: Path) -> dict[str, str]:
    # Variables of somebody's real servers must not reach the demonstration's processes.
    return os.environ | {"TMPDIR": str(folder), "STEP_CA_URL": "https://ca.invalid", "WG_SUBNET": "nonsense"}


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of processes that were started with a path in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


def test_every_line_is_true_and_nothing_is_left(tmp_path: Path) -> None:
    done = subprocess.run(
        COMMAND, cwd=PROJECT, env=environment(tmp_path), capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^(\d+) of \1 lines true", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stdout
    for told in (
        "CN = Tenant Sub-CA <- CN = Intermediate CA <- CN = Provider Root CA",
        "the broker saw CONNECT",
        "hawkBit target demo-",
        "wireguard_ip = 10.8.0.2",
        "409 identity_exists",
        "403 retired",
        "no tunnel raised here: switched off",
    ):
        assert told in done.stdout
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_ends_what_it_started(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        COMMAND, cwd=PROJECT, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "listens at" in line:
                break
        assert processes_of(tmp_path) != []
        demo.send_signal(number)
        rest = demo.stdout.read()
        assert demo.wait(60) == 130, rest
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_cannot_be_true_says_so(tmp_path: Path) -> None:
    """A bridge that cannot start: the reason is on the screen, and the exit code is 1."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "iot-bridge").write_text("#!/bin/sh\necho no bridge today\nexit 2\n")
    (folder / "iot-bridge").chmod(0o755)
    script = (
        "import sys, pathlib, compose.demo.processes as p; p.BIN = pathlib.Path(sys.argv.pop(1));"
        "from compose.demo.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), "--no-tunnel"],
        cwd=PROJECT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "iot-bridge serve ended with 2" in done.stdout
    assert "no bridge today" in done.stdout
    assert "lines true" not in done.stdout
