"""What a victim is told, and what it tells: values that go through pipes and files as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Outside:
    """The systems that outlive the victims, as the bridge is told of them."""

    ca_url: str
    ca_fingerprint: str
    ca_provisioner: str
    ca_password: str
    thingsboard_url: str
    hawkbit_url: str
    user: str
    password: str


@dataclass(frozen=True, slots=True)
class DeviceKeys:
    """What a device keeps over a death of the bridge: its requests are made from the same keys again."""

    csr_pem: str
    wg_key: str
    key_pem: str
    """The device's own, for its proofs."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One process: which scenario, on which files, and where it dies."""

    scenario: str
    device: str
    database: str
    """A path, or a URL."""
    folder: str
    """Of this point: journal, report, log and what is shared with the WireGuard server."""
    keys: tuple[DeviceKeys, ...]
    """The first identity's, and those that the device makes anew, one after the other."""
    recovering: bool = False
    die_at: int | None = None
    both_sides: bool = False
    """Die also where an effect begins and one has just ended: the same state, reached a moment later."""
    offset: float = 0.0
    """Seconds by which the use cases' clock is ahead of the host's when the process starts."""

    def line(self) -> str:
        """Return the plan as one line of JSON."""
        return json.dumps(asdict(self)) + "\n"

    @staticmethod
    def read(line: str) -> Plan:
        """Return the plan of a line."""
        fields = json.loads(line)
        return Plan(keys=tuple(DeviceKeys(**one) for one in fields.pop("keys")), **fields)

    @property
    def journal(self) -> Path:
        """Boundaries that were reached."""
        return Path(self.folder, "recovery.journal" if self.recovering else "victim.journal")

    @property
    def report(self) -> Path:
        """What a process that lived to its end saw."""
        return Path(self.folder, "recovery.json" if self.recovering else "victim.json")

    @property
    def log(self) -> Path:
        """Its standard error."""
        return Path(self.folder, "recovery.log" if self.recovering else "victim.log")


@dataclass(frozen=True, slots=True)
class Boundary:
    """One line of a journal."""

    offset: float
    label: str


def read_journal(path: Path) -> tuple[Boundary, ...]:
    """Return the boundaries that a process reached, in order."""
    if not path.exists():
        return ()
    lines = (line.split("\t") for line in path.read_text().splitlines())
    return tuple(Boundary(float(offset), label) for offset, label in lines)


Report = dict[str, Any]
"""Of a recovery: ``at_start`` and ``at_end`` (every table's rows), ``doors_at_start``, ``answers``, ``refusals``,
``crl``, ``outside``."""
