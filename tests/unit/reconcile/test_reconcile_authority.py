"""The CA's door: everything is revoked, and counts as revoked only once the CRL says so."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bridge.errors import SystemFailed
from bridge.model.records import System, Wanted
from bridge.ports.registry import Settlement
from bridge.reconcile.authority import AuthorityDoor
from bridge.reconcile.door import ClaimLostError


class Scene:
    def __init__(self, kit: Any, *numbers: int) -> None:
        self.kit, self.ca, self.guard = kit, kit.ca(), kit.guard()
        self.registry = kit.registry(revoking=tuple(map(kit.serial, numbers)))
        self.door = AuthorityDoor(self.registry, self.ca, kit.clock())

    async def agree(self, **link: Any) -> Settlement:
        return await self.door.agree(self.kit.claim(System.CA, Wanted.ABSENT, **link), self.guard)


async def test_revoked_only_where_the_crl_says_so(kit: Any) -> None:
    scene = Scene(kit, 1, 2)
    assert await scene.agree() == Settlement(kit.now, None)
    assert scene.ca.calls == [kit.serial(1), kit.serial(2), "crl"]
    assert scene.registry.written[0] == ("revoked", (kit.serial(1), kit.serial(2)))
    assert scene.registry.written[1][1] == "certificate.revoked"


async def test_nothing_to_revoke_asks_nobody(kit: Any) -> None:
    scene = Scene(kit)
    assert await scene.agree() == Settlement(kit.now, None)
    scene.registry.picture = None
    assert await scene.agree() == Settlement(kit.now, None)
    assert scene.ca.calls == []


async def test_revocation_that_the_crl_does_not_show_yet_is_looked_at_again_ever_more_rarely(kit: Any) -> None:
    scene = Scene(kit, 1)
    scene.ca.lists_at_once = False
    waits = [(await scene.agree(attempts=attempt)).next_at - kit.now for attempt in (1, 2, 3, 5, 100)]
    assert [wait.total_seconds() for wait in waits] == [1, 2, 4, 15, 15]
    settled = await scene.agree()
    assert settled.settled_at is None
    assert "CRL" in settled.error
    assert scene.registry.written == []


async def test_one_that_the_ca_does_not_take_holds_up_no_other(kit: Any) -> None:
    scene = Scene(kit, 1, 2, 3)
    scene.ca.refuses = {kit.serial(2)}
    with pytest.raises(SystemFailed, match="no to"):
        await scene.agree()
    assert scene.registry.written[0] == ("revoked", (kit.serial(1), kit.serial(3)))


async def test_one_that_the_ca_does_not_take_but_lists_is_revoked(kit: Any) -> None:
    scene = Scene(kit, 1)
    scene.ca.refuses, scene.ca.listed = {kit.serial(1)}, {kit.serial(1)}
    assert (await scene.agree()).settled_at == kit.now


async def test_broken_crl_stops_no_revocation(kit: Any) -> None:
    scene = Scene(kit, 1, 2)
    scene.ca.crl_broken = True
    with pytest.raises(SystemFailed, match="stale"):
        await scene.agree()
    assert scene.ca.calls == [kit.serial(1), kit.serial(2), "crl"]
    assert scene.registry.written == []


async def test_lost_claim_stops_before_the_next_call(kit: Any) -> None:
    scene = Scene(kit, 1, 2)
    scene.guard.lost_at = 2
    with pytest.raises(ClaimLostError):
        await scene.agree()
    assert scene.ca.calls == [kit.serial(1)]


async def test_other_serials_on_the_crl_are_nobodys_business(kit: Any) -> None:
    scene = Scene(kit, 1)
    scene.ca.listed = {kit.serial(number) for number in range(10, 20)}
    await scene.agree()
    assert scene.registry.written[0] == ("revoked", (kit.serial(1),))
    assert timedelta(0) == (await scene.agree()).settled_at - kit.now


async def test_where_the_ca_chooses_serials_an_attempt_of_unknown_outcome_stays_listed(kit: Any) -> None:
    scene = Scene(kit)
    scene.registry = kit.registry(revoking=(kit.serial(1), kit.serial(2)), unseen=(kit.serial(2),))
    scene.door = AuthorityDoor(scene.registry, scene.ca, kit.clock(), serials_are_ours=False)
    assert await scene.agree() == Settlement(kit.now, None)
    assert scene.ca.calls == [kit.serial(1), "crl"]
    assert scene.registry.written[0] == ("revoked", (kit.serial(1),))


async def test_with_our_serials_an_attempt_of_unknown_outcome_is_revoked_like_any_other(kit: Any) -> None:
    scene = Scene(kit)
    scene.registry = kit.registry(revoking=(kit.serial(2),), unseen=(kit.serial(2),))
    scene.door = AuthorityDoor(scene.registry, scene.ca, kit.clock())
    assert await scene.agree() == Settlement(kit.now, None)
    assert scene.ca.calls == [kit.serial(2), "crl"]


async def test_where_the_ca_chooses_serials_an_attempt_whose_leaf_was_never_seen_stays_listed(kit: Any) -> None:
    scene = Scene(kit, 1, 2)
    scene.registry.picture = replace(scene.registry.picture, unseen=(kit.serial(1),))
    scene.door = AuthorityDoor(scene.registry, scene.ca, kit.clock(), serials_are_ours=False)
    assert (await scene.agree()).settled_at == kit.now
    assert scene.ca.calls == [kit.serial(2), "crl"]
    assert scene.registry.written[0] == ("revoked", (kit.serial(2),))
