"""Laws of reading connect events: whatever comes, there is an answer, and it is bounded."""

import json

from hypothesis import given
from hypothesis import strategies as st

from thingsboard.models import ConnectEvent, OtherEvent
from thingsboard.webhook import parse_event

FIELDS = st.sampled_from(
    ["event", "msgType", "type", "metadata", "data", "msg", "state", "deviceName", "deviceId", "lastConnectTime", "x"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("CONNECT_EVENT"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=6),
    max_leaves=20,
)
HEADERS = st.dictionaries(st.sampled_from(["X-Device", "x-event", "other"]), st.text(max_size=300), max_size=3)


@given(st.binary(max_size=300), HEADERS)
def test_any_bytes_are_read(body: bytes, headers: dict[str, str]) -> None:
    assert isinstance(parse_event(body, headers), ConnectEvent | OtherEvent)


@given(VALUES, HEADERS)
def test_any_json_is_read_within_bounds(content: object, headers: dict[str, str]) -> None:
    found = parse_event(json.dumps(content).encode(), headers)
    name = found.device_name
    assert name is None or (0 < len(name) <= 255 and not any(ord(char) < 32 for char in name))
    if isinstance(found, OtherEvent) and found.kind is not None:
        assert len(found.kind) <= 64


@given(st.dictionaries(FIELDS, VALUES, max_size=8), st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True))
def test_an_envelope_always_says_whose_it_is(noise: dict[str, object], name: str) -> None:
    found = parse_event(json.dumps({**noise, "event": "CONNECT_EVENT", "deviceName": name}).encode(), {})
    assert isinstance(found, ConnectEvent)
    assert found.device_name == name
