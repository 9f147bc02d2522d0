"""What the folder says, for people and machines.

Responsible for ``iot-enroll status``: it reads the disk only, asks nobody, writes nothing, and tells no secret.
Not responsible for repairing anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from enroll.disk.files import read
from enroll.errors import EnrollError
from enroll.record import NAME, Record, RecordError


@dataclass(frozen=True, slots=True)
class Status:
    """The state on disk. ``enrolled`` means: the flag is there and every file it stands for holds today."""

    folder: str
    enrolled: bool
    why: str | None
    """What is missing or does not hold; ``None`` when enrolled."""
    facts: Mapping[str, Any]
    """``survey.summary()`` and the renewal; of a flag that does not hold, its id and generation; else empty."""

    def to_json(self) -> dict[str, Any]:
        """Return one flat JSON object."""
        return {"folder": self.folder, "enrolled": self.enrolled, "why": self.why, **self.facts}

    def sentences(self) -> list[str]:
        """Return the same for a person, a line each."""
        if not self.enrolled:
            return [f"not enrolled: {self.why} ({self.folder}). Next: iot-enroll run"]
        facts = self.facts
        broker = f"{facts['mqtt']['host']}:{facts['mqtt']['port']}" if facts["mqtt"] else "none"
        return [
            f"{facts['device_id']}: enrolled, generation {facts['generation']}, serial {facts['serial']}",
            f"certificate: {facts['not_before']} to {facts['not_after']}, renewal {facts['renewal']}",
            f"issued by: {' <- '.join(facts['issuer_chain'])}",
            f"VPN address: {facts['address'] or 'none'}",
            f"broker: {broker}",
        ]


class _Missing(EnrollError):
    """There is no flag that can be read; the text says so."""


def inspect(folder: Path, now: datetime) -> Status:
    """Read the folder.

    :param now: aware; a certificate out of its dates is not a valid enrollment, unless the clock shows a time
        that cannot be.
    :raises StorageError: a file cannot be read.
    """
    record: Record | None = None
    try:
        record = _record(folder)
        from enroll.status import standing  # noqa: PLC0415 - loads cryptography; a folder without a flag is told at once

        facts = standing.facts(folder, record, now)
    except EnrollError as e:
        known = {"device_id": record.device_id, "generation": record.generation} if record else {}
        return Status(str(folder), enrolled=False, why=str(e), facts=known)
    return Status(str(folder), enrolled=True, why=None, facts=facts)


def _record(folder: Path) -> Record:
    content = read(folder / NAME)
    if content is None:
        raise _Missing(f"there is no flag '{NAME}'")
    try:
        return Record.from_json(content)
    except RecordError as e:
        raise _Missing(f"the flag '{NAME}' {e}") from e
