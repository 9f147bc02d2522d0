"""What the documents say of commands, variables and files is true of the code."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from bridge.cli import app
from bridge.config.settings import SECRETS, variables
from bridge.errors import BadDeviceId
from bridge.model.identity import NamingRule
from enroll.config import VARIABLES

DOCUMENTS = ("README.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md", "compose/README.md", "docs/device.md")


@pytest.fixture(scope="module", params=DOCUMENTS)
def document(request: pytest.FixtureRequest, project: Path) -> str:
    return (project / str(request.param)).read_text()


def test_the_tables_of_variables_are_those_of_the_program(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, ".ci/readme.py", "--check"], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_variable_that_is_named_exists(document: str) -> None:
    known = {*variables(), *VARIABLES, *(f"{name}_FILE" for name in SECRETS)}
    named = set(re.findall(r"\b(?:BRIDGE|STEP_CA|THINGSBOARD|HAWKBIT|WG|ENROLL)_[A-Z_]*[A-Z]\b", document))
    assert named <= known, named - known


def test_every_command_that_is_named_exists(document: str) -> None:
    root = typer.main.get_command(app)
    for words in named_commands(document, "iot-bridge"):
        command: Any = root
        for word in words:
            inside = getattr(command, "commands", None)
            if inside is None or not re.fullmatch(r"[a-z][a-z-]*", word):
                break
            assert word in inside, words
            command = inside[word]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, words


def test_every_command_of_the_agent_that_is_named_exists(document: str) -> None:
    for words in named_commands(document, "iot-enroll"):
        assert not words or words[0] in {"run", "renew", "status", "reset", "inventory"}, words


def test_every_make_target_that_is_named_exists(document: str, project: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (project / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", document, re.MULTILINE))
    assert named <= targets, named - targets


def test_every_file_that_is_named_exists(document: str, project: Path) -> None:
    links = re.findall(r"\]\(((?!https?:)[^)#]+)\)", document)
    named = re.findall(r"`((?:bridge|ca|enroll|compose|tests|\.ci)/[\w./-]+)`", document)
    roots = (project, project / "bridge", project / "compose", project / "docs")
    missing = [name for name in [*links, *named] if not any((root / name).exists() for root in roots)]
    assert [name for name in missing if not name.startswith("compose/tenant")] == []


def test_the_names_in_examples_are_good_device_ids(document: str) -> None:
    for name in re.findall(r"iot-bridge device register ([a-z0-9-]+)", document):
        try:
            NamingRule(frozenset()).parse(name)
        except BadDeviceId as e:
            pytest.fail(f"{name}: {e}")


def test_make_help_lists_every_target(project: Path) -> None:
    done = subprocess.run(["make", "-s", "help"], cwd=project, capture_output=True, text=True, check=True)
    listed = {line.split()[0] for line in done.stdout.splitlines()}
    assert {"demo", "test", "run", "lint", "agent", "agent-deb", "test-real", "real", "bench", "help"} <= listed


def named_commands(document: str, program: str) -> Iterator[list[str]]:
    """Yield what follows the program's name wherever a document shows a command line."""
    shown = re.findall(r"`([^`\n]+)`", document)
    for block in re.findall(r"```sh\n(.*?)```", document, re.DOTALL):
        shown += block.splitlines()
    for line in shown:
        for found in re.findall(rf"\b{program} ([^#&;]*)", line):
            words = found.replace("[", " ").replace("]", " ").split()
            yield words[1:] if words[:1] == [program] else words
