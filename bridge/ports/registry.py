"""The registry: the one truth, behind transactions that cannot wait for anything outside.

A unit of work is a plain function on a :class:`Transaction`. It may be run more than once before its commit
counts (group commit, serialization conflicts), so it must have no effect but through the transaction.
All times are aware UTC. Device ids are matched by their folded spelling.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address
from typing import Any, Protocol, TypeVar

from bridge.model.facts import Activate, EnrollmentRequest, Facts, LeafFacts, Lost, NewAttempt, SignedLeaf, Stored
from bridge.model.identity import DeviceId, Fingerprint, Pem, Serial
from bridge.model.records import Device, DeviceState, Installation, Issuance, Lease, Link, System, Window
from bridge.ports.trail import Trail
from bridge.ports.tunnels import Peer

T = TypeVar("T")


class UnknownAttempt(LookupError):
    """Nothing is recorded of the attempt: never begun, or its id was abandoned and forgotten once it was revoked."""


@dataclass(frozen=True, slots=True)
class Registration:
    """An operator's word that a device may come."""

    device: DeviceId
    at: datetime
    key_digest: Fingerprint | None = None
    voucher_hash: Fingerprint | None = None
    expires_at: datetime | None = None
    name: str | None = None
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the audit trail: digests and names, never secrets or bodies."""

    at: datetime
    actor: str
    action: str
    device: DeviceId | None
    detail: Mapping[str, Any]
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on one link until a deadline, for the device as it was at ``epoch``."""

    link: Link
    """As it was when claimed."""
    epoch: int
    holder: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Settlement:
    """How work on a claim ended. The claim is given back with it."""

    settled_at: datetime | None
    """When agreement was observed; ``None`` if it was not."""
    next_at: datetime | None
    """When to look again; ``None`` for not before a hint or a change."""
    error: str | None = None
    foreign: bool = False
    external_id: str | None = None
    """``None`` leaves the stored one."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What an outside system should be told about a device, read in one transaction."""

    device: Device
    current: Issuance | None
    leaves: tuple[Pem, ...]
    """Every leaf the device ever had."""
    revoking: tuple[Serial, ...]
    unseen: tuple[Serial, ...]
    """Those of ``revoking`` whose leaf, if there ever was one, was never seen: attempts of unknown outcome."""
    lease: Lease | None


@dataclass(frozen=True, slots=True)
class Page:
    """Part of the list of devices, in order of the folded id."""

    devices: tuple[Device, ...]
    next_after: str | None
    """Folded id to go on after; ``None`` at the end."""


class Transaction(Trail, Protocol):
    """Operations inside one transaction. Each states what it guarantees; constraints hold it, not care."""

    # -- enrollment (hot) --------------------------------------------------------------------------------
    def facts(self, request: EnrollmentRequest, now: datetime) -> Facts:
        """Read what the decision table looks at."""
        ...

    def begin_attempt(self, attempt: NewAttempt) -> None:
        """Record the intent to have ``attempt.serial`` signed.

        Creates the device row (state ``registered``) if the id is new; raises its epoch; any earlier intent of the
        device becomes ``revoking`` and its ``ca`` link due; the key becomes the device's (no generation yet), so does
        the WireGuard key; an address is leased if a WireGuard key came and the device has none.

        :raises bridge.errors.PoolEmpty: no address is free; nothing was written.
        """
        ...

    def store_certificate(self, attempt: Serial, signed: SignedLeaf, now: datetime) -> Stored | Lost:
        """Take the leaf if its attempt is still open at the device's present epoch, else record it as ``revoking``.

        ``FIRST`` and ``REENROLL``: the certificate is current at once, an earlier current or pending one becomes
        ``revoking``, the device is ``active`` in the attempt's generation, its window is used up, the lease carries the
        attempt's WireGuard key (if it has one), and the links are due: ``thingsboard`` and, with a lease,
        ``wireguard`` now, ``ca`` now if anything is ``revoking``, ``hawkbit`` now if the device was seen connected
        before, else not before its first connect. ``RENEW``: pending; an earlier pending one becomes ``revoking``.
        The key's generation is set. Only links of systems that are switched on are written.

        :raises UnknownAttempt: nothing is recorded of it; nothing was written.
        """
        ...

    def leaf_facts(self, device: DeviceId, leaf: Fingerprint, now: datetime) -> LeafFacts:
        """Read what is known of a leaf of the device."""
        ...

    def activate(self, activation: Activate, now: datetime) -> Stored | None:
        """Make the pending certificate current by compare-and-swap; None, and nothing written, if the epoch moved.

        The epoch is raised, the current certificate is ``superseded``, an intent of the device is closed
        (``revoking``), and the ``thingsboard`` link is due; the others stay as they are. What is ``superseded`` becomes
        ``revoking``, ``ca`` link due, in the commit that settles the ``thingsboard`` link (or finds the object
        foreign) with ``settle``; here, where ThingsBoard is switched off.
        """
        ...

    def refuse_attempt(self, attempt: Serial) -> None:
        """Close an attempt that the CA refused; it becomes ``revoking`` later, by the next attempt or the sweep."""
        ...

    def forget_attempt(self, attempt: Serial) -> None:
        """Delete an intent whose request surely never left: no certificate of its serial can exist."""
        ...

    def sweep_attempts(self, now: datetime, limit: int) -> int:
        """Turn intents that are refused or past their deadline into ``revoking``, ``ca`` link due; return how many.

        The same with pending certificates that ended, and with superseded ones whose ``thingsboard`` link is gone.
        """
        ...

    # -- reading -----------------------------------------------------------------------------------------
    def device(self, device: DeviceId) -> Device | None:
        """Return the device by its folded id."""
        ...

    def devices(self, after: str | None, limit: int, state: DeviceState | None) -> Page:
        """Return at most ``limit`` devices whose folded id is greater than ``after``."""
        ...

    def issuances(self, device: DeviceId) -> tuple[Issuance, ...]:
        """Return all of the device, oldest first."""
        ...

    def links(self, device: DeviceId) -> tuple[Link, ...]:
        """Return all of the device."""
        ...

    def lease(self, device: DeviceId) -> Lease | None:
        """Return the device's lease."""
        ...

    def window(self, device: DeviceId, now: datetime) -> Window | None:
        """Return the device's open window."""
        ...

    def picture(self, device: DeviceId) -> Picture | None:
        """Read what the reconciler needs about a device."""
        ...

    # -- lifecycle ---------------------------------------------------------------------------------------
    def register(self, registration: Registration) -> bool:
        """Register a new id; return False if the id is known (nothing is changed)."""
        ...

    def open_window(self, window: Window) -> bool:
        """Open a window for an active device, replacing an open one; False if it is not active in that generation."""
        ...

    def tombstone(self, device: DeviceId, now: datetime) -> bool:
        """Retire the device in one step; return False if it is unknown or already a tombstone.

        Raises the epoch; every intent, pending, current and superseded issuance becomes ``revoking``; every link is
        wanted ``absent``, unsettled and due now (also of a claimed link); windows are closed.
        """
        ...

    def reinstate(self, device: DeviceId, now: datetime) -> bool:
        """Turn a tombstone into ``registered``, its epoch raised, by bare id; False if it is none."""
        ...

    def abandon(self, device: DeviceId, now: datetime) -> bool:
        """Forget an id that never got a certificate; False if it is unknown, got one, or is a tombstone.

        Its address goes into quarantine until ``now`` plus the store's quarantine (no peer was ever published). Intents
        become ``revoking``; the rows of an id with anything left to revoke are kept until that is done, with the
        registration taken back, and deleted by the sweep.
        """
        ...

    # -- outside systems ---------------------------------------------------------------------------------
    def claim_due(self, system: System, holder: str, now: datetime, until: datetime, limit: int) -> tuple[Claim, ...]:
        """Claim links of the system that are due and unclaimed (or whose claim ended), in one statement.

        Cuts come first, then the longest due. Each claim counts as one more attempt.
        """
        ...

    def claim_holds(self, claim: Claim, now: datetime) -> bool:
        """Tell whether the claim is still ours and the device still at its epoch."""
        ...

    def settle(self, claim: Claim, settlement: Settlement, now: datetime) -> bool:
        """Write the result and give the claim back; False (and due again at once) if it was lost, or the epoch moved.

        The hints that the claim saw are used up when agreement was observed; if more came since, the link is due again
        at once. Attempts count from 0 again when agreement was observed.
        """
        ...

    def next_due(self, system: System) -> datetime | None:
        """Return when the system's earliest link is due and not claimed."""
        ...

    def hint(self, devices: Sequence[DeviceId], now: datetime) -> int:
        """Make the ``thingsboard`` and ``hawkbit`` links of active devices due now, one hint more.

        Return how many of the devices are known.
        """
        ...

    def mark_connected(self, device: DeviceId, at: datetime, now: datetime) -> None:
        """Remember the first observed connect; ``hawkbit`` and ``thingsboard`` are due. Later calls change nothing."""
        ...

    def mark_revoked(self, serials: Sequence[Serial], now: datetime) -> None:
        """``revoking`` -> ``revoked``, for serials seen on the CRL."""
        ...

    def raise_peer_revision(self) -> int:
        """Raise the revision of the peer set by one and return it.

        A set that is read after this commit holds everything that was committed before it.
        """
        ...

    def peers(self) -> tuple[Peer, ...]:
        """Return every peer that is wanted now, in order of address. Reads the whole fleet: not for a writing unit."""
        ...

    def free_lease(self, device: DeviceId, free_at: datetime) -> None:
        """End the lease of a tombstoned id whose peer was seen gone; others may have it from ``free_at`` on."""
        ...

    def forget_links(self, systems: Collection[System]) -> None:
        """Delete every link to systems that are switched off: nothing is wanted of them, and nobody works on them.

        What was made there is recognised again by its own marks when the system is switched on again.
        """
        ...

    # -- installation and audit --------------------------------------------------------------------------
    def installation(self) -> Installation | None:
        """Return the installation row."""
        ...

    def install(self, installation: Installation, first: IPv4Address, last: IPv4Address, now: datetime) -> None:
        """Write the installation row and the address pool, once."""
        ...

    def adopt_pool(self, first: IPv4Address, last: IPv4Address) -> bool:
        """Make the address pool this one; False, and nothing changed, if an address outside of it was ever leased."""
        ...

    def trust_issuer(self, issuing: Fingerprint, now: datetime) -> bool:
        """Trust leaves of one more issuing CA, the newest; False if it was trusted before."""
        ...

    def audit(self, entry: Entry) -> None:
        """Append to the audit trail."""
        ...


class Registry(Protocol):
    """Runs units of work, each in a transaction of its own, off the event loop."""

    async def write(self, unit: Callable[[Transaction], T]) -> T:
        """Run the unit and commit it durably before returning. If it raises, nothing of it is kept.

        :raises bridge.errors.StoreUnavailable: the database did not take it (locked, full, gone).
        """
        ...

    async def read(self, unit: Callable[[Transaction], T]) -> T:
        """Run a unit that writes nothing.

        :raises bridge.errors.StoreUnavailable: the database does not answer.
        """
        ...

    async def changed(self, seconds: float) -> bool:
        """Wait until any process may have committed something, at most ``seconds``; True if so."""
        ...
