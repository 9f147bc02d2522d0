"""A small world of records for the decision table: one device, its keys, and whatever a row needs."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import Any

import pytest

from bridge.model.facts import Csr, EnrollmentRequest, Facts
from bridge.model.identity import DeviceId, Fingerprint, Pem, Serial, WireGuardKey
from bridge.model.records import (
    Device,
    DeviceState,
    Issuance,
    IssuanceState,
    KeyOwner,
    Kind,
    Lease,
    Window,
    WireGuardKeyOwner,
)

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class World:
    """Builds records that fit together; every part can be changed by name."""

    now: datetime = NOW
    name: str = "dev-1"

    def digest(self, text: str) -> Fingerprint:
        return Fingerprint.of(text.encode())

    def wg(self, text: str) -> WireGuardKey:
        return WireGuardKey(base64.b64encode(b"\x00" + hashlib.sha256(text.encode()).digest()[1:31] + b"\x11").decode())

    def csr(self, key: str = "new") -> Csr:
        return Csr(Pem(f"csr of {key}"), self.digest(f"csr {key}"), self.digest(f"key {key}"), b"csr", b"key")

    def request(self, key: str = "new", **changes: Any) -> EnrollmentRequest:
        return EnrollmentRequest(**({"device": DeviceId(self.name), "csr": self.csr(key)} | changes))

    def device(self, state: DeviceState = DeviceState.ACTIVE, **changes: Any) -> Device:
        made = Device(
            id=DeviceId(self.name),
            state=state,
            epoch=4,
            generation=0 if state is DeviceState.REGISTERED else 1,
            proven=False,
            name=None,
            type=None,
            key_digest=None,
            voucher_hash=None,
            admission_expires_at=None,
            registered=True,
            created_at=NOW,
            first_connected_at=None,
        )
        return replace(made, **changes)

    def issuance(self, key: str, state: IssuanceState = IssuanceState.CURRENT, **changes: Any) -> Issuance:
        signed = state is not IssuanceState.INTENT
        made = Issuance(
            serial=Serial((1 << 127) + len(key)),
            device=DeviceId(self.name),
            epoch=3,
            generation=1,
            kind=Kind.FIRST,
            spki=self.digest(f"key {key}"),
            state=state,
            deadline=NOW + timedelta(seconds=15),
            refused=False,
            wg_key=None,
            leaf=Pem(f"leaf of {key}") if signed else None,
            chain=Pem("chain") if signed else None,
            leaf_sha256=self.digest(f"leaf {key}") if signed else None,
            not_before=NOW - timedelta(days=10) if signed else None,
            not_after=NOW + timedelta(days=80) if signed else None,
        )
        return replace(made, **changes)

    def owner(self, name: str | None = None, generation: int | None = 1) -> KeyOwner:
        return KeyOwner(DeviceId(name or self.name), generation)

    def wg_owner(self, name: str | None = None, generation: int = 1) -> WireGuardKeyOwner:
        return WireGuardKeyOwner(DeviceId(name or self.name), generation)

    def window(self, **changes: Any) -> Window:
        made = Window(DeviceId(self.name), 1, "operator:x", NOW, NOW + timedelta(hours=1), None, None, False)
        return replace(made, **changes)

    def lease(self, key: WireGuardKey | None = None) -> Lease:
        return Lease(IPv4Address("10.8.0.7"), DeviceId(self.name), key)

    def facts(self, **changes: Any) -> Facts:
        nothing = Facts(NOW, None, None, None, None, None, None, None, None)
        return replace(nothing, **changes)

    def active(self, key: str = "old", **changes: Any) -> Facts:
        """Return what is known when a device comes back with another key than its current one."""
        return self.facts(**({"device": self.device(), "current": self.issuance(key)} | changes))

    def returning(self, stored: Issuance, **changes: Any) -> Facts:
        """Return what is known when a device comes with the key of a certificate that it has."""
        current = stored if stored.state is IssuanceState.CURRENT else None
        known = {
            "device": self.device(generation=stored.generation),
            "key_owner": self.owner(generation=stored.generation),
            "stored": stored,
            "current": current,
        }
        return self.facts(**(known | changes))


@pytest.fixture
def world() -> World:
    return World()
