"""Targets and metadata through the client, on both dialects of the stand-in and on the real hawkBit."""

import asyncio
from typing import Any

import httpx
import pytest

from compose.real.hawkbit_server import ADMIN, READER
from hawkbit.client import HawkbitClient
from hawkbit.errors import (
    HawkbitBusy,
    HawkbitForbidden,
    HawkbitMisconfigured,
    HawkbitRefused,
    HawkbitUnauthorized,
    QuotaExceeded,
    TargetMissing,
    UnaddressableTarget,
)
from hawkbit.models import Generation
from hawkbit.transport import Limits


async def test_a_target_is_made_whole_in_one_request_and_read_back(hawkbit: Any, device: str) -> None:
    client = hawkbit.client()
    made = await client.create_target(device, name="Pump 7", description="iot-bridge:installation")
    found = await client.find_target(device)
    assert found == made
    assert (made.name, made.description, made.created_by) == ("Pump 7", "iot-bridge:installation", "bridge")
    assert made.last_poll is None
    assert not made.made_by_poll


async def test_a_missing_target_is_none_but_a_wrong_address_is_an_error(hawkbit: Any, device: str) -> None:
    assert await hawkbit.client().find_target(device) is None
    astray = HawkbitClient(hawkbit.http, hawkbit.url + "/rest/v1/wrong", "bridge", "bridge")
    with pytest.raises(HawkbitMisconfigured, match="HAWKBIT_URL"):
        await astray.find_target(device)
    with pytest.raises(HawkbitMisconfigured):
        await astray.delete_target(device)
    with pytest.raises(HawkbitMisconfigured):
        await astray.server_info()


async def test_only_the_first_of_racing_creators_wins(hawkbit: Any, device: str) -> None:
    client = hawkbit.client()
    outcomes = await asyncio.gather(*(client.create_target(device) for _ in range(8)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Target"] + ["TargetExists"] * 7


async def test_a_list_with_one_duplicate_creates_nothing(hawkbit: Any, device: str) -> None:
    await hawkbit.client().create_target(device)
    batch = [{"controllerId": f"{device}-new", "name": "n"}, {"controllerId": device, "name": "n"}]
    assert (await hawkbit.ask("POST", "/rest/v1/targets", json=batch)).status_code == 409
    assert await hawkbit.client().find_target(f"{device}-new") is None


async def test_ids_differ_by_case(hawkbit: Any, device: str) -> None:
    client = hawkbit.client()
    await client.create_target(device)
    assert await client.find_target(device.upper()) is None
    await client.create_target(device.upper())
    assert await client.delete_target(device.upper())
    assert await client.find_target(device) is not None


async def test_an_update_leaves_the_rest_alone(hawkbit: Any, device: str) -> None:
    client = hawkbit.client()
    await client.create_target(device, name="n", description="d", address="http://192.0.2.7")
    changed = await client.update_target(device, description="iot-bridge:adopted")
    assert (changed.name, changed.description, changed.address) == ("n", "iot-bridge:adopted", "http://192.0.2.7")
    assert await client.find_target(device) == changed
    with pytest.raises(TargetMissing):
        await client.update_target(f"{device}-absent", name="n")


async def test_a_delete_tells_whether_there_was_something(hawkbit: Any, device: str) -> None:
    client = hawkbit.client()
    await client.create_target(device)
    assert await client.delete_target(device) is True
    assert await client.delete_target(device) is False
    assert await client.find_target(device) is None


@pytest.mark.parametrize("name", ["a/b", "a\\b", "a;b", "a%2Fb"])
async def test_an_id_that_hawkbit_could_never_find_again_is_not_sent(hawkbit: Any, device: str, name: str) -> None:
    with pytest.raises(UnaddressableTarget):
        await hawkbit.client().create_target(f"{device}{name}")
    # The trap itself, so that nobody takes the check for superstition.
    body = [{"controllerId": f"{device}{name}"}]
    assert (await hawkbit.ask("POST", "/rest/v1/targets", json=body)).status_code == 201
    quoted = f"{device}{name}".replace("%", "%25").replace("/", "%2F").replace("\\", "%5C").replace(";", "%3B")
    assert (await hawkbit.ask("GET", f"/rest/v1/targets/{quoted}")).status_code in {400, 500}


@pytest.mark.parametrize("name", ["CN=foo,O=bar", "urn:dev:1", "dévice", "dev+1", "a..b", "-x", "a?b", "a#b", "ä&b=c"])
async def test_other_odd_ids_work(hawkbit: Any, device: str, name: str) -> None:
    client = hawkbit.client()
    made = await client.create_target(f"{device}{name}")
    assert await client.find_target(f"{device}{name}") == made
    assert await client.delete_target(f"{device}{name}")


async def test_metadata_is_set_whether_or_not_it_is_there(hawkbit: Any, device: str) -> None:
    client = hawkbit.client()
    await client.create_target(device)
    for value in ("1", "1", "2"):
        await client.set_metadata(device, "bridge.serial", value)
    await client.set_metadata(device, "bridge.address", "10.8.0.7")
    assert await client.read_metadata(device) == {"bridge.serial": "2", "bridge.address": "10.8.0.7"}
    with pytest.raises(TargetMissing):
        await client.set_metadata(f"{device}-absent", "key", "value")
    with pytest.raises(TargetMissing):
        await client.read_metadata(f"{device}-absent")


async def test_two_writers_of_one_metadata_entry_both_succeed(hawkbit: Any, device: str) -> None:
    client = hawkbit.client()
    await client.create_target(device)
    await asyncio.gather(*(client.set_metadata(device, "key", str(number)) for number in range(2)))
    assert (await client.read_metadata(device))["key"] in {"0", "1"}


async def test_the_101st_metadata_entry_is_too_many(hawkbit: Any, device: str) -> None:
    client = hawkbit.client()
    await client.create_target(device)
    entries = [{"key": f"k{number}", "value": "v"} for number in range(100)]
    assert (await hawkbit.ask("POST", f"/rest/v1/targets/{device}/metadata", json=entries)).status_code == 201
    with pytest.raises(QuotaExceeded):
        await client.set_metadata(device, "one-more", "v")
    assert len(await client.read_metadata(device)) == 100


async def test_the_list_is_read_to_its_end_in_order_and_once(hawkbit: Any, device: str) -> None:
    client = hawkbit.client()
    names = [f"{device}-{number}" for number in range(7)]
    await asyncio.gather(*(client.create_target(name, description=f"of {device}") for name in names))
    query = f"description=='of {device}'"
    listed = [target.controller_id async for target in client.list_targets(query=query, page_size=3)]
    assert listed == names
    everything = [target.controller_id async for target in client.list_targets()]
    assert set(names) <= set(everything)
    assert len(everything) == len(set(everything))


async def test_a_limit_above_500_is_cut_without_a_word(hawkbit: Any, device: str) -> None:
    batch = [{"controllerId": f"{device}-{number:03}", "description": device} for number in range(501)]
    assert (await hawkbit.ask("POST", "/rest/v1/targets", json=batch)).status_code == 201
    answer = await hawkbit.ask("GET", f"/rest/v1/targets?limit=1000&q=description=={device}")
    assert (answer.json()["size"], answer.json()["total"]) == (500, 501)
    listed = [target async for target in hawkbit.client().list_targets(query=f"description=={device}")]
    assert len(listed) == 501


async def test_a_query_that_hawkbit_cannot_read_is_refused(hawkbit: Any) -> None:
    for query in ("bogus==1", "((("):
        with pytest.raises(HawkbitRefused) as refused:
            [target async for target in hawkbit.client().list_targets(query=query)]
        assert refused.value.status == 400
        assert refused.value.code is not None


async def test_a_wrong_password_and_a_missing_permission_are_told_apart(hawkbit: Any, device: str) -> None:
    with pytest.raises(HawkbitUnauthorized, match="HAWKBIT_PASSWORD"):
        await hawkbit.client(("bridge", "wrong")).check_health()
    with pytest.raises(HawkbitUnauthorized):
        await hawkbit.client(("bridge", "wrong")).server_info()
    with pytest.raises(HawkbitForbidden) as refused:
        await hawkbit.client(READER).create_target(device)
    assert refused.value.needed == ("CREATE_TARGET",)
    with pytest.raises(HawkbitForbidden):
        await hawkbit.client(READER).delete_target(device)


async def test_the_token_shows_only_to_who_may_read_it(hawkbit: Any, device: str) -> None:
    made = await hawkbit.client().create_target(device, security_token="a-token-of-our-own")
    assert made.security_token is None
    seen = await hawkbit.client(ADMIN).find_target(device)
    assert seen.security_token == "a-token-of-our-own"
    assert "a-token-of-our-own" not in repr(seen)


async def test_the_server_says_what_it_is_once(hawkbit: Any) -> None:
    client = hawkbit.client()
    info = await client.server_info()
    assert info.generation is hawkbit.generation
    assert info.username == ("bridge" if hawkbit.generation is Generation.CURRENT else None)
    assert await client.server_info() is info
    await client.check_health()


async def test_media_types_are_insisted_on(hawkbit: Any) -> None:
    plain = await hawkbit.ask("POST", "/rest/v1/targets", json=[], Content_Type="text/plain")
    assert (plain.status_code, "errorCode" in plain.json()) == (415, False)
    assert (await hawkbit.ask("GET", "/rest/v1/targets", Accept="application/xml")).status_code == 406
    empty = await hawkbit.ask("POST", "/rest/v1/targets", json=[])
    assert (empty.status_code, empty.json()) == (201, [])


async def test_a_flood_from_outside_is_turned_away_and_let_in_later(hawkbit: Any, device: str) -> None:
    async with httpx.AsyncClient(headers={"X-Forwarded-For": "203.0.113.9"}) as http:
        hasty = HawkbitClient(http, hawkbit.url, "bridge", "bridge", limits=Limits(attempt=20, total=60, attempts=1))
        seen: list[object] = []
        turned_away: list[HawkbitBusy] = []
        while not turned_away and len(seen) < 2000:  # a loaded machine may be too slow for a flood at first
            seen += await asyncio.gather(*(hasty.delete_target(device) for _ in range(80)), return_exceptions=True)
            turned_away = [error for error in seen if isinstance(error, HawkbitBusy)]
        assert turned_away
        assert all(error.nothing_done for error in turned_away)
        assert {error for error in seen if not isinstance(error, HawkbitBusy)} == {False}
        patient = HawkbitClient(http, hawkbit.url, "bridge", "bridge")
        assert await patient.delete_target(device) is False
