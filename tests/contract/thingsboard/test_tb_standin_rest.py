"""The stand-in's REST side against odd requests: it refuses as ThingsBoard does and stays up."""

import json
from typing import Any

import httpx
import pytest

from thingsboard.client import ThingsBoardClient
from thingsboard.standin import EmbeddedThingsBoard

UNKNOWN = "13814000-1dd2-11b2-8080-808080808080"
SHAPES: list[Any] = [
    [],
    7,
    None,
    "text",
    {},
    {"id": "text"},
    {"id": []},
    {"name": 7},
    {"name": "x", "deviceProfileId": "text"},
    {"device": {}, "credentials": {}},
    {"device": {"name": "x"}, "credentials": {"credentialsType": "X509_CERTIFICATE"}},
    {"device": {"name": "x"}, "credentials": {"credentialsType": "ACCESS_TOKEN"}},
    {"device": {"name": "x"}, "credentials": {"credentialsType": None, "credentialsId": "a"}},
    {"device": {"name": " "}, "credentials": {"credentialsType": "ACCESS_TOKEN", "credentialsId": "a"}},
    {"deviceId": {"id": UNKNOWN}},
    {"ruleChainId": {"id": UNKNOWN}},
    {"ruleChainId": "text", "nodes": 7},
]
ROUTES = [
    "/api/device-with-credentials",
    "/api/device/credentials",
    "/api/device",
    "/api/deviceProfile",
    "/api/ruleChain",
    "/api/ruleChain/metadata",
]


@pytest.fixture
async def token(board: EmbeddedThingsBoard, http: httpx.AsyncClient) -> dict[str, str]:
    body = {"username": "tenant@thingsboard.org", "password": "right password"}
    answer = await http.post(f"{board.rest_url}/api/auth/login", json=body)
    return answer.json()


@pytest.fixture
def headers(token: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {token['token']}"}


@pytest.mark.parametrize("route", ROUTES)
async def test_any_shape_is_refused_in_the_usual_form(
    board: EmbeddedThingsBoard, http: httpx.AsyncClient, headers: dict[str, str], client: ThingsBoardClient, route: str
) -> None:
    bodies = [json.dumps(shape) for shape in SHAPES] + ["", "{", "\x00", "[" * 5000]
    for body in bodies:
        answer = await http.post(board.rest_url + route, content=body, headers=headers)
        if '"name": "x", "deviceProfileId"' in body and route in {"/api/deviceProfile", "/api/ruleChain"}:
            continue  # there it is a name and a field that does not matter
        assert answer.status_code in {400, 404, 500}, (body, answer.text)
        assert answer.json().keys() == {"status", "message", "errorCode", "timestamp"}
        assert answer.headers["content-type"] == "application/json;charset=ISO-8859-1"
    assert await client.find_device("x") is None


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/tenant/devices", 400, 31),
        ("/api/tenant/devices?pageSize=0&page=0", 400, 31),
        ("/api/tenant/devices?pageSize=x&page=0", 400, 31),
        ("/api/no/such/route", 404, 32),
        (f"/api/ruleChain/{UNKNOWN}/metadata", 404, 32),
        (f"/api/device/{UNKNOWN}/credentials", 404, 32),
    ],
)
async def test_reads_are_refused_in_the_usual_form(
    board: EmbeddedThingsBoard, http: httpx.AsyncClient, headers: dict[str, str], path: str, status: int, code: int
) -> None:
    answer = await http.get(board.rest_url + path, headers=headers)
    assert (answer.status_code, answer.json()["errorCode"]) == (status, code)
    assert (await http.get(board.rest_url + path)).status_code == 401


async def test_a_refresh_token_is_no_access_token_and_the_other_way_round(
    board: EmbeddedThingsBoard, http: httpx.AsyncClient, token: dict[str, str]
) -> None:
    answer = await http.get(
        f"{board.rest_url}/api/tenant/devices?deviceName=x",
        headers={"X-Authorization": f"Bearer {token['refreshToken']}"},
    )
    assert answer.status_code == 500, "as recorded on a running ThingsBoard"
    answer = await http.post(f"{board.rest_url}/api/auth/token", json={"refreshToken": token["token"]})
    assert (answer.status_code, answer.json()["errorCode"]) == (401, 10)


@pytest.mark.parametrize("body", ["[]", "7", "null", "not JSON"])
async def test_attributes_that_are_no_object_are_refused_in_plain_text(
    board: EmbeddedThingsBoard, http: httpx.AsyncClient, headers: dict[str, str], client: ThingsBoardClient, body: str
) -> None:
    made = await client.request("POST", "/api/device", {"name": "x"})
    path = f"/api/plugins/telemetry/DEVICE/{made['id']['id']}/attributes/SERVER_SCOPE"
    answer = await http.post(board.rest_url + path, content=body, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "text/plain;charset=UTF-8")


async def test_pages_are_cut_and_counted(client: ThingsBoardClient) -> None:
    for number in range(5):
        await client.request("POST", "/api/device", {"name": f"gw-{number}"})
    seen = []
    for page in range(3):
        params = {"pageSize": "2", "page": str(page), "textSearch": "GW-"}
        content = await client.request("GET", "/api/tenant/devices", params=params)
        assert (content["totalPages"], content["totalElements"], content["hasNext"]) == (3, 5, page < 2)
        seen += [entry["name"] for entry in content["data"]]
    assert sorted(seen) == [f"gw-{number}" for number in range(5)]


async def test_a_renamed_device_is_found_by_its_new_name_only(client: ThingsBoardClient) -> None:
    made = await client.request("POST", "/api/device", {"name": "old"})
    await client.request("POST", "/api/device", {"name": "other"})
    await client.request("POST", "/api/device", {**made, "name": "new"})
    assert await client.find_device("old") is None
    found = await client.find_device("new")
    assert found is not None
    assert (found.id, found.version) == (made["id"]["id"], 2)
