"""The agent as one file: what is in it, that it is the same each time, that any Python can start it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import pytest

MOST_BYTES = 900_000


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    named = [str(part) for part in command]
    return subprocess.run(named, env=variables, capture_output=True, text=True, timeout=30, check=False)


def test_two_builds_are_one(build_zipapp: Callable[..., str], zipapp: Path, tmp_path: Path) -> None:
    again = tmp_path / "elsewhere" / "again.pyz"

    told = build_zipapp(again)

    assert again.read_bytes() == zipapp.read_bytes()
    assert hashlib.sha256(again.read_bytes()).hexdigest() in told
    assert f"{again.stat().st_size:,} bytes" in told
    assert again.stat().st_size < MOST_BYTES
    assert again.stat().st_mode & 0o777 == 0o755


def test_another_date_is_another_build_and_the_floor_of_its_clocks(
    build_zipapp: Callable[..., str], zipapp: Path, tmp_path: Path
) -> None:
    later = tmp_path / "later.pyz"
    build_zipapp(later, epoch="1900000000")

    assert later.read_bytes() != zipapp.read_bytes()
    code = "import sys; sys.path.insert(0, sys.argv[1]); from enroll.built import BUILT_AT; print(BUILT_AT.date())"
    assert run(sys.executable, "-I", "-c", code, later).stdout == "2030-03-17\n"


def test_a_build_before_the_sources_says_the_date_of_the_sources(
    build_zipapp: Callable[..., str], project: Path, tmp_path: Path
) -> None:
    early = tmp_path / "early.pyz"
    build_zipapp(early, epoch="1")

    with zipfile.ZipFile(early) as archive:
        assert archive.read("enroll/built.py") == (project / "enroll" / "built.py").read_bytes()


def test_it_holds_the_agent_two_libraries_their_licences_and_no_more(zipapp: Path, project: Path) -> None:
    with zipfile.ZipFile(zipapp) as archive:
        entries = archive.infolist()
    names = {entry.filename for entry in entries}
    sources = {name for name in names if name.endswith(".py")}

    assert {name.split("/")[0] for name in sources} == {"__main__.py", "enroll", "jwt", "paho"}
    agent = {path.relative_to(project).as_posix() for path in (project / "enroll").rglob("*.py")}
    assert {name for name in sources if name.startswith("enroll/")} == agent
    assert {name for name in names if name.endswith(".pyc")} == {f"{name}c" for name in sources}
    assert {name.split("/")[1] for name in names - sources if not name.endswith(".pyc")} == {
        "METADATA",
        "iot-enroll",
        "paho_mqtt",
        "pyjwt",
    }
    assert [entry.filename for entry in entries] == sorted(names)
    assert len({entry.date_time for entry in entries}) == 1
    assert {entry.external_attr >> 16 for entry in entries} == {0o100644}


def test_it_knows_its_version(zipapp: Path, project: Path) -> None:
    with (project / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    code = "import sys, importlib.metadata as m; sys.path.insert(0, sys.argv[1]); print(m.version('iot-bridge'))"
    assert run(sys.executable, "-I", "-S", "-c", code, zipapp).stdout == f"{version}\n"


def test_byte_code_is_taken_without_looking_at_the_source(zipapp: Path) -> None:
    with zipfile.ZipFile(zipapp) as archive:
        for name in archive.namelist():
            if name.endswith(".pyc"):
                head = archive.read(name)[:8]
                assert head == MAGIC_NUMBER + b"\1\0\0\0", name


@pytest.mark.parametrize("options", [(), ("--no-bytecode",)])
def test_it_starts_alone(
    build_zipapp: Callable[..., str], tmp_path: Path, options: tuple[str, ...], project: Path
) -> None:
    path = tmp_path / "iot-enroll.pyz"
    build_zipapp(path, *options)
    # Without site-packages: what a start needs is in the file or in the standard library.
    helped = run(sys.executable, "-I", "-S", path, "--help")
    assert helped.returncode == 0, helped.stderr
    assert "BRIDGE_API_URL" in helped.stdout

    wrong = run(sys.executable, "-I", "-S", path, "run", CERTS_DIR=str(tmp_path / "certs"))
    assert wrong.returncode == 2, wrong.stderr
    assert "BRIDGE_API_URL" in wrong.stderr
    assert not (tmp_path / "certs").exists()


def test_a_python_of_another_minor_version_takes_the_sources(zipapp: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pyz"
    with zipfile.ZipFile(zipapp) as archive, zipfile.ZipFile(other, "w") as made:
        for entry in archive.infolist():
            content = archive.read(entry)
            foreign = b"\0\0\r\n" + content[4:] if entry.filename.endswith(".pyc") else content
            made.writestr(entry, foreign)

    helped = run(sys.executable, "-I", "-S", other, "--help")

    assert helped.returncode == 0, helped.stderr
    assert "BRIDGE_API_URL" in helped.stdout


def test_a_name_of_the_environment_cannot_bring_code_along(zipapp: Path, tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("raise SystemExit('not ours')\n")
    assert zipapp.read_bytes().startswith(b"#!/usr/bin/python3 -I\n")

    helped = run(sys.executable, "-I", zipapp, "--help", PYTHONPATH=str(tmp_path), HOME=os.environ["HOME"])

    assert helped.returncode == 0, helped.stderr
