"""Many at the same moment through the real door: of what there is one, one gets it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from bridge.lifecycle.service import WindowTerms
from bridge.model.identity import DeviceId, Fingerprint
from bridge.model.records import IssuanceState
from tests.races.conftest import Bridge
from tests.races.contenders import Answer, Contender

pytestmark = pytest.mark.asyncio(loop_scope="module")

Count = Callable[[str, int], None]
IDS = 16
CREATED, STORED, CONFLICT = 201, 200, 409
LATE = {"in_progress", "identity_exists"}
"""What a second key is told while the first one's attempt is open, and afterwards."""


def pairs(answers: list[Answer]) -> list[tuple[Answer, Answer]]:
    """Answers of two contenders each, the one with the certificate first."""
    return [
        (first, second) if first.status == CREATED else (second, first)
        for first, second in zip(answers[::2], answers[1::2], strict=True)
    ]


async def test_two_keys_for_one_id(bridge: Bridge, count: Count) -> None:
    names = [bridge.name() for _ in range(IDS)]
    contenders = [Contender(name) for name in names for _ in range(2)]
    answers = await bridge.crowd.rush(contenders)
    for winner, loser in pairs(answers):
        assert (winner.status, loser.status) == (CREATED, CONFLICT)
        assert loser.code in LATE
    assert len(await bridge.certificates_of(*names)) == IDS
    # The second key stays outside; the first one's owner gets the same certificate for ever.
    again = pairs_like(answers, await bridge.crowd.rush(contenders))
    for (winner, _), (stored, refused) in zip(pairs(answers), again, strict=True):
        assert (stored.status, stored.content["cert"]) == (STORED, winner.content["cert"])
        assert (refused.status, refused.code) == (CONFLICT, "identity_exists")
    count("races: two keys for one id", IDS)


def pairs_like(first: list[Answer], again: list[Answer]) -> list[tuple[Answer, Answer]]:
    """Later answers of the same contenders, in pairs: whoever won at first before whoever lost."""
    turned = [
        pair if one.status == CREATED else pair[::-1]
        for one, pair in zip(first[::2], zip(again[::2], again[1::2], strict=True), strict=True)
    ]
    return list(turned)


async def test_many_keys_for_one_id(bridge: Bridge, count: Count) -> None:
    name = bridge.name()
    answers = await bridge.crowd.rush([Contender(name) for _ in range(32)])
    assert Counter(one.status for one in answers) == {CREATED: 1, CONFLICT: 31}
    assert {one.code for one in answers if one.status == CONFLICT} <= LATE
    assert len(await bridge.certificates_of(name)) == 1
    count("races: 32 keys for one id", 1)


async def test_the_same_key_twice(bridge: Bridge, count: Count) -> None:
    names = [bridge.name() for _ in range(IDS)]
    devices = [Contender(name) for name in names]
    answers = await bridge.crowd.rush([device for device in devices for _ in range(2)])
    for created, stored in pairs(answers):
        assert (created.status, stored.status) == (CREATED, STORED)
        assert created.content["cert"] == stored.content["cert"]
        assert created.address == stored.address
    assert len(await bridge.certificates_of(*names)) == IDS
    count("races: the same key twice", IDS)


async def test_the_same_key_twenty_times(bridge: Bridge) -> None:
    device = Contender(bridge.name())
    answers = await bridge.crowd.rush([device] * 20)
    assert Counter(one.status for one in answers) == {CREATED: 1, STORED: 19}
    assert len({one.content["cert"] for one in answers}) == 1
    assert len(await bridge.certificates_of(device.name)) == 1


async def test_one_key_under_two_ids(bridge: Bridge, count: Count) -> None:
    devices = [Contender(bridge.name()) for _ in range(IDS)]
    others = [device.as_id(bridge.name("other")) for device in devices]
    rush = [one for pair in zip(devices, others, strict=True) for one in pair]
    for winner, loser in pairs(await bridge.crowd.rush(rush)):
        assert (winner.status, loser.status, loser.code) == (CREATED, CONFLICT, "key_in_use")
    assert len(await bridge.certificates_of(*(one.name for one in rush))) == IDS
    count("races: one key under two ids", IDS)


async def test_one_wireguard_key_for_two_devices(bridge: Bridge, count: Count) -> None:
    devices = [Contender(bridge.name()) for _ in range(IDS)]
    others = [Contender(bridge.name("other"), wg_key=device.wg_key) for device in devices]
    rush = [one for pair in zip(devices, others, strict=True) for one in pair]
    answers = pairs(await bridge.crowd.rush(rush))
    for winner, loser in answers:
        assert (winner.status, loser.status, loser.code) == (CREATED, CONFLICT, "wg_key_in_use")
    assert len({winner.address for winner, _ in answers}) == IDS
    assert len(await bridge.certificates_of(*(one.name for one in rush))) == IDS
    count("races: one WireGuard key for two devices", IDS)


async def test_fifty_devices_get_fifty_addresses(bridge: Bridge, count: Count) -> None:
    devices = [Contender(bridge.name()) for _ in range(50)]
    answers = await bridge.crowd.rush(devices)
    assert Counter(one.status for one in answers) == {CREATED: 50}
    assert len({one.address for one in answers}) == 50
    assert len({one.serial for one in answers}) == 50
    assert sorted(await bridge.certificates_of(*(one.name for one in devices))) == sorted(a.serial for a in answers)
    count("races: devices at once", 50)


async def test_one_voucher_shown_by_two(bridge: Bridge, count: Count) -> None:
    codes = [f"PROV-{number:04}-{number:04}" for number in range(IDS)]
    names, rush = [bridge.name() for _ in codes], []
    for name, code in zip(names, codes, strict=True):
        await bridge.operator.register(DeviceId(name), voucher_hash=Fingerprint.of(code.encode()))
        rush += [Contender(name, voucher=code), Contender(name, voucher=code)]
    for winner, loser in pairs(await bridge.crowd.rush(rush)):
        assert (winner.status, loser.status) == (CREATED, CONFLICT)
        assert loser.code in LATE
    assert len(await bridge.certificates_of(*names)) == IDS
    # Spent, and never another id's.
    late = await bridge.crowd.ask(Contender(names[0], voucher=codes[0]))
    assert (late.status, late.code) == (CONFLICT, "identity_exists")
    other = bridge.name()
    await bridge.operator.register(DeviceId(other), voucher_hash=Fingerprint.of(b"PROV-OTHR-OTHR"))
    foreign = await bridge.crowd.ask(Contender(other, voucher=codes[0]))
    assert (foreign.status, foreign.code) == (401, "voucher_required")
    count("races: one voucher for two", IDS)


async def test_one_window_used_by_two(bridge: Bridge, count: Count) -> None:
    devices = [Contender(bridge.name()) for _ in range(IDS)]
    first = await bridge.crowd.rush(devices)
    assert Counter(one.status for one in first) == {CREATED: IDS}
    for device in devices:
        await bridge.operator.open_window(DeviceId(device.name), WindowTerms())
    again = pairs(await bridge.crowd.rush([Contender(device.name) for device in devices for _ in range(2)]))
    for before, (winner, loser) in zip(first, again, strict=True):
        assert (winner.status, loser.status) == (CREATED, CONFLICT)
        assert loser.code in LATE
        assert (winner.content["generation"], winner.address) == (2, before.address)
    for device in devices:
        issuances = await bridge.issuances(device.name)
        assert [one.generation for one in issuances] == [1, 2]
        assert issuances[1].state is IssuanceState.CURRENT
        assert issuances[0].state in {IssuanceState.REVOKING, IssuanceState.REVOKED}
        assert await bridge.store.read(lambda tx, d=device: tx.window(DeviceId(d.name), datetime.now(UTC))) is None
    assert len(await bridge.certificates_of(*(one.name for one in devices))) == 2 * IDS
    count("races: one window for two", IDS)


async def test_ids_that_differ_by_case(bridge: Bridge, count: Count) -> None:
    names = [bridge.name("Door") for _ in range(IDS)]
    spellings = [spelling for name in names for spelling in (name, name.lower())]
    answers = await bridge.crowd.rush([Contender(spelling) for spelling in spellings])
    for winner, loser in pairs(answers):
        assert (winner.status, loser.status, loser.code) == (CREATED, CONFLICT, "id_spelling")
    won = [spelling for spelling, answer in zip(spellings, answers, strict=True) if answer.status == CREATED]
    lost = sorted(set(spellings) - set(won))
    assert len(await bridge.certificates_of(*won)) == IDS
    # The other spelling reached no outside system.
    assert bridge.signed(*lost) == []
    assert [name for name in lost if bridge.stack.thingsboard.state.by_name(name)] == []
    count("races: ids that differ by case", IDS)
