"""What a device's process is told, and what it tells: values that go through pipes and files as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Loss:
    """What a loss of power does to what was not yet synced."""

    keep: tuple[int, ...]
    """Which of the changes of names, in their order, reached the medium; the others are as if they had not been."""
    content: str
    """What unsynced files hold: ``whole``, ``half`` of it, ``zero`` octets, or nothing (``empty``)."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A disk that refuses."""

    at: int
    """The first effect on the disk that fails, counted among those alone."""
    number: int
    """``errno``."""
    lasting: bool
    """Whether the disk goes on refusing until the process ends."""


@dataclass(frozen=True, slots=True)
class Order:
    """One process of one device: what it does, and where it dies."""

    folder: str
    device: str
    bridge: str
    pin: str
    act: str = "run"
    """``run``, ``renew`` or ``reset``; ``stray`` has an effect that goes around everything that is counted."""
    issuer: str | None = None
    """The second pin: the issuing CA's SHA-256."""
    budget: float = 30.0
    outfit: bool = True
    """Whether it also has a tunnel to bring up and an update client to configure."""
    preparing: bool = False
    """What comes before the story: the broker is not asked, which takes time."""
    die_at: int | None = None
    loss: Loss | None = None
    during: float | None = None
    """Die within the effect that begins at ``die_at``, so many seconds after its begin."""
    refusal: Refusal | None = None
    study: bool = False
    """Also find out what a loss of power could leave behind at each boundary, and whether an effect goes uncounted."""

    def line(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    @staticmethod
    def read(line: str) -> Order:
        told = json.loads(line)
        loss, refusal = told.pop("loss"), told.pop("refusal")
        return Order(
            loss=Loss(tuple(loss["keep"]), loss["content"]) if loss else None,
            refusal=Refusal(**refusal) if refusal else None,
            **told,
        )

    @property
    def case(self) -> Case:
        return Case(Path(self.folder))


@dataclass(frozen=True, slots=True)
class Case:
    """The files of one case. Only ``flash`` is the device's; the rest is the observer's."""

    folder: Path

    @property
    def flash(self) -> Path:
        return self.folder / "flash"

    @property
    def certs(self) -> Path:
        return self.flash / "certs"

    @property
    def networkd(self) -> Path:
        return self.flash / "networkd"

    @property
    def updaters(self) -> Path:
        return self.flash / "updaters"

    @property
    def interface(self) -> Path:
        """Is there as long as the machine has the VPN interface."""
        return self.folder / "interface"

    @property
    def rtc(self) -> Path:
        """Seconds by which the device's clock is wrong."""
        return self.folder / "rtc"

    @property
    def cache(self) -> Path:
        """What of the flash is not yet on the medium: it outlives a process, and not a loss of power."""
        return self.folder / "cache.pickle"

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    @property
    def report(self) -> Path:
        return self.folder / "report.json"

    @property
    def log(self) -> Path:
        return self.folder / "log"


@dataclass(frozen=True, slots=True)
class Boundary:
    """The begin of an effect, which is the end of the one before; the last one is the end of the run."""

    label: str
    new: bool = True
    """Whether a process that is killed here leaves something that none leaves which is killed earlier."""
    losses: tuple[Loss, ...] = ()
    """Each leaves something else behind, that no earlier boundary leaves behind too."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a process that lived to its end saw."""

    code: int
    error: str
    events: list[dict[str, Any]] = field(default_factory=list)
    boundaries: tuple[Boundary, ...] = ()
    uncounted: tuple[str, ...] = ()
    """Effects outside of everything that is counted."""

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), default=str))

    @staticmethod
    def read(path: Path) -> Report:
        told = json.loads(path.read_text())
        boundaries = tuple(
            Boundary(
                one["label"], one["new"], tuple(Loss(tuple(loss["keep"]), loss["content"]) for loss in one["losses"])
            )
            for one in told.pop("boundaries")
        )
        return Report(boundaries=boundaries, uncounted=tuple(told.pop("uncounted")), **told)

    def event(self, name: str) -> dict[str, Any] | None:
        return next((one for one in reversed(self.events) if one["event"] == name), None)
