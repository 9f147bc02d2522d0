"""Device ids and WireGuard keys that can be none: refused at the edge, nothing written."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from bridge.errors import BadWireGuardKey
from bridge.model.identity import WireGuardKey
from bridge.routes.bodies import wireguard_key


def sealed(**fields: Any) -> Any:
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    "device",
    [
        "",
        "/",
        "a/b",
        "..",
        ".",
        "../../etc/passwd",
        "a b",
        " a",
        "a\n",
        "\n",
        "a\nb",
        "a\x00b",
        "a\x7f",
        "a" * 65,
        "-a",
        "a-",
        ".a",
        "_",
        "ä",
        "\uff41",
        "a%2Fb",
        "a\u202eb",
        "a*",
        "192.168.1.1",
        "1.2.3.4",
        "999.999.999.999",
        "::1",
        "localhost",
        "LOCALHOST",
        "x.localhost",
        "bridge.test",
        "Bridge.Test",
        "ca.example.com",
        "devices/x/enroll",
    ],
)
@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_an_id_that_can_be_none_is_422_and_not_a_404_of_the_router(post: Any, prefix: str, device: str) -> None:
    problem = await post(f"{prefix}/devices/{quote(device, safe='').replace('.', '%2E')}/enroll", b"{}")
    assert problem.code == "bad_device_id"
    assert "64" in problem.detail  # the rule is said


async def test_slashes_that_are_not_encoded_are_422_too(post: Any) -> None:
    problem = await post("/devices/a/b/c/enroll", b"{}")
    assert problem.code == "bad_device_id"


@pytest.mark.parametrize("device", ["a", "A" * 64, "a.b_c-D.9", "0", "1.2.3", "1.2.3.4.5", "pump-7.hall-2"])
async def test_ids_that_are_allowed(open_house: Any, new_csr: Callable[..., str], device: str) -> None:
    async with open_house.client() as client:
        answer = await client.post(f"/devices/{device}/enroll", json={"csr_pem": new_csr(device)})

    assert answer.status_code == 201
    assert answer.json()["device_id"] == device


# -- the WireGuard key -----------------------------------------------------------------------------------------------

GOOD_KEY = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="


@pytest.mark.parametrize(
    "key",
    [
        "",
        "abc",
        GOOD_KEY + "\n",
        "\n" + GOOD_KEY,
        GOOD_KEY[:20] + "\n" + GOOD_KEY[20:],
        GOOD_KEY + "\n[Interface]\nPostUp = touch /x",
        GOOD_KEY[:-1],
        GOOD_KEY + " ",
        GOOD_KEY.replace("=", ""),
        GOOD_KEY[:-2] + "h=",  # not canonical: bits behind the last octet
        base64.b64encode(bytes(32)).decode(),
        base64.b64encode(bytes(31)).decode(),
        base64.b64encode(bytes(33)).decode(),
        base64.b64encode(b"\1" + bytes(31)).decode(),
        base64.b64encode(bytes(31) + b"\x80").decode(),
        base64.urlsafe_b64encode(b"\xff" * 30 + b"\x01\x02").decode(),
        "é" * 44,
    ],
)
async def test_a_wireguard_key_that_no_peer_can_have(post: Any, new_csr: Callable[..., str], key: Any) -> None:
    problem = await post("/devices/pump-7/enroll", sealed(csr_pem=new_csr("pump-7"), wg_public_key=key))
    assert problem.code == "bad_wg_key"


async def test_the_servers_own_wireguard_key(post: Any, new_csr: Callable[..., str], server_wg_key: str) -> None:
    body = sealed(csr_pem=new_csr("pump-7"), wg_public_key=server_wg_key)
    problem = await post("/devices/pump-7/enroll", body)
    assert problem.code == "bad_wg_key"
    assert "server's own" in problem.detail


def test_the_servers_own_key_is_known_with_the_bit_set_that_the_curve_ignores(server_wg_key: str) -> None:
    raw = bytearray(base64.b64decode(server_wg_key))
    raw[31] |= 0x80
    with pytest.raises(BadWireGuardKey):
        wireguard_key(base64.b64encode(bytes(raw)).decode(), WireGuardKey(server_wg_key))
