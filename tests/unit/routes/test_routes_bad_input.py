"""Bad input at the edge: each a clear problem, the CA never asked, nothing written."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import BadRequest, BadWireGuardKey
from bridge.model.identity import WireGuardKey
from bridge.routes.bodies import parse_fields, wireguard_key
from bridge.routes.reading import parse_object
from enroll.wire import MAX_BODY, PROBLEM_JSON, Problem


@pytest.fixture
async def post(open_house: Any) -> Any:
    """Post raw bytes and return the problem; whatever was sent, the CA signed nothing and no row was written."""

    async def refused(path: str, content: bytes, status: int = 422) -> Problem:
        async with open_house.client() as client:
            answer = await client.post(path, content=content)
        assert answer.headers["content-type"] == PROBLEM_JSON
        problem = Problem.from_json(answer.status_code, answer.json())
        assert problem is not None, answer.text
        assert problem.status == status == answer.json()["status"]
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert open_house.ca.signed == 0
        page = await open_house.registry.read(lambda tx: tx.devices("", 10, None))
        assert page.devices == ()
        assert open_house.counted("iot_bridge_enrollments_total", outcome=problem.code) == 1
        return problem

    return refused


def sealed(**fields: Any) -> Any:
    return json.dumps(fields).encode()


# -- the CSR ---------------------------------------------------------------------------------------------------------


def weak_rsa() -> Any:
    return rsa.generate_private_key(65537, 1024)


@pytest.mark.parametrize(
    "text",
    [
        "garbage",
        "",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        "-----BEGIN CERTIFICATE REQUEST-----\nnot base64!\n-----END CERTIFICATE REQUEST-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "\u202e-----BEGIN CERTIFICATE REQUEST-----",
        "-----BEGIN CERTIFICATE REQUEST-----" * 100,
    ],
)
async def test_a_csr_that_is_garbage(post: Any, text: str) -> None:
    problem = await post("/devices/pump-7/enroll", sealed(csr_pem=text))
    assert problem.code == ("bad_csr" if text else "bad_request")


@pytest.mark.parametrize(
    "build",
    [
        lambda new: new("other"),
        lambda new: new("Pump-7"),
        lambda new: new("pump-7", names=("pump-7", "other")),
        lambda new: new("pump-7", names=("pump-7", "pump-7")),
        lambda new: new(
            "pump-7", extensions=(x509.SubjectAlternativeName([x509.DNSName("pump-7"), x509.DNSName("evil")]),)
        ),
        lambda new: new("pump-7", extensions=(x509.SubjectAlternativeName([x509.DNSName("bridge.test")]),)),
        lambda new: new("pump-7", extensions=(x509.SubjectAlternativeName([x509.IPAddress(ip_address("10.0.0.1"))]),)),
        lambda new: new("pump-7", extensions=(x509.BasicConstraints(ca=True, path_length=None),)),
        lambda new: new("pump-7", key=weak_rsa()),
        lambda new: new("pump-7", key=ec.generate_private_key(ec.SECP192R1())),
        lambda new: new("pump-7", key=ec.generate_private_key(ec.SECP256K1())),
        lambda new: new("pump-7", key=dsa.generate_private_key(1024)),
        lambda new: new("pump-7") + new("pump-7"),
    ],
    ids=[
        "other-id",
        "other-spelling",
        "two-cns",
        "one-cn-twice",
        "extra-san",
        "other-san",
        "ip-san",
        "ca-true",
        "rsa-1024",
        "p-192",
        "secp256k1",
        "dsa",
        "two-csrs",
    ],
)
async def test_a_csr_that_asks_for_what_no_device_gets(post: Any, new_csr: Callable[..., str], build: Any) -> None:
    problem = await post("/devices/pump-7/enroll", sealed(csr_pem=build(new_csr)))
    assert problem.code == "bad_csr"
    assert problem.final


async def test_a_csr_whose_signature_is_broken(post: Any, new_csr: Callable[..., str]) -> None:
    der = bytearray(x509.load_pem_x509_csr(new_csr("pump-7").encode()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE REQUEST-----\n"
    problem = await post("/devices/pump-7/enroll", sealed(csr_pem=pem))
    assert problem.code == "bad_csr"
    assert "signature" in problem.detail


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["p-384", "ed25519", "rsa-2048"],
)
async def test_the_other_kinds_of_key_are_taken(open_house: Any, new_csr: Callable[..., str], key: Any) -> None:
    async with open_house.client() as client:
        answer = await client.post("/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7", key=key)})

    assert answer.status_code == 201


async def test_other_requested_extensions_are_ignored_and_never_copied(
    open_house: Any, new_csr: Callable[..., str]
) -> None:
    asked = (
        x509.KeyUsage(True, False, False, False, False, False, False, False, False),
        x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.BasicConstraints(ca=False, path_length=None),
    )
    async with open_house.client() as client:
        answer = await client.post("/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7", extensions=asked)})

    leaf = x509.load_pem_x509_certificate(answer.json()["cert"].encode())
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert isinstance(leaf.signature_hash_algorithm, hashes.SHA256)


# -- the device id ---------------------------------------------------------------------------------------------------


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


# -- the body --------------------------------------------------------------------------------------------------------


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
