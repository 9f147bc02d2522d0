"""Bodies that are too large, not JSON, or not of the agreed shape; and the laws of the parser."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import BadRequest
from bridge.routes.bodies import parse_fields
from bridge.routes.reading import parse_object
from enroll.wire import MAX_BODY


def sealed(**fields: Any) -> Any:
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"[]",
        b'"text"',
        b"null",
        b"1",
        b"{",
        b'{"csr_pem":"x"} trailing',
        b"\xef\xbb\xbf{}",
        b'{"csr_pem":"\xff\xfe"}',
        '{"csr_pem":"x"}'.encode("utf-16"),
        '{"csr_pem":"x"}'.encode("utf-32"),
        b'{"csr_pem":"a\nb"}',
        b'{"csr_pem":"x","csr_pem":"y"}',
        b'{"csr_pem":"x","hardware":{"a":1,"a":2}}',
        b'{"hardware":{"ram":NaN}}',
        b'{"hardware":{"ram":Infinity}}',
        b'{"hardware":{"ram":-Infinity}}',
        b'{"x":' + b"9" * 10_000 + b"}",
        b"[" * 16_000 + b"]" * 16_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"hardware":' + b"[" * 900 + b"]" * 900 + b"}",
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
        b"csr_pem=x&device_name=y",
        b"{}",
    ],
)
async def test_a_body_that_is_not_the_agreed_json(post: Any, content: bytes) -> None:
    problem = await post("/devices/pump-7/enroll", content)
    assert problem.code == "bad_request"
    assert "/docs" in problem.detail


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("csr_pem", 7),
        ("csr_pem", ["x"]),
        ("csr_pem", None),
        ("csr", {"x": 1}),
        ("wg_public_key", 7),
        ("device_name", 7),
        ("device_name", "x" * 256),
        ("device_name", "a\nb"),
        ("device_name", "a\x1b[31m"),
        ("device_name", "a\x00"),
        ("device_name", "a\x85b"),
        ("device_name", "a\u2028b"),
        ("device_name", "a\u202eb"),
        ("device_type", "a\rb"),
        ("device_type", "x" * 256),
        ("device_type", True),
        ("voucher", 4711),
        ("voucher", "x" * 256),
        ("proof", 1),
        ("hardware", "text"),
        ("hardware", []),
        ("hardware", {"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}}),
        ("hardware", {str(n): n for n in range(257)}),
        ("hardware", {"a": "x" * 1025}),
        ("hardware", {"x" * 1025: 1}),
        ("hardware", {"a": "\x00"}),
        ("hardware", {"a": 1 << 63}),
        ("hardware", {"a": float("1e300") * 1e300}),
        ("network", {"a": [[[[[[1]]]]]]}),
        ("network", 1),
    ],
)
async def test_a_field_of_another_kind_is_named_and_its_value_is_not_repeated(
    post: Any, new_csr: Callable[..., str], field: str, value: Any
) -> None:
    body = json.dumps({"csr_pem": new_csr("pump-7")} | {field: value}).replace("Infinity", "1e999").encode()
    problem = await post("/devices/pump-7/enroll", body)
    assert problem.code == "bad_request"
    assert field in problem.detail
    assert "4711" not in problem.detail
    assert "xxxx" not in problem.detail


@pytest.mark.parametrize("field", ["csr_pem", "device_name", "voucher", "device_id", "proof"])
async def test_half_a_character_is_no_text(post: Any, new_csr: Callable[..., str], field: str) -> None:
    fields = {"csr_pem": new_csr("pump-7")} | {field: "PLACE"}
    body = json.dumps(fields).replace("PLACE", "\\ud800").encode()
    problem = await post("/devices/pump-7/enroll", body)
    assert problem.code == "bad_request"


async def test_half_a_character_in_inventory(post: Any, new_csr: Callable[..., str]) -> None:
    body = json.dumps({"csr_pem": new_csr("pump-7"), "hardware": {"a": "\ud800"}}).encode()
    problem = await post("/devices/pump-7/enroll", body)
    assert problem.code == "bad_request"


async def test_two_different_csrs(post: Any, new_csr: Callable[..., str]) -> None:
    problem = await post("/devices/pump-7/enroll", sealed(csr_pem=new_csr("pump-7"), csr=new_csr("pump-7")))
    assert problem.code == "bad_request"


async def test_a_body_of_exactly_the_limit_is_read(open_house: Any, new_csr: Callable[..., str]) -> None:
    body = sealed(csr_pem=new_csr("pump-7"), filler="")
    body = body.replace(b'"filler": ""', b'"filler": "' + b"x" * (MAX_BODY - len(body)) + b'"')
    assert len(body) == MAX_BODY
    async with open_house.client() as client:
        answer = await client.post("/devices/pump-7/enroll", content=body)

    assert answer.status_code == 201


@pytest.mark.parametrize("path", ["/devices/pump-7/enroll", "/v1/enroll", "/api/v1/enroll"])
async def test_a_body_one_octet_over_the_limit_is_413(post: Any, path: Any) -> None:
    problem = await post(path, b"x" * (MAX_BODY + 1), status=413)
    assert problem.code == "too_large"


async def test_a_body_without_length_is_cut_off_while_it_streams(open_house: Any) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 100:
            sent += 1
            yield b"x" * 4096

    async with open_house.client() as client:
        answer = await client.post("/devices/pump-7/enroll", content=endless())

    assert answer.status_code == 413
    assert answer.headers["connection"] == "close"
    assert sent <= 10


@pytest.mark.parametrize("length", ["99999999999999999999", "1" * 5000, "32769"])
async def test_a_length_that_is_over_the_limit_is_believed(open_house: Any, length: str) -> None:
    async with open_house.client() as client:
        answer = await client.post("/devices/pump-7/enroll", content=b"{}", headers={"Content-Length": length})

    assert answer.status_code == 413


@pytest.mark.parametrize("length", ["", "-1", "+2", "0x2", "two", "\u00b2"])
async def test_a_length_that_is_no_number_is_not_believed(
    open_house: Any, new_csr: Callable[..., str], length: str
) -> None:
    headers = [(b"Content-Length", length.encode("latin-1"))]
    async with open_house.client() as client:
        answer = await client.post("/devices/pump-7/enroll", content=sealed(csr_pem=new_csr("pump-7")), headers=headers)

    assert answer.status_code == 201


# -- laws ------------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_make_the_parser_do_anything_but_refuse_or_return_an_object(content: bytes) -> None:
    with contextlib.suppress(BadRequest):
        assert isinstance(parse_object(content), dict)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
NAMES = st.sampled_from(["csr_pem", "csr", "device_id", "wg_public_key", "device_name", "hardware", "network", "x"])


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(NAMES, JSON, max_size=6))
def test_whatever_the_fields_hold_they_are_refused_by_name_or_can_be_kept(fields: Any) -> None:
    with contextlib.suppress(BadRequest):
        parsed = parse_fields(fields)
        json.dumps([parsed.hardware, parsed.network], allow_nan=False, ensure_ascii=False).encode()
        (parsed.device_name or "").encode()
