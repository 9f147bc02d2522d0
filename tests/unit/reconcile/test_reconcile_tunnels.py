"""WireGuard's door: only the report verifies, one writing serves many, an old report says nothing, a lease rests."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from ipaddress import IPv4Address
from typing import Any

import pytest

from bridge.model.records import System, Wanted
from bridge.ports.registry import Settlement
from bridge.ports.tunnels import Applied, Peer
from bridge.reconcile import tunnels
from bridge.reconcile.tunnels import TunnelsDoor

REST = timedelta(hours=2)


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnels, "_PATIENCE", 0.03)
    monkeypatch.setattr(tunnels, "_LOOK_EVERY", 0.005)


class Scene:
    def __init__(self, kit: Any, *, report: Applied | None = None, applies: bool = True, **picture: Any) -> None:
        self.kit, self.guard = kit, kit.guard()
        self.tunnels = kit.tunnels(report, applies)
        self.registry = kit.registry(**picture)
        self.registry.peer_list = (Peer(kit.id, kit.its_lease.wg_key, kit.its_lease.address),)
        self.registry.revision = report.revision if report else 0
        self.door = TunnelsDoor(self.registry, self.tunnels, kit.clock(), REST)

    async def agree(self, wanted: Wanted = Wanted.PRESENT, **link: Any) -> Settlement:
        return await self.door.agree(self.kit.claim(System.WIREGUARD, wanted, **link), self.guard)


def report(kit: Any, revision: int, *pairs: tuple[str, str]) -> Applied:
    return Applied(revision, frozenset((kit.wg(key), IPv4Address(address)) for key, address in pairs))


MINE = ("a", "10.8.0.7")


async def test_peer_that_the_report_shows_is_not_published_again(kit: Any) -> None:
    scene = Scene(kit, report=report(kit, 4, MINE, ("b", "10.8.0.8")))
    assert await scene.agree() == Settlement(kit.now, None)
    assert scene.tunnels.published == []


async def test_missing_peer_is_published_and_agreed_only_by_the_report(kit: Any) -> None:
    scene = Scene(kit, report=report(kit, 4))
    assert (await scene.agree()).settled_at == kit.now
    assert [revision for revision, _ in scene.tunnels.published] == [5]


async def test_what_was_published_but_not_reported_is_outstanding_and_says_what_to_check(kit: Any) -> None:
    scene = Scene(kit, report=report(kit, 4), applies=False)
    settled = await scene.agree()
    assert settled.settled_at is None
    assert "iot-bridge wireguard sync" in settled.error
    assert settled.external_id == "3:5"
    assert settled.next_at > kit.now


@pytest.mark.parametrize("pairs", [[("b", "10.8.0.7")], [("a", "10.8.0.8")], [MINE, ("b", "10.8.0.7")]])
async def test_address_under_another_key_or_under_two_is_no_agreement(kit: Any, pairs: list[tuple[str, str]]) -> None:
    scene = Scene(kit, report=report(kit, 4, *pairs), applies=False)
    assert (await scene.agree()).settled_at is None
    assert len(scene.tunnels.published) == 1


async def test_revision_that_is_on_its_way_is_waited_for_and_not_published_again(kit: Any) -> None:
    scene = Scene(kit, report=report(kit, 4), applies=False)
    assert (await scene.agree(external_id="3:7")).external_id == "3:7"
    assert scene.tunnels.published == []


async def test_revision_of_an_earlier_epoch_says_nothing_about_today(kit: Any) -> None:
    scene = Scene(kit, report=report(kit, 4), applies=False)
    assert (await scene.agree(external_id="2:7")).external_id == "3:5"
    assert len(scene.tunnels.published) == 1


async def test_many_that_are_due_share_one_writing(kit: Any) -> None:
    scene = Scene(kit, report=report(kit, 4))
    settled = await asyncio.gather(*(scene.agree() for _ in range(20)))
    assert all(one.settled_at for one in settled)
    assert len(scene.tunnels.published) <= 2


async def test_device_without_a_lease_asks_for_nothing(kit: Any) -> None:
    scene = Scene(kit, lease=None)
    assert await scene.agree() == await scene.agree(Wanted.ABSENT) == Settlement(kit.now, None)
    assert scene.tunnels.published == []


# -- cuts --------------------------------------------------------------------------------------------------------
async def test_lease_is_given_back_only_after_the_peer_was_reported_gone(kit: Any) -> None:
    scene = Scene(kit, device=kit.grave, report=report(kit, 4, MINE), applies=False)
    scene.registry.peer_list = ()
    settled = await scene.agree(Wanted.ABSENT)
    assert settled.settled_at is None
    assert scene.registry.written == []

    scene.tunnels.report = report(kit, 5)
    assert (await scene.agree(Wanted.ABSENT, external_id=settled.external_id)).settled_at == kit.now
    assert scene.registry.written == [("free", kit.now + REST)]
    assert len(scene.tunnels.published) == 1


async def test_old_report_without_the_peer_verifies_nothing(kit: Any) -> None:
    scene = Scene(kit, device=kit.grave, report=report(kit, 4), applies=False)
    scene.registry.peer_list = ()
    assert (await scene.agree(Wanted.ABSENT)).settled_at is None
    assert (await scene.agree(Wanted.ABSENT, external_id="3:5")).settled_at is None
    assert scene.registry.written == []


@pytest.mark.parametrize("left", [("a", "10.8.0.99"), ("b", "10.8.0.7")])
async def test_key_or_address_that_is_still_there_is_no_cut(kit: Any, left: tuple[str, str]) -> None:
    scene = Scene(kit, device=kit.grave, report=report(kit, 5, left), applies=False)
    assert (await scene.agree(Wanted.ABSENT, external_id="3:5")).settled_at is None
    assert len(scene.tunnels.published) == 1  # asked anew: the one that was asked for has not helped
    assert scene.registry.written == []


async def test_where_nobody_ever_reported_nothing_is_verified(kit: Any) -> None:
    for wanted in Wanted:
        scene = Scene(kit, device=kit.grave, applies=False)
        assert (await scene.agree(wanted)).settled_at is None


async def test_live_device_that_lost_its_key_keeps_its_lease(kit: Any) -> None:
    lease = replace(kit.its_lease, wg_key=None)
    scene = Scene(kit, lease=lease, report=report(kit, 4, MINE))
    scene.registry.peer_list = ()
    assert (await scene.agree(Wanted.ABSENT)).settled_at == kit.now
    assert scene.registry.written == []


@pytest.mark.parametrize(("wanted", "longest"), [(Wanted.ABSENT, 15), (Wanted.PRESENT, 60)])
async def test_outstanding_link_is_looked_at_again_within_bounds(kit: Any, wanted: Wanted, longest: int) -> None:
    device = kit.grave if wanted is Wanted.ABSENT else kit.device
    waits = []
    for attempts in (1, 2, 3, 50):
        scene = Scene(kit, device=device, report=report(kit, 4), applies=False)
        settled = await scene.agree(wanted, attempts=attempts, external_id="3:9")
        waits.append((settled.next_at - kit.now).total_seconds())
    assert waits == sorted(waits)
    assert waits[-1] == longest
