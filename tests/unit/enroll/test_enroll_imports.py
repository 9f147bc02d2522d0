"""What the agent loads, and when: a device pays for every import at each start."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import enroll

SOURCES = sorted(Path(enroll.__file__).parent.rglob("*.py"))
NEVER = {"asyncio", "httpx", "requests", "aiohttp", "pydantic", "bridge", "ca", "thingsboard", "hawkbit", "wireguard"}
SLOW = NEVER | {
    "cryptography",
    "ctypes",
    "email",
    "http",
    "jwt",
    "logging",
    "lzma",
    "multiprocessing",
    "paho",
    "pkcs11",
    "platform",
    "random",
    "shutil",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
}
"""What help, a mistake in the configuration and a look at an empty folder can do without."""


def loaded(*arguments: str, status: int, environment: Mapping[str, str] | None = None) -> set[str]:
    """Run `iot-enroll` as a process and return every module that it loads, with the packages above them."""
    command = [sys.executable, "-X", "importtime", "-m", "enroll", *arguments]
    ended = subprocess.run(
        command, env=dict(environment or {}), capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == status, ended.stderr[-2000:]
    modules = set(re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", ended.stderr, re.MULTILINE))
    assert "enroll.cli" in modules
    return modules | {module.partition(".")[0] for module in modules}


@pytest.fixture
def enrolled(device: Any, pki: Any) -> dict[str, str]:
    """The environment of a device that is enrolled, with a bridge that names no broker."""
    device.run()
    device.bridge.requests.clear()
    return {
        "BRIDGE_API_URL": device.bridge.url,
        "DEVICE_ID": "dev-1",
        "CERTS_DIR": str(device.folder),
        "STEP_CA_FINGERPRINT": pki.sha256,
        "ENROLL_TUNNEL": "none",
    }


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--help",), 0),
        (("run", "--no-such-flag"), 2),
        ((), 2),
        (("run", "--device-id", "localhost", "--bridge-url", "https://bridge.example"), 2),
    ],
)
def test_help_and_mistakes_load_nothing_slow(arguments: Sequence[str], status: int) -> None:
    modules = loaded(*arguments, status=status)
    assert not modules & SLOW
    assert "enroll.wire" not in modules
    assert "enroll.agent" not in modules


def test_an_empty_folder_is_told_without_cryptography(tmp_path: Path) -> None:
    modules = loaded("status", "--certs-dir", str(tmp_path), status=1)
    assert not modules & SLOW
    assert not modules & {"enroll.disk.survey", "enroll.agent", "enroll.trust.paths"}


def test_a_status_knows_no_network(enrolled: dict[str, str]) -> None:
    modules = loaded("status", status=0, environment=enrolled)
    assert "cryptography" in modules
    assert not modules & (NEVER | {"jwt", "paho", "subprocess", "enroll.agent", "enroll.mqtt"})


def test_a_boot_that_has_nothing_to_do_loads_neither_proofs_nor_mqtt(enrolled: dict[str, str], device: Any) -> None:
    modules = loaded("run", status=0, environment=enrolled)
    assert not modules & (NEVER | {"jwt", "paho", "logging", "subprocess", "tempfile", "platform", "shutil"})
    assert not modules & {"enroll.mqtt", "enroll.keys.tpm", "enroll.keys.pkcs11", "urllib.request"}
    assert device.bridge.requests == []


def test_a_first_boot_loads_neither_proofs_nor_mqtt(enrolled: dict[str, str], tmp_path: Path) -> None:
    first = enrolled | {"CERTS_DIR": str(tmp_path / "another"), "DEVICE_ID": "dev-2"}
    modules = loaded("run", status=0, environment=first)
    assert not modules & (NEVER | {"jwt", "paho", "logging", "subprocess", "tempfile", "shutil", "stringprep"})


def test_a_renewal_pays_for_its_proof_and_no_more(enrolled: dict[str, str]) -> None:
    modules = loaded("renew", status=0, environment=enrolled)
    assert "jwt" in modules
    assert not modules & (NEVER | {"paho"})


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_nothing_of_the_agent_is_asynchronous_or_of_the_server_side(source: Path) -> None:
    named: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await)
        if isinstance(node, ast.Import):
            named |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named.add((node.module or "").partition(".")[0])
    assert not named & NEVER
