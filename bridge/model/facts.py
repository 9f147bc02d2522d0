"""What the registry knows at one moment about an enrollment request, and what was decided.

Responsible for the values that the decision table reads and yields. The table itself is
:mod:`bridge.enrollment.decision`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bridge.model.identity import DeviceId, Fingerprint, Pem, Serial, WireGuardKey
from bridge.model.records import Device, Issuance, KeyOwner, Kind, Lease, Window, WireGuardKeyOwner


@dataclass(frozen=True, slots=True)
class Csr:
    """A PKCS#10 request whose own signature, subject and key were checked."""

    pem: Pem
    der_sha256: Fingerprint
    spki: Fingerprint
    """Digest of ``spki_der``: the name of the key in the registry."""
    der: bytes
    spki_der: bytes


@dataclass(frozen=True, slots=True)
class EnrollmentRequest:
    """One parsed request for a certificate."""

    device: DeviceId
    csr: Csr
    wg_key: WireGuardKey | None = None
    name: str | None = None
    type: str | None = None
    voucher_hash: Fingerprint | None = None
    inventory: Mapping[str, Any] | None = None
    proven_leaf: Fingerprint | None = None
    """Digest of the leaf whose key signed a proof for exactly this CSR; ``None`` without a valid proof."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the decision table may look at, read in one transaction."""

    now: datetime
    device: Device | None
    """By the id's folded spelling."""
    key_owner: KeyOwner | None
    """Of the request's public key."""
    stored: Issuance | None
    """The issuance of the request's public key that has a certificate."""
    attempt: Issuance | None
    """The device's issuance in state ``intent``, open or not."""
    current: Issuance | None
    window: Window | None
    """The device's window, if it is open and not expired."""
    lease: Lease | None
    """The device's own."""
    wg_owner: WireGuardKeyOwner | None
    """Who holds the request's WireGuard key in a lease, a quarantine or an attempt."""


@dataclass(frozen=True, slots=True)
class AnswerStored:
    """The certificate of this key exists: answer it again."""

    issuance: Issuance
    lease: Lease | None


@dataclass(frozen=True, slots=True)
class AwaitAttempt:
    """An attempt for this very key is open."""

    deadline: datetime


@dataclass(frozen=True, slots=True)
class Begin:
    """Start a signing attempt."""

    kind: Kind
    generation: int
    proven: bool


Decision = AnswerStored | AwaitAttempt | Begin
"""Refusals are raised as :class:`bridge.errors.Refused`."""


@dataclass(frozen=True, slots=True)
class LeafFacts:
    """What the registry knows of one leaf that somebody says is a device's."""

    now: datetime
    device: Device | None
    """By the id's folded spelling."""
    issuance: Issuance | None
    """The device's own of this leaf, whatever became of it."""
    attempt: Issuance | None
    """The device's issuance in state ``intent``, open or not."""
    lease: Lease | None


@dataclass(frozen=True, slots=True)
class Activate:
    """Make this pending certificate the current one, if the device is still at the epoch."""

    pending: Issuance
    epoch: int


@dataclass(frozen=True, slots=True)
class NewAttempt:
    """A signing attempt to be recorded before the CA is asked."""

    request: EnrollmentRequest
    kind: Kind
    generation: int
    proven: bool
    serial: Serial
    deadline: datetime
    now: datetime


@dataclass(frozen=True, slots=True)
class SignedLeaf:
    """A leaf that the CA returned and that passed every check."""

    serial: Serial
    """The leaf's own; differs from the attempt's only in profile ``plain``."""
    leaf: Pem
    chain: Pem
    """Issuing CA first, without the root."""
    leaf_sha256: Fingerprint
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Stored:
    """An attempt's certificate is in the registry, with what the answer needs."""

    issuance: Issuance
    lease: Lease | None
    window_used: bool = False
    """It used up an operator's window."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The attempt was no longer open: its leaf is recorded as ``revoking`` and must not be delivered."""

    serial: Serial
