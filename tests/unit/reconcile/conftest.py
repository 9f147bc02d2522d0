"""Strict fakes of what a door sees: a registry that holds one picture, outside systems that note each call."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import Any

import pytest

from bridge.errors import ForeignObject, SystemFailed
from bridge.model.identity import DeviceId, Fingerprint, Pem, Serial, WireGuardKey
from bridge.model.records import Device, DeviceState, Issuance, IssuanceState, Kind, Lease, Link, System, Wanted
from bridge.ports.platform import PlatformDevice
from bridge.ports.registry import Claim, Picture
from bridge.ports.tunnels import Applied, Peer
from bridge.ports.updates import UpdateTarget
from bridge.reconcile.door import ClaimLostError

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
ID = DeviceId("dev-1")


@dataclass
class HandClock:
    moment: datetime = NOW

    def now(self) -> datetime:
        return self.moment


def serial(number: int) -> Serial:
    return Serial((1 << 127) + number)


def wg(text: str) -> WireGuardKey:
    return WireGuardKey(base64.b64encode(hashlib.sha256(text.encode()).digest()[:31] + b"\x11").decode())


def issuance(name: str, state: IssuanceState = IssuanceState.CURRENT, **changes: Any) -> Issuance:
    made = Issuance(
        serial=serial(len(name)),
        device=ID,
        epoch=1,
        generation=1,
        kind=Kind.FIRST,
        spki=Fingerprint.of(name.encode()),
        state=state,
        deadline=NOW,
        refused=False,
        wg_key=None,
        leaf=Pem(name),
        chain=Pem("chain"),
        leaf_sha256=Fingerprint.of(name.encode()),
        not_before=NOW,
        not_after=NOW + timedelta(days=90),
    )
    return replace(made, **changes)


DEVICE = Device(ID, DeviceState.ACTIVE, 3, 1, False, "Pump", None, None, None, None, True, NOW, None)
GRAVE = replace(DEVICE, state=DeviceState.TOMBSTONE)
LEASE = Lease(IPv4Address("10.8.0.7"), ID, wg("a"))


@dataclass
class OnePicture:
    """A registry that knows one device; writes are written down."""

    picture: Picture | None
    written: list[tuple[Any, ...]] = field(default_factory=list)
    revision: int = 0
    peer_list: tuple[Peer, ...] = ()

    async def read(self, unit: Callable[[Any], Any]) -> Any:
        return unit(_Reader(self))

    async def write(self, unit: Callable[[Any], Any]) -> Any:
        return unit(_Writer(self))


class _Reader:
    def __init__(self, registry: OnePicture) -> None:
        self._registry = registry

    def picture(self, device: DeviceId) -> Picture | None:
        assert device == ID
        return self._registry.picture

    def peers(self) -> tuple[Peer, ...]:
        return self._registry.peer_list


class _Writer(_Reader):
    def mark_revoked(self, serials: tuple[Serial, ...], now: datetime) -> None:
        self._registry.written.append(("revoked", serials))

    def mark_connected(self, device: DeviceId, at: datetime, now: datetime) -> None:
        self._registry.written.append(("connected", at))

    def free_lease(self, device: DeviceId, free_at: datetime) -> None:
        self._registry.written.append(("free", free_at))

    def audit(self, entry: Any) -> None:
        self._registry.written.append(("audit", entry.action, dict(entry.detail)))

    def raise_peer_revision(self) -> int:
        self._registry.revision += 1
        return self._registry.revision


@dataclass
class FakeCa:
    listed: set[Serial] = field(default_factory=set)
    calls: list[Any] = field(default_factory=list)
    refuses: set[Serial] = field(default_factory=set)
    lists_at_once: bool = True
    crl_broken: bool = False

    async def revoke(self, number: Serial, reason: str) -> None:
        self.calls.append(number)
        if number in self.refuses:
            raise SystemFailed(f"no to {number}")
        if self.lists_at_once:
            self.listed.add(number)

    async def revoked(self) -> frozenset[Serial]:
        self.calls.append("crl")
        if self.crl_broken:
            raise SystemFailed("the CRL is stale")
        return frozenset(self.listed)


class FakePlatform:
    """ThingsBoard's traps: identical credentials throw the device out, so they are refused here."""

    def __init__(self) -> None:
        self.device: PlatformDevice | None = None
        self.shown: dict[str, Any] = {}
        self.calls: list[Any] = []
        self.taken_meanwhile = False
        self.comes_back = False

    @property
    def writes(self) -> list[Any]:
        return [call for call in self.calls if call[0] not in {"find", "attributes"}]

    async def find(self, name: DeviceId) -> PlatformDevice | None:
        self.calls.append(("find", name.value))
        return self.device

    async def create(self, name: DeviceId, label: str | None, leaf: Pem) -> PlatformDevice:
        self.calls.append(("create", name.value, label, leaf))
        assert self.device is None
        if self.taken_meanwhile:
            raise ForeignObject("taken")
        self.device = PlatformDevice("uuid-1", self.credential_of(leaf))
        return self.device

    async def put_leaf(self, device: PlatformDevice, leaf: Pem) -> None:
        self.calls.append(("put", leaf))
        assert self.device == device
        assert device.credential != self.credential_of(leaf), "identical credentials close the session"
        self.device = replace(device, credential=self.credential_of(leaf))

    async def lock_out(self, device: PlatformDevice) -> None:
        self.calls.append(("lock out",))
        assert self.device == device
        self.device = replace(device, credential=None)

    async def delete(self, device: PlatformDevice) -> None:
        self.calls.append(("delete",))
        assert self.device is not None
        assert self.device.credential is None, "locked out first"
        if not self.comes_back:
            self.device = None

    async def attributes(self, device: PlatformDevice, keys: tuple[str, ...]) -> dict[str, Any]:
        self.calls.append(("attributes",))
        assert self.device == device
        return {key: self.shown[key] for key in keys if key in self.shown}

    async def write_attributes(self, device: PlatformDevice, values: dict[str, Any]) -> None:
        self.calls.append(("write", dict(values)))
        assert values
        assert not values.items() <= self.shown.items(), "nothing differs"
        self.shown |= values

    def credential_of(self, leaf: Pem) -> str:
        return f"hash of {leaf}"


class FakeUpdates:
    def __init__(self) -> None:
        self.target: UpdateTarget | None = None
        self.calls: list[Any] = []
        self.comes_back = False
        self.answers_with: str | None = None

    @property
    def writes(self) -> list[Any]:
        return [call for call in self.calls if call[0] != "find"]

    async def find(self, device: DeviceId) -> UpdateTarget | None:
        self.calls.append(("find", device.value))
        return self.target

    async def create(self, device: DeviceId, name: str, description: str) -> UpdateTarget:
        self.calls.append(("create", device.value, name, description))
        assert self.target is None
        self.target = UpdateTarget(device.value, self.answers_with or description)
        return self.target

    async def delete(self, device: DeviceId) -> None:
        self.calls.append(("delete", device.value))
        if not self.comes_back:
            self.target = None


@dataclass
class FakeTunnels:
    """The folder; what is published is applied at once, never, or when the test says so."""

    report: Applied | None = None
    applies: bool = True
    published: list[tuple[int, frozenset[tuple[WireGuardKey, IPv4Address]]]] = field(default_factory=list)

    async def publish(self, revision: int, peers: tuple[Peer, ...]) -> None:
        self.published.append((revision, frozenset((peer.key, peer.address) for peer in peers)))
        if self.applies:
            self.report = Applied(*self.published[-1])

    async def applied(self) -> Applied | None:
        return self.report


class Guard:
    """Counts how often it was asked; the claim is lost from the chosen question on."""

    def __init__(self) -> None:
        self.asked, self.lost_at = 0, 1 << 30

    async def __call__(self) -> None:
        self.asked += 1
        if self.asked >= self.lost_at:
            raise ClaimLostError("lost")


@dataclass(frozen=True)
class Kit:
    """The builders, handed to tests by one fixture."""

    now: datetime = NOW
    id: DeviceId = ID
    device: Device = DEVICE
    grave: Device = GRAVE
    its_lease: Lease = LEASE
    wg: Callable[[str], WireGuardKey] = wg
    serial: Callable[[int], Serial] = serial
    issuance: Callable[..., Issuance] = issuance
    ca: Callable[..., FakeCa] = FakeCa
    platform: Callable[[], FakePlatform] = FakePlatform
    updates: Callable[[], FakeUpdates] = FakeUpdates
    tunnels: Callable[..., FakeTunnels] = FakeTunnels
    guard: Callable[[], Guard] = Guard
    clock: Callable[[], HandClock] = HandClock

    def picture(self, **changes: Any) -> Picture:
        made = Picture(self.device, issuance("new"), (Pem("old"), Pem("new")), (), (), self.its_lease)
        return replace(made, **changes)

    def registry(self, picture: Picture | None = None, **changes: Any) -> OnePicture:
        return OnePicture(picture if picture is not None else self.picture(**changes))

    def claim(self, system: System, wanted: Wanted = Wanted.PRESENT, **changes: Any) -> Claim:
        made = Link(ID, system, wanted, None, False, NOW, 0, 1, None, None, "me", NOW + timedelta(seconds=60))
        return Claim(replace(made, **changes), 3, "me", NOW + timedelta(seconds=60))


@pytest.fixture
def kit() -> Kit:
    return Kit()
