"""Two server processes on one PostgreSQL: they share everything, and nothing is done twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bridge.lifecycle.service import WindowTerms
from bridge.model.identity import DeviceId
from bridge.model.records import IssuanceState, System
from ca.standin import StandInCa, StandInSettings
from compose.real.postgresql import RealPostgresql
from compose.real.step_ca import real_step_ca
from tests.races.contenders import Activation, Answer, Contender, Renewal
from tests.races.replicas import DEADLINE, World, signed_by, two_bridges, until

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

Count = Callable[[str, int], None]
IDS = 40
CREATED, STORED, CONFLICT, UNAVAILABLE = 201, 200, 409, 503
CREATE_DEVICE, ATTRIBUTES = "/api/device-with-credentials", "/api/plugins/telemetry/(?:DEVICE/)?([^/]+)/.*SERVER_SCOPE"
CREDENTIALS, DEVICE = "/api/device/credentials", "/api/device/([0-9a-f-]{36})"
TARGETS, TARGET = "/rest/v1/targets", "/rest/v1/targets/([^/]+)"
CLAIM_SECONDS = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[RealPostgresql]:
    with RealPostgresql() as server:
        yield server


@pytest.fixture(params=["embedded CA", "step-ca"])
async def world(request: pytest.FixtureRequest, tmp_path: Path, cluster: RealPostgresql) -> AsyncIterator[World]:
    database = cluster.create_database()
    if request.param == "embedded CA":
        async with (
            StandInCa(StandInSettings(tmp_path / "ca"), clock=lambda: datetime.now(UTC)) as ca,
            two_bridges(tmp_path, ca, database) as running,
        ):
            yield running
    else:
        with real_step_ca(tmp_path / "ca") as real:
            async with two_bridges(tmp_path, real, database) as running:
                yield running
    cluster.drop_database(database)


async def consistent(world: World, names: list[str]) -> tuple[int, int]:
    """Compare CA and registry to the last serial; return how many are live, and how many were revoked."""
    rows = {one.serial.value: one for name in names for one in await world.issuances(name)}
    signed = signed_by(world.ca)
    assert set(signed) <= set(rows)
    assert {serial: rows[serial].device.value for serial in signed} == signed
    live = {serial for serial, row in rows.items() if row.state is IssuanceState.CURRENT}
    assert live <= set(signed)
    assert {row.state for serial, row in rows.items() if serial not in live} <= {IssuanceState.REVOKED}
    crl = await world.crl()
    assert set(rows) - live <= crl
    assert live.isdisjoint(crl)
    return len(live), len(set(signed) - live)


def exactly_one_each(answers: list[Answer]) -> list[Answer]:
    """Assert that of each two one got a certificate and the other a conflict; return those with one."""
    winners = []
    for pair in zip(answers[::2], answers[1::2], strict=True):
        assert sorted(one.status for one in pair) == [CREATED, CONFLICT], [one.content for one in pair]
        winners += [one for one in pair if one.status == CREATED]
        assert {one.code for one in pair if one.status == CONFLICT} <= {"in_progress", "identity_exists"}
    return winners


async def test_two_servers_give_one_certificate_an_id_and_share_the_links(world: World, count: Count) -> None:
    names = [f"cam-{number}" for number in range(IDS)]
    # The first key of each id goes to one server, the second to the other, all at once.
    winners = exactly_one_each(await world.crowd.rush([Contender(name) for name in names for _ in range(2)]))
    assert len({one.address for one in winners}) == IDS
    assert sorted(one.serial for one in winners) == sorted(signed_by(world.ca))
    assert await consistent(world, names) == (IDS, 0)

    await world.settled(names, {System.THINGSBOARD, System.WIREGUARD}, 60)
    assert world.platform.of("POST", CREATE_DEVICE) == {(CREATE_DEVICE, 200): IDS}
    assert set(world.platform.of("POST", ATTRIBUTES).values()) == {1}
    await world.connect_devices(names)
    await world.settled(names, {System.THINGSBOARD, System.WIREGUARD, System.HAWKBIT}, 60)
    nothing_was_done_twice(world, names)

    for name in names[: IDS // 2]:
        await world.operator.decommission(DeviceId(name), "race")
    await world.settled(names[: IDS // 2], set(System), 90)
    assert {number for (_, status), number in world.platform.of("DELETE", DEVICE).items() if status == 200} == {1}
    assert world.updates.of("DELETE", TARGET) == {(name, 204): 1 for name in names[: IDS // 2]}
    assert len(world.interface.dump().peers) == IDS - IDS // 2
    assert await consistent(world, names) == (IDS - IDS // 2, IDS // 2)
    count("two servers: ids with two keys at once", IDS)
    count("two servers: claims", len(the_work_was_shared(world)))


def nothing_was_done_twice(world: World, names: list[str]) -> None:
    """Each device was made once, each write was made once, though both servers heard of everything twice."""
    assert world.platform.of("POST", CREATE_DEVICE) == {(CREATE_DEVICE, 200): len(names)}
    assert world.platform.of("POST", CREDENTIALS) == {}
    written = world.platform.of("POST", ATTRIBUTES)
    assert (len(written), set(written.values())) == (len(names), {2})  # our mark; the address, once it was seen
    assert world.updates.of("POST", TARGETS) == {(TARGETS, 201): len(names)}


def the_work_was_shared(world: World) -> list[tuple[str, str, str, bool]]:
    """Return all claims: both servers took some, none took one that another held."""
    claims = world.claims()
    assert [one for one in claims if one[3]] == []
    for system in ("thingsboard", "wireguard"):
        assert len({holder for _, which, holder, _ in claims if which == system}) == 2
    return claims


async def test_the_same_key_at_two_servers_is_one_certificate(world: World, count: Count) -> None:
    devices = [Contender(f"cam-{number}") for number in range(IDS)]
    answers = await world.crowd.rush([device for device in devices for _ in range(2)])
    for device, pair in zip(devices, zip(answers[::2], answers[1::2], strict=True), strict=True):
        # The other process cannot wait for an attempt that is not its own: 503 with Retry-After, or the answer.
        statuses = Counter(one.status for one in pair)
        assert statuses[CREATED] == 1
        assert statuses[STORED] + statuses[UNAVAILABLE] == 1
        assert {one.code for one in pair if one.status == UNAVAILABLE} <= {"in_progress"}
        again = [await world.crowd.ask(device, server) for server in (0, 1)]
        assert [one.status for one in again] == [STORED, STORED]
        certificates = {one.content["cert"] for one in (*pair, *again) if one.status in {CREATED, STORED}}
        assert len(certificates) == 1
    assert await consistent(world, [device.name for device in devices]) == (IDS, 0)
    count("two servers: the same key at both", IDS)


async def test_one_key_under_two_ids_and_one_window_for_two_at_two_servers(world: World, count: Count) -> None:
    devices = [Contender(f"cam-{number}") for number in range(IDS // 2)]
    rush = [one for device in devices for one in (device, device.as_id(f"other-{device.name}"))]
    answers = await world.crowd.rush(rush)
    for pair in zip(answers[::2], answers[1::2], strict=True):
        assert sorted(one.status for one in pair) == [CREATED, CONFLICT]
        assert {one.code for one in pair if one.status == CONFLICT} == {"key_in_use"}
    owners = [one for one, answer in zip(rush, answers, strict=True) if answer.status == CREATED]
    before = {one.name: answer.address for one, answer in zip(rush, answers, strict=True) if answer.status == CREATED}
    for owner in owners:
        await world.operator.open_window(DeviceId(owner.name), WindowTerms())
    winners = exactly_one_each(await world.crowd.rush([Contender(one.name) for one in owners for _ in range(2)]))
    assert {one.content["generation"] for one in winners} == {2}
    assert {one.content["device_id"]: one.address for one in winners} == before
    names = [one.name for one in rush]
    await world.settled([one.name for one in owners], {System.CA, System.THINGSBOARD, System.WIREGUARD}, 60)
    assert await consistent(world, names) == (IDS // 2, IDS // 2)
    count("two servers: one key under two ids, then one window for two", IDS // 2)


async def test_renewals_at_two_servers_put_one_certificate_into_use(world: World, count: Count) -> None:
    devices = [Contender(f"cam-{number}") for number in range(IDS // 2)]
    names, root = [one.name for one in devices], world.ca.anchor.root_fingerprint.value
    held = [(one, answer.content["cert"]) for one, answer in zip(devices, await world.crowd.rush(devices), strict=True)]
    await world.settled(names, {System.THINGSBOARD, System.WIREGUARD}, 60)
    # Two new keys for each, one at each server.
    rush = [Renewal(one, leaf, root, Contender(one.name, wg_key=None)) for one, leaf in held for _ in range(2)]
    pairs = list(zip(rush, await world.crowd.rush(rush), strict=True))
    assert {(one.status, one.code) for _, one in pairs} <= {(CREATED, ""), (CONFLICT, "in_progress")}
    # Whoever got a certificate puts it into use, at both servers at once.
    wanted = [Activation(one.wanted, answer.content["cert"], root) for one, answer in pairs if answer.status == CREATED]
    answers = await world.crowd.rush([one for one in wanted for _ in range(2)])
    assert {(one.status, one.code) for one in answers} <= {(STORED, ""), (CONFLICT, "superseded")}
    assert Counter(one.content["device_id"] for one in answers if one.status == STORED) == dict.fromkeys(names, 2)
    await world.settled(names, {System.THINGSBOARD, System.CA}, 60)
    assert world.platform.of("POST", CREDENTIALS) == {(CREDENTIALS, 200): len(names)}
    assert await consistent(world, names) == (len(names), len(wanted))
    count("two servers: renewals with two keys at once", len(names))


async def test_one_server_is_killed_in_the_middle_of_a_burst(world: World, count: Count) -> None:
    devices = [Contender(f"cam-{number}") for number in range(60)]
    names = [device.name for device in devices]
    heard = 0

    def kill_after_ten(answer: Answer) -> None:
        nonlocal heard
        heard += answer.status == CREATED
        if heard == 10:
            world.replicas[0].kill()

    burst = await world.crowd.rush(devices, kill_after_ten)
    unanswered = [device for device, answer in zip(devices, burst, strict=True) if answer.status != CREATED]
    assert {answer.status for answer in burst[1::2]} == {CREATED}, "the server that lives answers everybody"
    assert unanswered, "the server that died left somebody without an answer"
    open_attempts = [one for name in names for one in await world.issuances(name) if one.state is IssuanceState.INTENT]

    final: dict[str, Answer] = {device.name: answer for device, answer in zip(devices, burst, strict=True)}

    async def everybody_has_a_certificate() -> bool:
        for device in unanswered:
            if final[device.name].status not in {CREATED, STORED}:
                final[device.name] = await world.crowd.ask(device, 1)
                assert final[device.name].status in {CREATED, STORED, UNAVAILABLE}
        return all(answer.status in {CREATED, STORED} for answer in final.values())

    await until(everybody_has_a_certificate, DEADLINE.seconds + 30)
    assert len({answer.address for answer in final.values()}) == len(devices)
    # What the dead server had claimed is taken up again when its claims have run out.
    await world.settled(names, {System.THINGSBOARD, System.WIREGUARD}, CLAIM_SECONDS + 60)

    async def nothing_is_left_to_revoke() -> bool:
        states = {one.state for name in names for one in await world.issuances(name)}
        return states <= {IssuanceState.CURRENT, IssuanceState.REVOKED}

    await until(nothing_is_left_to_revoke, 60)
    live, revoked = await consistent(world, names)
    assert live == len(devices)
    for name in names:
        (current,) = [one for one in await world.issuances(name) if one.state is IssuanceState.CURRENT]
        assert current.serial.value == final[name].serial
    assert world.platform.of("POST", CREATE_DEVICE) == {(CREATE_DEVICE, 200): len(devices)}
    assert [one for one in world.claims() if one[3]] == []
    # Started again, the dead one answers what is stored.
    world.urls[0] = await world.replicas[0].start()
    for device in unanswered[:5]:
        again = await world.crowd.ask(device, 0)
        assert (again.status, again.content["cert"]) == (STORED, final[device.name].content["cert"])
    count("killed server: left without an answer", len(unanswered))
    count("killed server: attempts of unknown outcome", len(open_attempts))
    count("killed server: certificates nobody got, revoked", revoked)
