"""What the registry knows, as frozen records. Rows never leave the store; these do.

Responsible for the vocabulary of states and for what can be read off a record alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address
from typing import Final

from bridge.model.identity import DeviceId, Fingerprint, Pem, Serial, WireGuardKey


class DeviceState(StrEnum):
    """The stored states of a device; ``retiring``, ``retired`` and ``reenrolling`` are derived."""

    REGISTERED = "registered"
    ACTIVE = "active"
    TOMBSTONE = "tombstone"


class IssuanceState(StrEnum):
    """Where an issuance stands.

    intent -> pending, current or revoking; pending -> current or revoking;
    current -> superseded -> revoking -> revoked.
    """

    INTENT = "intent"
    PENDING = "pending"
    CURRENT = "current"
    SUPERSEDED = "superseded"
    REVOKING = "revoking"
    REVOKED = "revoked"


LIVE_STATES: Final = frozenset({IssuanceState.INTENT, IssuanceState.PENDING, IssuanceState.CURRENT})
"""Issuance states that a tombstoned device can never have."""


class Kind(StrEnum):
    """Why a certificate is asked for."""

    FIRST = "first"
    REENROLL = "reenroll"
    RENEW = "renew"


class System(StrEnum):
    """The outside systems that are brought into agreement with the registry."""

    CA = "ca"
    THINGSBOARD = "thingsboard"
    HAWKBIT = "hawkbit"
    WIREGUARD = "wireguard"


class Wanted(StrEnum):
    """What a link should be. ``ca`` is always ``absent``: no serial left to revoke."""

    PRESENT = "present"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Device:
    """One row a device id."""

    id: DeviceId
    state: DeviceState
    epoch: int
    generation: int
    """Highest generation ever given; 0 before the first certificate."""
    proven: bool
    """False where the device was admitted by its bare id alone."""
    name: str | None
    type: str | None
    key_digest: Fingerprint | None
    """SHA-256 of the SPKI that the registration expects, if it names one."""
    voucher_hash: Fingerprint | None
    """SHA-256 of the registration's voucher; the voucher itself is not kept."""
    admission_expires_at: datetime | None
    registered: bool
    """True if an operator registered it; False if an open door let it in."""
    created_at: datetime
    first_connected_at: datetime | None


@dataclass(frozen=True, slots=True)
class Issuance:
    """One signing attempt and, later, its certificate."""

    serial: Serial
    device: DeviceId
    epoch: int
    generation: int
    kind: Kind
    spki: Fingerprint
    state: IssuanceState
    deadline: datetime
    """Until then the attempt is open, unless the CA refused it."""
    refused: bool
    wg_key: WireGuardKey | None
    leaf: Pem | None
    chain: Pem | None
    """Issuing CA first, then its issuers, without the root."""
    leaf_sha256: Fingerprint | None
    not_before: datetime | None
    not_after: datetime | None

    def with_state(self, state: IssuanceState) -> Issuance:
        """Return the same issuance in another state."""
        return replace(self, state=state)

    def is_open(self, now: datetime) -> bool:
        """True while a leaf for this attempt would still be taken."""
        return self.state is IssuanceState.INTENT and not self.refused and self.deadline > now


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """To whom a device key belongs, for ever."""

    device: DeviceId
    generation: int | None
    """``None`` until a certificate for the key was stored."""


@dataclass(frozen=True, slots=True)
class WireGuardKeyOwner:
    """Who holds a WireGuard key, as long as the lease or its quarantine lasts."""

    device: DeviceId
    generation: int


@dataclass(frozen=True, slots=True)
class Lease:
    """A VPN address held by a device id."""

    address: IPv4Address
    device: DeviceId
    wg_key: WireGuardKey | None
    """The peer's key; ``None`` until the first certificate is stored."""


@dataclass(frozen=True, slots=True)
class Window:
    """An operator's leave for one new identity of an active device."""

    device: DeviceId
    generation: int
    """The generation it was opened for: the one that will be replaced."""
    opened_by: str
    opened_at: datetime
    expires_at: datetime
    voucher_hash: Fingerprint | None
    key_digest: Fingerprint | None
    compromised: bool


@dataclass(frozen=True, slots=True)
class Link:
    """Where one device stands with one outside system."""

    device: DeviceId
    system: System
    wanted: Wanted
    settled_at: datetime | None
    """When agreement was last observed; ``None`` while it is outstanding."""
    foreign: bool
    next_at: datetime | None
    """When it is due next; ``None`` while nothing is to be done."""
    hints: int
    attempts: int
    last_error: str | None
    external_id: str | None
    claimed_by: str | None
    claimed_until: datetime | None


@dataclass(frozen=True, slots=True)
class Installation:
    """What this registry was made for; compared at each start."""

    id: str
    mode: str
    tenant: str
    root_sha256: Fingerprint
    issuing_sha256: tuple[Fingerprint, ...]
    """Trusted issuing CAs, oldest first; new leaves come from the last."""
