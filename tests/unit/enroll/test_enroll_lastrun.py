"""The last outcome, kept in RAM: shown, and in nobody's way."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enroll.errors import BrokerError
from enroll.status import lastrun

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    lastrun.write(tmp_path, NOW, None)
    last = lastrun.read(tmp_path)
    assert last is not None
    assert last.to_json() == {"at": "2026-01-02T03:04:05Z", "exit_code": 0, "code": None, "why": None}
    assert last.sentence() == "last run: 2026-01-02T03:04:05Z ended well"
    lastrun.write(tmp_path, NOW.astimezone(timezone(timedelta(hours=2))), BrokerError("mq:1: no\x1b[31m\nnot now"))
    last = lastrun.read(tmp_path)
    assert last is not None
    assert last.sentence() == "last run: 2026-01-02T03:04:05Z ended with broker (exit 75): mq:1: no [31m not now"
    assert [p.name for p in tmp_path.iterdir()] == [lastrun.NAME]
    assert stat.S_IMODE((tmp_path / lastrun.NAME).stat().st_mode) & 0o022 == 0


def test_no_folder_is_fine(tmp_path: Path) -> None:
    for folder in (None, tmp_path / "none"):
        lastrun.write(folder, NOW, None)
        assert lastrun.read(folder) is None
    (tmp_path / lastrun.NAME).mkdir()
    lastrun.write(tmp_path, NOW, None)
    assert lastrun.read(tmp_path) is None


def test_a_link_or_a_pipe_in_the_way_harms_nobody(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".{lastrun.NAME}.{os.getpid()}").symlink_to(victim)
    lastrun.write(tmp_path, NOW, None)
    assert victim.read_text() == "precious"
    os.mkfifo(tmp_path / lastrun.NAME)
    assert lastrun.read(tmp_path) is None


@pytest.mark.parametrize(
    "change",
    [{"at": "2026"}, {"at": 7}, {"at": "2026-01-02T03:04:05"}, {"at": "0001-01-01T00:00:00+23:00"}, {"exit_code": "0"},
     {"exit_code": True}, {"exit_code": 4000}, {"code": 1}, {"why": ["x"]}],
)  # fmt: skip
def test_what_is_not_ours_is_nothing(tmp_path: Path, change: dict[str, object]) -> None:
    good = {"at": "2026-01-02T03:04:05Z", "exit_code": 0, "code": None, "why": None}
    (tmp_path / lastrun.NAME).write_text(json.dumps(good))
    assert lastrun.read(tmp_path) is not None
    (tmp_path / lastrun.NAME).write_text(json.dumps(good | change))
    assert lastrun.read(tmp_path) is None


@given(st.binary(max_size=200))
def test_rubbish_is_nothing(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("run")
    (folder / lastrun.NAME).write_bytes(content)
    assert lastrun.read(folder) is None
    (folder / lastrun.NAME).write_bytes(b"[" * 100_000)
    assert lastrun.read(folder) is None
