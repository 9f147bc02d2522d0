"""How devices come in, and how a deleted target comes back: the traps that retiring must know."""

from datetime import timedelta
from typing import Any

import pytest

from compose.real.hawkbit_server import ADMIN
from hawkbit.errors import HawkbitForbidden
from hawkbit.models import Generation

pytestmark = pytest.mark.usefixtures("closed_doors")


async def test_all_ways_in_are_off_by_default(hawkbit: Any, device: str) -> None:
    configuration = await hawkbit.client(ADMIN).tenant_configuration()
    assert not configuration.target_token_enabled
    assert not configuration.polls_create_targets
    assert not configuration.accepts_any_device
    assert timedelta(seconds=1) <= configuration.polling_time <= timedelta(minutes=5)
    await hawkbit.client().create_target(device, security_token="the-right-token")
    assert await hawkbit.poll(device, Authorization="TargetToken the-right-token") == 401


async def test_the_bridges_user_may_not_read_the_configuration(hawkbit: Any) -> None:
    with pytest.raises(HawkbitForbidden, match="TENANT_CONFIGURATION"):
        await hawkbit.client().tenant_configuration()


async def test_with_target_tokens_only_a_deleted_target_stays_deleted(hawkbit: Any, device: str) -> None:
    client = hawkbit.client()
    await hawkbit.configure("authentication.targettoken.enabled", True)
    await client.create_target(device, security_token="the-right-token")
    assert await hawkbit.poll(device, Authorization="TargetToken another-token") == 401
    assert await hawkbit.poll(device, Authorization="TargetToken the-right-token") == 200
    assert (await client.find_target(device)).last_poll is not None
    await client.delete_target(device)
    assert await hawkbit.poll(device, Authorization="TargetToken the-right-token") == 401
    assert await client.find_target(device) is None


async def test_a_new_token_locks_the_old_one_out_at_once(hawkbit: Any, device: str) -> None:
    client = hawkbit.client()
    await hawkbit.configure("authentication.targettoken.enabled", True)
    await client.create_target(device, security_token="the-first-token")
    await client.update_target(device, security_token="the-second-token")
    assert await hawkbit.poll(device, Authorization="TargetToken the-first-token") == 401
    assert await hawkbit.poll(device, Authorization="TargetToken the-second-token") == 200


async def test_with_a_gateway_token_a_poll_brings_a_deleted_target_back(hawkbit: Any, device: str) -> None:
    client = hawkbit.client(ADMIN)
    await hawkbit.configure("authentication.gatewaytoken.key", "the-gateways-key")
    await hawkbit.configure("authentication.gatewaytoken.enabled", True)
    assert (await client.tenant_configuration()).polls_create_targets
    ours = await client.create_target(device, description="iot-bridge:here")
    assert await hawkbit.poll(device, Authorization="GatewayToken the-gateways-key") == 200
    assert (await client.find_target(device)).description == "iot-bridge:here"
    await client.delete_target(device)
    assert await hawkbit.poll(device, Authorization="GatewayToken not-the-key") == 401
    assert await client.find_target(device) is None
    assert await hawkbit.poll(device, Authorization="GatewayToken the-gateways-key") == 200
    back = await client.find_target(device)
    assert back.made_by_poll
    assert back.description == f"Plug and Play target: {device}"
    assert back.security_token != ours.security_token
    found = [
        t.controller_id async for t in client.list_targets(query="description=='Plug and Play*'") if t.made_by_poll
    ]
    assert device in found


async def test_headers_of_a_proxy_are_believed_blindly(hawkbit: Any, device: str) -> None:
    old = hawkbit.generation is Generation.MILESTONE
    name, authority = ("X-Ssl-Client-Cn", "X-Ssl-Issuer-Hash-1") if old else ("X-Controller-Id", "X-Authority")
    await hawkbit.configure("authentication.header.authority", "aa:bb")
    await hawkbit.configure("authentication.header.enabled", True)
    configuration = await hawkbit.client(ADMIN).tenant_configuration()
    assert (configuration.header_authority, configuration.accepts_any_device) == ("aa:bb", False)
    for headers, status in (
        ({name: device}, 401),
        ({authority: "aa:bb"}, 401),
        ({name: device, authority: "cc"}, 401),
        ({name: f"{device}-other", authority: "aa:bb"}, 401),
        ({name: device.upper(), authority: "aa:bb"}, 401),
        ({name: device, authority: ""}, 401),
        ({name: device, authority: "aa:bb"}, 200),
    ):
        assert await hawkbit.poll(device, **headers) == status, headers
    assert (await hawkbit.client().find_target(device)).made_by_poll


async def test_header_authentication_without_authority_lets_an_empty_one_in(hawkbit: Any, device: str) -> None:
    old = hawkbit.generation is Generation.MILESTONE
    name, authority = ("X-Ssl-Client-Cn", "X-Ssl-Issuer-Hash-1") if old else ("X-Controller-Id", "X-Authority")
    await hawkbit.configure("authentication.header.enabled", True)
    assert (await hawkbit.client(ADMIN).tenant_configuration()).accepts_any_device
    assert await hawkbit.poll(device, **{name: device, authority: ""}) == 200


async def test_config_data_is_kept_and_never_creates_a_target(hawkbit: Any, device: str) -> None:
    await hawkbit.configure("authentication.gatewaytoken.key", "the-gateways-key")
    await hawkbit.configure("authentication.gatewaytoken.enabled", True)
    token = {"Authorization": "GatewayToken the-gateways-key"}
    body = {"mode": "merge", "data": {"hw": "rev1"}}
    path = f"/DEFAULT/controller/v1/{device}/configData"
    assert (await hawkbit.ask("PUT", path, json=body, **token)).status_code == 404
    assert await hawkbit.client().find_target(device) is None
    assert await hawkbit.poll(device, **token) == 200
    assert (await hawkbit.ask("PUT", path, json=body, **token)).status_code == 200
    attributes = await hawkbit.ask("GET", f"/rest/v1/targets/{device}/attributes")
    assert attributes.json() == {"hw": "rev1"}
