"""Who may come in: the question that policies answer, deny by default."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from bridge.model.facts import EnrollmentRequest
from bridge.model.records import Device, Window


@dataclass(frozen=True, slots=True)
class Candidate:
    """Someone at the door: what was asked, and what the registry holds on the id."""

    request: EnrollmentRequest
    device: Device | None
    window: Window | None
    """If given, it stands for the registration."""
    now: datetime


@dataclass(frozen=True, slots=True)
class Admitted:
    """Come in."""

    proven: bool
    """False where the bare id was all that was shown."""


class AdmissionPolicy(Protocol):
    """One rule for unknown, registered and re-enrolling devices."""

    @property
    def name(self) -> str:
        """The word that names it in ``BRIDGE_ADMISSION``."""
        ...

    def admit(self, candidate: Candidate) -> Admitted:
        """Let the candidate in. Pure: it looks at nothing but its argument.

        :raises bridge.errors.NotAdmitted: the door stays shut.
        :raises bridge.errors.VoucherRequired: a voucher is wanted and none, or a wrong one, was shown.
        """
        ...
