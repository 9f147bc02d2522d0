"""The forms in which connect events come, recorded and told of, and what is none."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from thingsboard.models import ConnectEvent, OtherEvent
from thingsboard.webhook import MAX_BODY, parse_event

DATA = Path(__file__).parents[2] / "data" / "thingsboard"
STATE = {"lastConnectTime": 1795272950866, "lastDisconnectTime": 0}
AT = datetime.fromtimestamp(1795272950.866, UTC)


def recorded(name: str) -> tuple[bytes, dict[str, str]]:
    request = json.loads((DATA / f"{name}.json").read_text())["request"]
    return request["bodyRaw"].encode(), dict(request["headers"])


def body(content: object) -> bytes:
    return json.dumps(content).encode()


RECORDED = {
    "webhook_connect_envelope": ConnectEvent("gw-0001", None, "default", AT),
    "webhook_connect_envelope_with_id": ConnectEvent("gw-0001", "a35b49f0-e5bb-11f1-9d06-e99a25b22322", "default", AT),
    "webhook_connect_raw": ConnectEvent(None, None, None, AT),
    "webhook_failure_branch_500": ConnectEvent("gw-0002", None, "default", datetime.fromtimestamp(1795273176.849, UTC)),
    "webhook_failure_branch_refused": ConnectEvent(
        "gw-0002", None, "default", datetime.fromtimestamp(1795273190.641, UTC)
    ),
    "webhook_failure_branch_timeout": ConnectEvent(
        "gw-0002", None, "default", datetime.fromtimestamp(1795273181.722, UTC)
    ),
    "webhook_lifecycle_disconnect_event": OtherEvent("DISCONNECT_EVENT", "l-0001"),
    "webhook_lifecycle_entity_created": OtherEvent("ENTITY_CREATED", None),
    "webhook_lifecycle_entity_deleted": OtherEvent("ENTITY_DELETED", None),
    "webhook_lifecycle_entity_updated": OtherEvent("ENTITY_UPDATED", None),
    "webhook_lifecycle_provision_success": OtherEvent("PROVISION_SUCCESS", "l-0001"),
}


def test_every_recorded_message_has_its_meaning() -> None:
    assert RECORDED.keys() == {path.stem for path in DATA.glob("webhook_*.json")}
    for name, expected in RECORDED.items():
        assert parse_event(*recorded(name)) == expected, name


@pytest.mark.parametrize("kind", ["CONNECT_EVENT", "Connect Event", "Post connect", "POST_CONNECT", "post_connect"])
@pytest.mark.parametrize("data", [STATE, json.dumps(STATE), {}, "not JSON", None])
def test_complete_device_managements_form(kind: str, data: Any) -> None:
    content = {"msgType": kind, "metadata": {"deviceName": "gw-1", "deviceType": "gateway"}, "data": data}
    found = parse_event(body(content), {})
    assert isinstance(found, ConnectEvent)
    assert (found.device_name, found.device_type) == ("gw-1", "gateway")


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        ({"metadata": {"msgType": "CONNECT_EVENT", "deviceName": "gw-1"}}, {}),
        ({"data": {"event": "CONNECT_EVENT", "deviceName": "gw-1"}}, {}),
        ({"msg": {"event": "CONNECT_EVENT"}, "metadata": {"originatorName": "gw-1"}}, {}),
        ({"eventType": "Connect Event", "deviceName": "gw-1"}, {}),
        ({"deviceName": "gw-1"}, {"X-Event": "CONNECT_EVENT"}),
        (STATE, {"X-Device": "gw-1"}),
        (STATE, {"x-DEVICE": "gw-1"}),
        ({"event": "CONNECT_EVENT"}, {"X-Device-Name": "gw-1"}),
        ({"data": STATE, "metadata": {"deviceName": "gw-1"}}, {}),
    ],
)
def test_event_and_name_in_other_places(content: object, headers: dict[str, str]) -> None:
    found = parse_event(body(content), headers)
    assert isinstance(found, ConnectEvent)
    assert found.device_name == "gw-1"


def test_the_bodys_name_goes_before_the_headers() -> None:
    found = parse_event(body({"event": "CONNECT_EVENT", "deviceName": "body"}), {"X-Device": "header"})
    assert found == ConnectEvent("body")


def test_bare_data_of_a_disconnect_is_no_connect() -> None:
    assert parse_event(body({"lastConnectTime": 1000, "lastDisconnectTime": 2000}), {}) == OtherEvent()


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 256, 7, None, ["gw-1"], {"name": "gw-1"}, "a\x7f"])
def test_a_name_that_is_none_is_not_taken(name: Any) -> None:
    assert parse_event(body({"event": "CONNECT_EVENT", "deviceName": name}), {}) == ConnectEvent()


@pytest.mark.parametrize(
    "junk",
    [b"", b"null", b"[]", b'"CONNECT_EVENT"', b"{", b"\xff\xfe", b"[" * 20000, b'{"event":7}', b'{"event":""}'],
)
def test_junk_is_an_other_event(junk: bytes) -> None:
    assert parse_event(junk, {}) == OtherEvent()


def test_too_large_a_body_is_not_looked_at() -> None:
    content = body({"event": "CONNECT_EVENT", "deviceName": "gw-1", "filler": "x" * MAX_BODY})
    assert parse_event(content, {}) == OtherEvent()


def test_a_long_kind_is_cut() -> None:
    assert parse_event(body({"event": "x" * 1000}), {}) == OtherEvent("x" * 64)


@pytest.mark.parametrize("time", [0, -1, True, "1795272950866", 10**30, None, 1.5])
def test_nonsense_times_are_none(time: Any) -> None:
    found = parse_event(body({"event": "CONNECT_EVENT", "state": {"lastConnectTime": time}}), {})
    assert found == ConnectEvent()
