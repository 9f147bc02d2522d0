"""What the client promises, against a ThingsBoard: `[standin]`, a real one is in the recordings."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from thingsboard import rule_chain
from thingsboard.client import ThingsBoardClient
from thingsboard.errors import (
    CertificateTaken,
    DeviceExists,
    DeviceGone,
    PlatformRefused,
    PlatformUnreachable,
    StaleVersion,
)
from thingsboard.models import CredentialsType
from thingsboard.standin import EmbeddedThingsBoard

GONE = "13814000-1dd2-11b2-8080-808080808080"
USERNAME, PASSWORD = "tenant@thingsboard.org", "right password"


@pytest.fixture(params=["standin"])
def target(request: pytest.FixtureRequest, client: ThingsBoardClient) -> ThingsBoardClient:
    assert request.param == "standin"
    return client


async def test_check_logs_in_and_names_the_default_profile(target: ThingsBoardClient) -> None:
    health = await target.check()
    assert health.default_profile_id == await target.default_profile()
    assert health.chain_profiles == ()


async def test_wrong_password_is_refused_and_not_tried_again_at_once(
    board: EmbeddedThingsBoard, http: httpx.AsyncClient
) -> None:
    client = ThingsBoardClient(http, board.rest_url, USERNAME, "wrong")
    for _ in range(2):
        with pytest.raises(PlatformRefused, match="THINGSBOARD_PASSWORD"):
            await client.check()


async def test_device_is_made_with_its_leaf_and_found_by_its_exact_name(target: ThingsBoardClient, tls: Any) -> None:
    leaf = tls.leaf("Gw-1").leaf
    made = await target.create_device("Gw-1", leaf, label="roof")
    assert (made.name, made.label, made.version) == ("Gw-1", "roof", 1)
    assert made.profile_id == await target.default_profile()
    assert await target.find_device("Gw-1") == made == await target.get_device(made.id)
    assert await target.find_device("gw-1") is None
    stored = await target.credentials(made.id)
    assert stored.is_leaf(leaf)
    assert stored.device_id == made.id


async def test_eight_creates_of_one_name_make_one_device(target: ThingsBoardClient, tls: Any) -> None:
    results = await asyncio.gather(
        *(target.create_device("gw-1", tls.leaf("gw-1").leaf) for _ in range(8)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["DeviceExists"] * 7 + ["PlatformDevice"]


async def test_conflicts_have_their_types(target: ThingsBoardClient, tls: Any) -> None:
    first, second = tls.leaf("gw-1").leaf, tls.leaf("gw-2").leaf
    made = await target.create_device("gw-1", first)
    other = await target.create_device("gw-2", second)
    with pytest.raises(DeviceExists):
        await target.create_device("gw-1", tls.leaf("gw-1").leaf)
    with pytest.raises(CertificateTaken):
        await target.create_device("gw-3", first)
    assert await target.find_device("gw-3") is None, "a refused create leaves nothing"
    with pytest.raises(CertificateTaken):
        await target.replace_by_leaf(await target.credentials(other.id), first)
    stored = await target.credentials(made.id)
    assert (await target.replace_by_leaf(stored, first)).version == 2, "an identical POST is a write too"
    with pytest.raises(StaleVersion):
        await target.replace_by_leaf(stored, tls.leaf("gw-1").leaf)
    with pytest.raises(StaleVersion):
        await target.replace_by_tombstone(stored)


async def test_tombstone_is_a_token_that_is_never_shown(target: ThingsBoardClient, tls: Any) -> None:
    made = await target.create_device("gw-1", tls.leaf("gw-1").leaf)
    buried = await target.replace_by_tombstone(await target.credentials(made.id))
    assert buried.is_tombstone
    assert buried.type is CredentialsType.ACCESS_TOKEN
    assert buried.credentials_id not in repr(buried)
    assert await target.credentials(made.id) == buried


async def test_attributes_are_kept_beside_those_of_the_platform(target: ThingsBoardClient, tls: Any) -> None:
    made = await target.create_device("gw-1", tls.leaf("gw-1").leaf)
    await target.write_attributes(made.id, {"vpn_address": "10.8.0.2", "iot_bridge": "installation"})
    await target.write_attributes(made.id, {"vpn_address": "10.8.0.3"})
    await target.write_attributes(made.id, {})
    kept = await target.attributes(made.id)
    assert kept.values["vpn_address"] == "10.8.0.3"
    assert kept.installation == "installation"
    assert not kept.active
    assert kept.last_connect is None
    assert dict((await target.attributes(made.id, "iot_bridge", "missing")).values) == {"iot_bridge": "installation"}


async def test_deleted_is_gone_everywhere_and_the_name_is_free(target: ThingsBoardClient, tls: Any) -> None:
    leaf = tls.leaf("gw-1").leaf
    made = await target.create_device("gw-1", leaf)
    assert await target.delete_device(made.id) is True
    assert await target.delete_device(made.id) is False
    assert await target.get_device(made.id) is None
    assert await target.find_device("gw-1") is None
    for call in (target.credentials(GONE), target.attributes(made.id), target.write_attributes(made.id, {"a": 1})):
        with pytest.raises(DeviceGone):
            await call
    assert (await target.create_device("gw-1", leaf)).id != made.id


async def test_chain_profiles_are_listed_over_pages(target: ThingsBoardClient, tls: Any) -> None:
    for number in range(120):
        await target.request("POST", "/api/deviceProfile", {"name": f"plain {number}"})
    for name, creates in (("creates", True), ("does not", False)):
        provision = {
            "type": "X509_CERTIFICATE_CHAIN",
            "provisionDeviceSecret": tls.leaf(name).leaf.pem,
            "allowCreateNewDevicesByX509Certificate": creates,
        }
        body = {"name": name, "provisionType": provision["type"], "profileData": {"provisionConfiguration": provision}}
        await target.request("POST", "/api/deviceProfile", body)
    found = {profile.name: profile.creates_devices for profile in (await target.check()).chain_profiles}
    assert found == {"creates": True, "does not": False}


async def test_rule_chain_is_installed_once_and_brought_up_when_it_differs(target: ThingsBoardClient) -> None:
    endpoint = rule_chain.Endpoint("https://bridge.example.com/webhooks/thingsboard", "s1", "-----BEGIN …")
    first = await rule_chain.install(target, endpoint)
    assert (first.chain_changed, first.attached) == (True, True)
    second = await rule_chain.install(target, endpoint)
    assert second == rule_chain.Installed(first.chain_id, chain_changed=False, attached=False)
    rotated = await rule_chain.install(target, rule_chain.Endpoint(endpoint.url, "s2", endpoint.ca_pem))
    assert (rotated.chain_id, rotated.chain_changed, rotated.attached) == (first.chain_id, True, False)
    stored = await target.request("GET", f"/api/ruleChain/{first.chain_id}/metadata")
    assert stored["nodes"][3]["configuration"]["headers"]["X-Bridge-Webhook-Secret"] == "s2"
    assert stored["nodes"][1]["queueName"] == "HighPriority"


async def test_attaching_keeps_what_is_in_the_root_chain(target: ThingsBoardClient) -> None:
    chains = (await target.request("GET", "/api/ruleChains", params={"pageSize": "9", "page": "0"}))["data"]
    path = f"/api/ruleChain/{chains[0]['id']['id']}/metadata"
    before = await target.request("GET", path)
    await rule_chain.install(target, rule_chain.Endpoint("https://bridge.example.com/w", "s"))
    after = await target.request("GET", path)
    assert [node["id"] for node in after["nodes"][:7]] == [node["id"] for node in before["nodes"]]
    assert [edge for edge in after["connections"] if edge not in before["connections"]] == [
        {"fromIndex": 2, "toIndex": 7, "type": "Connect Event"}
    ]


async def test_many_calls_share_one_log_in(board: EmbeddedThingsBoard) -> None:
    paths: list[str] = []

    async def note(request: httpx.Request) -> None:
        paths.append(request.url.path)

    async with httpx.AsyncClient(event_hooks={"request": [note]}) as http:
        client = ThingsBoardClient(http, board.rest_url, USERNAME, PASSWORD)
        await asyncio.gather(*(client.find_device(f"gw-{number}") for number in range(20)))
    assert paths.count("/api/auth/login") == 1


async def test_expired_token_is_refreshed_and_the_call_repeated(
    build: Callable[..., EmbeddedThingsBoard], http: httpx.AsyncClient
) -> None:
    later = [timedelta()]
    async with build(clock=lambda: datetime.now(UTC) + later[0]) as board:
        client = ThingsBoardClient(http, board.rest_url, USERNAME, PASSWORD)
        await client.check()
        later[0] = timedelta(seconds=9001)
        assert await client.find_device("gw-1") is None
        later[0] = timedelta(days=8)  # the refresh token is dead too
        assert await client.find_device("gw-1") is None


async def test_a_restart_with_the_same_folder_goes_on(
    build: Callable[..., EmbeddedThingsBoard], http: httpx.AsyncClient, tls: Any, device: Any, tmp_path: Any
) -> None:
    files, buried = tls.leaf("gw-1"), tls.leaf("gw-2")
    async with build() as board:
        client = ThingsBoardClient(http, board.rest_url, USERNAME, PASSWORD)
        made = await client.create_device("gw-1", files.leaf)
        await client.write_attributes(made.id, {"vpn_address": "10.8.0.2"})
        other = await client.create_device("gw-2", buried.leaf)
        await client.replace_by_tombstone(await client.credentials(other.id))
        installed = await rule_chain.install(client, rule_chain.Endpoint("http://127.0.0.1:9/w", "s"))
        port = int(board.rest_url.rpartition(":")[2])
    with pytest.raises(PlatformUnreachable):
        await client.check()
    async with build(rest_port=port) as board:
        assert await client.get_device(made.id) == made, "the old token is still good"
        assert (await client.attributes(made.id)).values["vpn_address"] == "10.8.0.2"
        again = await rule_chain.install(client, rule_chain.Endpoint("http://127.0.0.1:9/w", "s"))
        assert again == rule_chain.Installed(installed.chain_id, chain_changed=False, attached=False)
        assert await device(files).connect(board.mqtt_port) == 0
        assert await device(buried).connect(board.mqtt_port) == 135
    folder = tmp_path / "thingsboard"
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*.json")} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (folder, folder / "devices")} == {0o700}


async def test_a_taken_port_is_an_oserror_and_leaves_nothing_open(
    build: Callable[..., EmbeddedThingsBoard], board: EmbeddedThingsBoard
) -> None:
    with pytest.raises(OSError, match="in use"):
        await build(mqtt_port=board.mqtt_port).start()
    with pytest.raises(OSError, match="in use"):
        await build(rest_port=int(board.rest_url.rpartition(":")[2])).start()
