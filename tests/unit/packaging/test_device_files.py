"""The template and the page of the device say what the agent says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from enroll.config import VARIABLES


@pytest.fixture
def template(project: Path) -> list[str]:
    return (project / "packaging" / "iot-enroll.conf").read_text().splitlines()


def test_template_and_page_are_those_of_the_program(project: Path) -> None:
    command = [sys.executable, ".ci/device.py", "--check"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_template_names_exactly_the_variables_and_sets_none(template: list[str]) -> None:
    assert [line[1:-1] for line in template if line.startswith("#") and line.endswith("=")] == list(VARIABLES)
    assert [line for line in template if line and not line.startswith("#")] == []


def test_its_lines_are_short_enough_to_read(template: list[str]) -> None:
    assert max(map(len, template)) <= 120
