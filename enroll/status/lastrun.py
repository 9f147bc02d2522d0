"""How the last run ended, kept in RAM for people to see.

Responsible for one small file in ``ENROLL_RUN_DIR``, usually below ``/run``: no write to flash, gone with a reboot.
Not responsible for deciding anything: no decision of the agent reads it, and a run never fails because of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from enroll.errors import EXIT_DONE, EnrollError

NAME: Final = "last-run.json"
_MAX_READ: Final = 16 * 1024
_MAX_TEXT: Final = 1000
_MAX_STATUS: Final = 255


@dataclass(frozen=True, slots=True)
class LastRun:
    """One ended run."""

    at: datetime
    """By the agent's belief of the time; aware UTC."""
    exit_code: int
    code: str | None
    """``EnrollError.code``; ``None`` if all went well."""
    why: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object: ``at``, ``exit_code``, ``code``, ``why``."""
        at = self.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"at": at, "exit_code": self.exit_code, "code": self.code, "why": self.why}

    def sentence(self) -> str:
        """Return the same for a person."""
        how = "ended well" if self.code is None else f"ended with {self.code} (exit {self.exit_code}): {self.why}"
        return f"last run: {self.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} {how}"


def write(run_dir: Path | None, now: datetime, error: EnrollError | None) -> None:
    """Keep how a run ended; no folder, or one that cannot be written, is fine."""
    if run_dir is None:
        return
    status, code, why = (error.exit_code, error.code, str(error)) if error else (EXIT_DONE, None, None)
    content = json.dumps(LastRun(now, status, code, _flat(why)).to_json()).encode()
    beside = run_dir / f".{NAME}.{os.getpid()}"
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        beside.replace(run_dir / NAME)
    except OSError:
        return  # shown only


def read(run_dir: Path | None) -> LastRun | None:
    """Return how the last run ended; ``None`` if that is not known, or the file is not one of ours."""
    if run_dir is None:
        return None
    try:
        descriptor = os.open(run_dir / NAME, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            content = os.read(descriptor, _MAX_READ)
        finally:
            os.close(descriptor)
        return _parse(json.loads(content))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _parse(data: Mapping[str, Any]) -> LastRun | None:
    at, status, code, why = datetime.fromisoformat(data["at"]), data["exit_code"], data["code"], data["why"]
    texts = all(text is None or isinstance(text, str) for text in (code, why))
    if at.tzinfo is None or type(status) is not int or not 0 <= status <= _MAX_STATUS or not texts:
        return None
    return LastRun(at.astimezone(UTC), status, _flat(code), _flat(why))


def _flat(text: str | None) -> str | None:
    if text is None:
        return None
    return "".join(c if c.isprintable() else " " for c in text[:_MAX_TEXT])
