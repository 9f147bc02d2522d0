"""ThingsBoard's door: looks before it writes, writes only a difference, leaves what is foreign alone, cuts in order."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bridge.errors import ForeignObject, SystemFailed
from bridge.model.records import System, Wanted
from bridge.ports.platform import PlatformDevice
from bridge.ports.registry import Settlement
from bridge.reconcile.door import ClaimLostError
from bridge.reconcile.platform import PlatformDoor

OURS = {"iot_bridge": "inst"}


class Scene:
    def __init__(self, kit: Any, **picture: Any) -> None:
        self.kit, self.platform, self.guard = kit, kit.platform(), kit.guard()
        self.registry, self.clock = kit.registry(**picture), kit.clock()
        self.door = PlatformDoor(self.registry, self.platform, self.clock, "inst")

    def there(self, credential: str | None = "hash of new", **attributes: Any) -> None:
        self.platform.device = PlatformDevice("uuid-1", credential)
        self.platform.shown = attributes

    async def agree(self, wanted: Wanted = Wanted.PRESENT, **link: Any) -> Settlement:
        return await self.door.agree(self.kit.claim(System.THINGSBOARD, wanted, **link), self.guard)


def seconds(scene: Scene, settlement: Settlement) -> float:
    return (settlement.next_at - scene.clock.now()).total_seconds()


# -- live devices ------------------------------------------------------------------------------------------------
async def test_missing_device_is_made_with_its_leaf_and_our_mark(kit: Any) -> None:
    scene = Scene(kit)
    settled = await scene.agree()
    assert scene.platform.writes == [("create", "dev-1", "Pump", "new"), ("write", OURS)]
    assert settled.settled_at == kit.now
    assert settled.external_id == "uuid-1"
    assert scene.guard.asked == 2


async def test_device_in_agreement_is_only_looked_at(kit: Any) -> None:
    scene = Scene(kit)
    scene.there(**OURS)
    for _ in range(3):
        await scene.agree()
    assert scene.platform.writes == []
    assert scene.guard.asked == 0


async def test_second_look_writes_nothing(kit: Any) -> None:
    scene = Scene(kit, device=replace(kit.device, first_connected_at=kit.now))
    await scene.agree()
    written = len(scene.platform.writes)
    await scene.agree()
    assert len(scene.platform.writes) == written


@pytest.mark.parametrize("credential", ["hash of old", None, "a stranger's"])
async def test_current_leaf_replaces_whatever_opens_our_device(kit: Any, credential: str | None) -> None:
    scene = Scene(kit)
    scene.there(credential, **OURS)
    await scene.agree()
    assert scene.platform.writes == [("put", "new")]
    assert scene.platform.device.credential == "hash of new"


@pytest.mark.parametrize(
    ("credential", "attributes", "external_id"),
    [
        ("hash of old", {}, None),
        ("hash of new", {}, None),
        ("other", {"iot_bridge": "inst"}, None),
        ("other", {}, "uuid-1"),
        (None, {"iot_bridge": "another installation"}, "uuid-1"),
    ],
    ids=["an earlier leaf", "the current leaf", "our mark", "the stored uuid", "the stored uuid with another's mark"],
)
async def test_ours_is_what_carries_a_sign_of_us(
    kit: Any, credential: str | None, attributes: dict[str, Any], external_id: str | None
) -> None:
    scene = Scene(kit)
    scene.there(credential, **attributes)
    settled = await scene.agree(external_id=external_id)
    assert not settled.foreign
    assert scene.platform.device.credential == "hash of new"
    assert scene.platform.shown["iot_bridge"] == "inst"


@pytest.mark.parametrize(
    ("attributes", "external_id"),
    [({}, None), ({"iot_bridge": "another"}, None), ({"iot_bridge": None}, None), ({}, "uuid-of-an-earlier-one")],
)
async def test_foreign_device_is_shown_and_never_touched(
    kit: Any, attributes: dict[str, Any], external_id: str | None
) -> None:
    scene = Scene(kit)
    scene.there("other", lastConnectTime=1_700_000_000_000, **attributes)
    settled = await scene.agree(external_id=external_id)
    assert settled.foreign
    assert settled.settled_at is None
    assert "did not make" in settled.error
    assert settled.external_id is None
    assert seconds(scene, settled) == 600
    assert scene.platform.writes == []
    assert scene.registry.written == []


async def test_name_taken_between_look_and_creation_is_left_to_the_next_look(kit: Any) -> None:
    scene = Scene(kit)
    scene.platform.taken_meanwhile = True
    with pytest.raises(ForeignObject):
        await scene.agree()


async def test_nothing_is_admitted_without_a_current_certificate(kit: Any) -> None:
    scene = Scene(kit, current=None)
    settled = await scene.agree()
    assert settled.settled_at is None
    assert scene.platform.calls == []


async def test_unknown_device_asks_for_nothing(kit: Any) -> None:
    scene = Scene(kit)
    scene.registry.picture = None
    assert await scene.agree() == Settlement(kit.now, None)
    assert scene.platform.calls == []


# -- the first connect -------------------------------------------------------------------------------------------
CONNECTED = 1_777_636_000_000


async def test_connect_whose_webhook_was_lost_is_read_back(kit: Any) -> None:
    scene = Scene(kit)
    scene.there(lastConnectTime=CONNECTED, **OURS)
    settled = await scene.agree()
    assert [kind for kind, _ in scene.registry.written] == ["connected"]
    assert scene.registry.written[0][1].timestamp() * 1000 == CONNECTED
    assert scene.platform.writes == [("write", {"wireguard_ip": "10.8.0.7"})]
    assert settled == Settlement(kit.now, None, external_id="uuid-1")


@pytest.mark.parametrize("value", [0, -1, None, "1777636000000", True, 1.5, [], {}, "soon"])
async def test_what_is_no_time_is_no_connect(kit: Any, value: Any) -> None:
    scene = Scene(kit)
    scene.there(lastConnectTime=value, **OURS)
    await scene.agree()
    assert scene.registry.written == []


@pytest.mark.parametrize("value", [10**14, 10**18, 10**40])
async def test_time_that_cannot_be_is_now_and_breaks_nothing(kit: Any, value: int) -> None:
    scene = Scene(kit)
    scene.there(lastConnectTime=value, **OURS)
    await scene.agree()
    assert scene.registry.written == [("connected", kit.now)]


async def test_address_is_written_only_once_connected_and_only_where_there_is_a_peer(kit: Any) -> None:
    scene = Scene(kit)
    await scene.agree()
    assert "wireguard_ip" not in scene.platform.shown
    for lease in (None, replace(kit.its_lease, wg_key=None)):
        scene = Scene(kit, device=replace(kit.device, first_connected_at=kit.now), lease=lease)
        await scene.agree()
        assert scene.platform.shown == OURS


async def test_connected_device_is_left_in_peace(kit: Any) -> None:
    scene = Scene(kit, device=replace(kit.device, first_connected_at=kit.now))
    assert (await scene.agree(hints=3)).next_at is None


async def test_hint_that_nothing_confirms_is_looked_at_a_few_times_and_then_used_up(kit: Any) -> None:
    scene = Scene(kit)
    scene.there(**OURS)
    for attempt in (1, 4):
        settled = await scene.agree(hints=1, attempts=attempt)
        assert settled.settled_at is None
        assert settled.error is None
        assert seconds(scene, settled) == 1
    settled = await scene.agree(hints=1, attempts=5)
    assert settled.settled_at == kit.now
    assert seconds(scene, settled) == 60


@pytest.mark.parametrize(("age", "wait"), [(0, 60), (600, 60), (6000, 600), (36_000, 3600), (10**7, 3600)])
async def test_device_that_never_came_is_looked_at_ever_more_rarely(kit: Any, age: int, wait: int) -> None:
    scene = Scene(kit)
    scene.there(**OURS)
    scene.clock.moment = kit.now + timedelta(seconds=age)
    assert seconds(scene, await scene.agree()) == wait


# -- retired devices ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("credential", ["hash of new", "a stranger's", None])
async def test_cut_locks_out_then_deletes_then_looks_again_whoever_made_it(kit: Any, credential: str | None) -> None:
    scene = Scene(kit, device=kit.grave, current=None)
    scene.there(credential)
    assert await scene.agree(Wanted.ABSENT) == Settlement(kit.now, None)
    assert [call[0] for call in scene.platform.calls] == ["find", "lock out", "delete", "find"]
    assert scene.guard.asked == 2


async def test_what_is_gone_is_only_looked_at(kit: Any) -> None:
    scene = Scene(kit, device=kit.grave, current=None)
    assert await scene.agree(Wanted.ABSENT) == Settlement(kit.now, None)
    assert [call[0] for call in scene.platform.calls] == ["find"]


async def test_device_that_comes_back_is_no_cut_and_is_tried_again_with_backoff(kit: Any) -> None:
    scene = Scene(kit, device=kit.grave, current=None)
    scene.there()
    scene.platform.comes_back = True
    with pytest.raises(SystemFailed, match="again"):
        await scene.agree(Wanted.ABSENT)


@pytest.mark.parametrize(("lost_at", "done"), [(1, []), (2, ["lock out"])])
async def test_lost_claim_stops_a_cut_before_its_next_call(kit: Any, lost_at: int, done: list[str]) -> None:
    scene = Scene(kit, device=kit.grave, current=None)
    scene.there()
    scene.guard.lost_at = lost_at
    with pytest.raises(ClaimLostError):
        await scene.agree(Wanted.ABSENT)
    assert [call[0] for call in scene.platform.writes] == done


@pytest.mark.parametrize(("lost_at", "done"), [(1, []), (2, ["create"])])
async def test_lost_claim_stops_an_admission_before_its_next_call(kit: Any, lost_at: int, done: list[str]) -> None:
    scene = Scene(kit)
    scene.guard.lost_at = lost_at
    with pytest.raises(ClaimLostError):
        await scene.agree()
    assert [call[0] for call in scene.platform.writes] == done
