"""What the agent carries is what requirements.lock pins, with its hashes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Ask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ask(project: Path, tmp_path: Path) -> Ask:
    def asked(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", f"from libraries import *\nimport sys\n{code}", *arguments]
        folder = {"PYTHONPATH": str(project / "packaging" / "agent")}
        return subprocess.run(command, env=folder, cwd=tmp_path, capture_output=True, text=True, check=False)

    return asked


def test_the_lines_of_the_lock_are_taken_whole(ask: Ask, project: Path) -> None:
    told = ask("print(requirements(open(sys.argv[1]).read()), end='')", str(project / "requirements.lock"))
    lines = told.stdout.splitlines()
    assert [line.split("==")[0] for line in lines if "==" in line] == ["paho-mqtt", "pyjwt"]
    assert sum("--hash=sha256:" in line for line in lines) >= 2
    assert set(lines) <= set((project / "requirements.lock").read_text().splitlines())


def test_a_lock_without_them_is_refused(ask: Ask) -> None:
    told = ask("print(requirements('paho-mqtt==2 \\\\\\n    --hash=sha256:00\\n'))")
    assert told.returncode != 0
    assert "pins no pyjwt" in told.stderr
