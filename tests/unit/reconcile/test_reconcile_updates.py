"""hawkBit's door: not before the first connect, the mark in the creating request, foreign targets untouched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bridge.errors import SystemFailed
from bridge.model.records import System, Wanted
from bridge.ports.registry import Settlement
from bridge.ports.updates import UpdateTarget
from bridge.reconcile.door import ClaimLostError
from bridge.reconcile.updates import UpdatesDoor, mark


class Scene:
    def __init__(self, kit: Any, *, connected: bool = True, **picture: Any) -> None:
        self.kit, self.updates, self.guard = kit, kit.updates(), kit.guard()
        device = replace(kit.device, first_connected_at=kit.now if connected else None)
        self.registry = kit.registry(**({"device": device} | picture))
        self.door = UpdatesDoor(self.registry, self.updates, kit.clock(), "inst")

    async def agree(self, wanted: Wanted = Wanted.PRESENT) -> Settlement:
        return await self.door.agree(self.kit.claim(System.HAWKBIT, wanted), self.guard)


async def test_device_that_was_never_seen_connected_has_no_target(kit: Any) -> None:
    scene = Scene(kit, connected=False)
    assert await scene.agree() == Settlement(None, None)
    assert scene.updates.calls == []


async def test_target_is_created_with_its_mark_and_then_only_looked_at(kit: Any) -> None:
    scene = Scene(kit)
    assert await scene.agree() == Settlement(kit.now, None, external_id="dev-1")
    assert await scene.agree() == Settlement(kit.now, None, external_id="dev-1")
    assert scene.updates.writes == [("create", "dev-1", "Pump", "iot-bridge:inst")]
    assert scene.guard.asked == 1


async def test_target_without_a_label_has_the_name_of_its_device(kit: Any) -> None:
    scene = Scene(kit)
    scene.registry.picture = replace(scene.registry.picture, device=replace(scene.registry.picture.device, name=None))
    await scene.agree()
    assert scene.updates.writes[0][2] == "dev-1"


@pytest.mark.parametrize("description", [None, "", "iot-bridge:another", "iot-bridge:INST", "Plug and Play"])
async def test_foreign_target_is_shown_and_never_touched(kit: Any, description: str | None) -> None:
    scene = Scene(kit)
    scene.updates.target = UpdateTarget("dev-1", description)
    settled = await scene.agree()
    assert settled.foreign
    assert settled.settled_at is None
    assert "did not make" in settled.error
    assert (settled.next_at - kit.now).total_seconds() == 600
    assert scene.updates.writes == []


async def test_what_came_back_is_compared_with_what_was_sent(kit: Any) -> None:
    scene = Scene(kit)
    scene.updates.answers_with = "something else"
    assert (await scene.agree()).foreign


@pytest.mark.parametrize("description", [None, mark("inst"), mark("another")])
async def test_cut_deletes_whoever_made_it_and_looks_again(kit: Any, description: str | None) -> None:
    scene = Scene(kit, device=kit.grave)
    scene.updates.target = UpdateTarget("dev-1", description)
    assert await scene.agree(Wanted.ABSENT) == Settlement(kit.now, None)
    assert [call[0] for call in scene.updates.calls] == ["find", "delete", "find"]


async def test_what_is_gone_is_only_looked_at(kit: Any) -> None:
    scene = Scene(kit, device=kit.grave)
    assert await scene.agree(Wanted.ABSENT) == Settlement(kit.now, None)
    assert scene.updates.writes == []


async def test_target_that_comes_back_is_no_cut(kit: Any) -> None:
    scene = Scene(kit, device=kit.grave)
    scene.updates.target, scene.updates.comes_back = UpdateTarget("dev-1", None), True
    with pytest.raises(SystemFailed, match="again"):
        await scene.agree(Wanted.ABSENT)


async def test_lost_claim_stops_before_the_write(kit: Any) -> None:
    for wanted, target in ((Wanted.PRESENT, None), (Wanted.ABSENT, UpdateTarget("dev-1", None))):
        scene = Scene(kit)
        scene.updates.target, scene.guard.lost_at = target, 1
        with pytest.raises(ClaimLostError):
            await scene.agree(wanted)
        assert scene.updates.writes == []


async def test_unknown_device_asks_for_nothing(kit: Any) -> None:
    scene = Scene(kit)
    scene.registry.picture = None
    assert await scene.agree() == Settlement(kit.now, None)
    assert scene.updates.calls == []
