"""Operators' orders over a real registry: each is one transaction with its audit entry, or nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from bridge.lifecycle.service import Lifecycle, OrderRefused, WindowTerms
from bridge.lifecycle.view import ShownState
from bridge.model.facts import Csr, EnrollmentRequest, NewAttempt, SignedLeaf
from bridge.model.identity import DeviceId, Fingerprint, Pem, Serial
from bridge.model.records import DeviceState, Installation, IssuanceState, Kind, System, Wanted
from bridge.ports.registry import Settlement
from bridge.store.open import RegistryStore, open_registry

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
ID = DeviceId("dev-1")


@dataclass
class HandClock:
    moment: datetime = NOW

    def now(self) -> datetime:
        return self.moment


@dataclass
class Office:
    registry: RegistryStore
    clock: HandClock
    orders: Lifecycle
    serials: int = 0

    async def begin(self, device: DeviceId = ID, kind: Kind = Kind.FIRST, generation: int = 1) -> Serial:
        self.serials += 1
        number = Serial((1 << 127) + self.serials)
        key = Fingerprint.of(str(number).encode())
        request = EnrollmentRequest(device, Csr(Pem("csr"), key, key, b"", b""))
        now = self.clock.now()
        attempt = NewAttempt(request, kind, generation, False, number, now + timedelta(seconds=15), now)
        await self.registry.write(lambda tx: tx.begin_attempt(attempt))
        return number

    async def enroll(self, device: DeviceId = ID, kind: Kind = Kind.FIRST, generation: int = 1) -> Serial:
        number = await self.begin(device, kind, generation)
        digest = Fingerprint.of(str(number).encode())
        leaf = SignedLeaf(number, Pem("leaf"), Pem("chain"), digest, NOW, NOW + timedelta(days=90))
        await self.registry.write(lambda tx: tx.store_certificate(number, leaf, self.clock.now()))
        return number

    async def shut_every_door(self) -> None:
        """Do what the reconciler does, for every system."""
        view = await self.orders.show(ID)
        serials = [one.serial for one in view.issuances]
        await self.registry.write(lambda tx: tx.mark_revoked(serials, self.clock.now()))
        for system in System:
            await self.shut(system)

    async def shut(self, system: System) -> None:
        now = self.clock.now()
        claims = await self.registry.write(lambda tx: tx.claim_due(system, "me", now, now + timedelta(60), 10))
        for claim in claims:
            await self.registry.write(lambda tx, c=claim: tx.settle(c, Settlement(now, None), now))

    async def audited(self) -> list[tuple[str, str | None, dict[str, Any]]]:
        with self.registry.engine.connect() as connection:
            rows = connection.execute(text("SELECT actor, action, device, detail FROM audit ORDER BY id")).all()
        assert {row[0] for row in rows} <= {"operator:ann"}
        return [(row[1], row[2], json.loads(row[3])) for row in rows]


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    store = await open_registry(
        tmp_path / "registry.db", systems=frozenset(System), quarantine=timedelta(hours=1), migrate=True
    )
    root = Fingerprint.of(b"root")
    installation = Installation("inst", "embedded", "tenant", root, (root,))
    first, last = IPv4Address("10.8.0.2"), IPv4Address("10.8.0.9")
    await store.write(lambda tx: tx.install(installation, first, last, NOW))
    clock = HandClock()
    yield Office(store, clock, Lifecycle(store, clock, "operator:ann"))
    await store.close()


async def test_registration_lets_a_device_come_and_is_written_down(office: Office) -> None:
    voucher = Fingerprint.of(b"PROV-AAAA-BBBB")
    await office.orders.register(ID, voucher_hash=voucher, lasts=timedelta(days=1), name="Pump", type="pump")
    view = await office.orders.show(ID)

    assert view.state(NOW) is ShownState.REGISTERED
    assert view.device.voucher_hash == voucher
    assert view.device.admission_expires_at == NOW + timedelta(days=1)
    assert (view.device.name, view.device.type, view.device.registered) == ("Pump", "pump", True)
    assert await office.audited() == [("device.registered", "dev-1", {})]


@pytest.mark.parametrize("again", ["dev-1", "DEV-1"])
async def test_id_is_registered_once_in_whatever_spelling(office: Office, again: str) -> None:
    await office.orders.register(ID)
    with pytest.raises(OrderRefused, match="known already"):
        await office.orders.register(DeviceId(again))
    assert len(await office.audited()) == 1


@pytest.mark.parametrize(
    "order",
    [
        lambda orders: orders.decommission(ID, None),
        lambda orders: orders.open_window(ID, WindowTerms()),
        lambda orders: orders.reinstate(ID),
        lambda orders: orders.abandon(ID),
        lambda orders: orders.show(ID),
    ],
    ids=["decommission", "re-enroll", "reinstate", "abandon", "show"],
)
async def test_order_for_an_unknown_id_is_refused_and_not_written_down(
    office: Office, order: Callable[[Lifecycle], Awaitable[Any]]
) -> None:
    with pytest.raises(OrderRefused) as refused:
        await order(office.orders)
    assert "iot-bridge device show" in refused.value.advice
    assert await office.audited() == []


async def test_decommission_is_at_once_in_the_registry_and_an_order_to_every_system(office: Office) -> None:
    await office.orders.register(ID)
    serial = await office.enroll()
    await office.orders.decommission(ID, "stolen")
    view = await office.orders.show(ID)

    assert view.state(NOW) is ShownState.RETIRING
    assert view.outstanding() == ("ca", "hawkbit", "thingsboard", "wireguard")
    assert {link.wanted for link in view.links} == {Wanted.ABSENT}
    assert [one.state for one in view.issuances] == [IssuanceState.REVOKING]
    assert [one.serial for one in view.issuances] == [serial]
    assert (await office.audited())[-1] == ("device.decommissioned", "dev-1", {"reason": "stolen"})


async def test_decommission_again_and_in_another_spelling_changes_nothing(office: Office) -> None:
    await office.orders.register(ID)
    await office.orders.decommission(DeviceId("DEV-1"), None)
    before = (await office.orders.show(ID)).device
    await office.orders.decommission(ID, "again")
    assert (await office.orders.show(ID)).device == before
    assert [action for action, _, _ in await office.audited()] == ["device.registered", "device.decommissioned"]
    assert (await office.audited())[-1][1] == "dev-1"


async def test_device_is_retired_only_when_every_door_was_seen_shut(office: Office) -> None:
    await office.orders.register(ID)
    await office.enroll()
    await office.orders.decommission(ID, None)
    left = set(System)
    for system in System:
        assert (await office.orders.show(ID)).state(NOW) is ShownState.RETIRING
        await office.shut(system)
        left.discard(system)
        assert set((await office.orders.show(ID)).outstanding()) == {one.value for one in left}
    assert (await office.orders.show(ID)).state(NOW) is ShownState.RETIRED


async def test_only_the_retired_are_reinstated_and_no_window_is_opened(office: Office) -> None:
    await office.orders.register(ID)
    with pytest.raises(OrderRefused, match="registered; only a retired"):
        await office.orders.reinstate(ID)
    await office.enroll()
    with pytest.raises(OrderRefused, match="active; only a retired"):
        await office.orders.reinstate(ID)
    await office.orders.decommission(ID, None)
    with pytest.raises(OrderRefused, match="retiring; only a retired"):
        await office.orders.reinstate(ID)
    await office.shut_every_door()
    await office.orders.reinstate(ID)
    view = await office.orders.show(ID)

    assert view.state(NOW) is ShownState.REGISTERED
    assert view.window is None
    assert view.device.generation == 1
    assert [action for action, _, _ in await office.audited()].count("device.reinstated") == 1


async def test_window_is_for_the_active_and_names_who_opened_it(office: Office) -> None:
    await office.orders.register(ID)
    with pytest.raises(OrderRefused, match="only an active device"):
        await office.orders.open_window(ID, WindowTerms())
    await office.enroll()
    window = await office.orders.open_window(ID, WindowTerms(key_digest=Fingerprint.of(b"k"), compromised=True))

    assert window.expires_at == NOW + timedelta(hours=1)
    assert (window.opened_by, window.generation, window.compromised) == ("operator:ann", 1, True)
    assert (await office.orders.show(ID)).window == window
    office.clock.moment = window.expires_at
    assert (await office.orders.show(ID)).window is None
    await office.orders.decommission(ID, None)
    with pytest.raises(OrderRefused):
        await office.orders.open_window(ID, WindowTerms())


async def test_device_with_its_window_taken_is_reenrolling_until_the_attempt_is_over(office: Office) -> None:
    await office.orders.register(ID)
    await office.enroll()
    await office.orders.open_window(ID, WindowTerms())
    assert (await office.orders.show(ID)).state(NOW) is ShownState.ACTIVE
    await office.begin(kind=Kind.REENROLL, generation=2)
    view = await office.orders.show(ID)
    assert view.state(NOW) is ShownState.REENROLLING
    assert view.state(NOW + timedelta(seconds=15)) is ShownState.ACTIVE


async def test_only_an_id_without_a_certificate_is_abandoned(office: Office) -> None:
    await office.orders.register(ID)
    await office.orders.abandon(DeviceId("DEV-1"))
    assert (await office.audited())[-1] == ("device.abandoned", "dev-1", {})
    with pytest.raises(OrderRefused):
        await office.orders.show(ID)
    await office.orders.register(ID)
    await office.enroll()
    with pytest.raises(OrderRefused, match="use decommission"):
        await office.orders.abandon(ID)


async def test_list_is_in_pages_and_by_state(office: Office) -> None:
    names = [f"dev-{number}" for number in range(5)]
    for name in names:
        await office.orders.register(DeviceId(name))
    await office.enroll(DeviceId("dev-2"))
    first = await office.orders.page(None, 3, None)
    rest = await office.orders.page(first.next_after, 3, None)
    assert [device.id.value for device in first.devices + rest.devices] == names
    assert rest.next_after is None
    active = await office.orders.page(None, 3, DeviceState.ACTIVE)
    assert [device.id.value for device in active.devices] == ["dev-2"]


async def test_leaf_that_comes_after_retirement_makes_it_outstanding_again(office: Office) -> None:
    await office.orders.register(ID)
    late = await office.begin()
    await office.orders.decommission(ID, None)
    await office.shut_every_door()
    assert (await office.orders.show(ID)).state(NOW) is ShownState.RETIRED
    leaf = SignedLeaf(
        Serial(late.value + 1000), Pem("leaf"), Pem("chain"), Fingerprint.of(b"leaf"), NOW, NOW + timedelta(days=1)
    )
    await office.registry.write(lambda tx: tx.store_certificate(late, leaf, NOW))
    view = await office.orders.show(ID)
    assert view.outstanding() == ("ca",)
    assert view.state(NOW) is ShownState.RETIRING
