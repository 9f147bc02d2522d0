"""Ports of the embedded stack over a restart."""

import json
import socket
from pathlib import Path

import pytest

from bridge.adapters.remembered_ports import RememberedPorts


@pytest.fixture
def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_a_port_is_the_same_after_a_restart(tmp_path: Path, free: int) -> None:
    path = tmp_path / "ports.json"
    first = RememberedPorts(path)
    assert first.of("mqtt") == 0
    first.remember(mqtt=free)

    assert RememberedPorts(path).of("mqtt") == free
    assert RememberedPorts(path).of("hawkbit") == 0
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_port_that_is_taken_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    with socket.create_server(("127.0.0.1", 0)) as other:
        RememberedPorts(path).remember(mqtt=other.getsockname()[1])

        assert RememberedPorts(path).of("mqtt") == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '"x"', json.dumps({"mqtt": "1"}), json.dumps({"mqtt": 70000})])
def test_a_damaged_file_is_no_memory(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ports.json"
    path.write_text(content)

    assert RememberedPorts(path).of("mqtt") == 0
