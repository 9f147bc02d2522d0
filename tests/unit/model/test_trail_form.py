"""The form that others check the trail by: octets that must never change, and values that are no entry."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from bridge.model.trail import Head, Malformed, canonical, digest, genesis, link

ENTRY: dict[str, Any] = {
    "id": 7,
    "at": 1772366400000001,
    "actor": "operator:zoë",
    "action": "device.decommissioned",
    "device": "cam-1",
    "request_id": None,
    "detail": '{"reason":"\\u00e9\\n\\""}',
}
OCTETS = (
    '{"action":"device.decommissioned","actor":"operator:zoë","at":1772366400000001,'
    '"detail":"{\\"reason\\":\\"\\\\u00e9\\\\n\\\\\\"\\"}","device":"cam-1","id":7,"request_id":null}'
).encode()


def test_octets_digest_and_chain_are_these() -> None:
    assert canonical(ENTRY | {"sequence": 3, "chain": "x"}) == OCTETS
    own = hashlib.sha256(OCTETS).digest()
    assert digest(ENTRY) == own
    start = hashlib.sha256(b"iot-bridge audit trail 1\x00" + b"0123456789abcdef").digest()
    assert genesis("0123456789abcdef") == start.hex()
    assert link(start.hex(), own) == hashlib.sha256(start + own).hexdigest()


def test_control_characters_are_written_as_rfc_8785_says() -> None:
    text = canonical(ENTRY | {"actor": '\x00\x1f\b\t\n\f\r"\\/\x7f\u2028'}).decode()
    assert '"actor":"\\u0000\\u001f\\b\\t\\n\\f\\r\\"\\\\/\x7f\u2028"' in text


@pytest.mark.parametrize(
    "change",
    [
        {"at": "noon"},
        {"at": 1.0},
        {"at": True},
        {"at": None},
        {"id": 2**53},
        {"actor": None},
        {"actor": b"x"},
        {"device": 5},
        {"detail": {}},
        {"detail": "\ud800"},
    ],
)
def test_what_is_no_entry_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        canonical(ENTRY | change)


def test_a_head_is_its_payload_and_nothing_else() -> None:
    head = Head("i", 5, "0" * 64, 3, 9)
    assert head.payload() == b'{"at":9,"chain":"' + b"0" * 64 + b'","installation":"i","previous":3,"sequence":5}'
    assert Head.parse(head.payload()) == head
    bad = [b"", b"[]", b"null", b"{}", head.payload() + b" ", head.payload().replace(b"5}", b'5,"x":1}')]
    bad += [head.payload().replace(b":9,", b":9.0,"), head.payload().replace(b":3,", b":5,")]
    for payload in bad:
        with pytest.raises(Malformed):
            Head.parse(payload)
