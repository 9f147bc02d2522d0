"""Names, digests, serials and WireGuard keys that cannot hold nonsense."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import BadDeviceId, BadWireGuardKey
from bridge.model.identity import DeviceId, Fingerprint, NamingRule, Serial, WireGuardKey


@pytest.mark.parametrize("text", ["a", "7", "A.b_c-9", "a..b", "12345678", "1.2.3", "x" * 64, "a1.2.3.4"])
def test_device_id_is_kept_as_it_was_spelled(text: str) -> None:
    device = DeviceId(text)
    assert str(device) == device.value == text
    assert device.folded == text.lower()


BAD_IDS = {
    "empty": "",
    "too long": "x" * 65,
    "first a dot": ".a",
    "last a dash": "a-",
    "parent folder": "..",
    "slash": "a/b",
    "backslash": "a\\b",
    "blank": "a b",
    "blank around": " a",
    "line end": "a\n",
    "zero octet": "a\0b",
    "percent": "a%2fb",
    "other letters": "gerät",
    "other digits": "a٣b",
    "kelvin sign": "\u212a1",
    "address": "10.8.0.1",
    "address with zeros": "010.008.000.001",
    "address out of range": "999.1.1.1",
    "IPv6 address": "::1",
    "this host": "localhost",
    "this host in capitals": "LocalHost",
    "below this host": "a.localhost",
}


@pytest.mark.parametrize("text", BAD_IDS.values(), ids=BAD_IDS.keys())
def test_nonsense_is_no_device_id(text: str) -> None:
    with pytest.raises(BadDeviceId) as refused:
        DeviceId(text)
    assert text not in str(refused.value) or len(text) < 3


@settings(deadline=None)
@given(st.text(max_size=70))
def test_device_id_is_safe_wherever_it_is_written(text: str) -> None:
    try:
        device = DeviceId(text)
    except BadDeviceId:
        return
    assert device.value.isascii()
    assert 1 <= len(device.value) <= 64
    assert not set(device.value) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert device.value[0].isalnum()
    assert device.value[-1].isalnum()
    assert DeviceId(device.folded).folded == device.folded


@pytest.mark.parametrize("text", ["ca.example.com", "CA.Example.Com"])
def test_device_is_never_named_like_a_server(text: str) -> None:
    with pytest.raises(BadDeviceId, match="server"):
        NamingRule(frozenset({"ca.example.com"})).parse(text)
    assert NamingRule(frozenset({"ca.example.com"})).parse("a-" + text).value == "a-" + text


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_fingerprint_is_read_as_openssl_and_step_print_it(data: bytes) -> None:
    digest = Fingerprint.of(data)
    pairs = [digest.hex[i : i + 2].upper() for i in range(0, 64, 2)]
    assert Fingerprint.parse(":".join(pairs)) == Fingerprint.parse(f" {digest} \n") == digest


@pytest.mark.parametrize("text", ["", "ab", "g" * 64, "a" * 63, "a" * 65, "A" * 63 + "\n"])
def test_nonsense_is_no_fingerprint(text: str) -> None:
    with pytest.raises(ValueError, match="64 lower-case hex digits"):
        Fingerprint.parse(text)


def test_fingerprint_itself_is_lower_case() -> None:
    with pytest.raises(ValueError, match="lower-case"):
        Fingerprint("A" * 64)


@settings(deadline=None)
@given(st.binary(min_size=16, max_size=40))
def test_serial_is_positive_and_of_one_length(octets: bytes) -> None:
    serial = Serial.from_random(octets)
    assert serial.value.bit_length() == 128
    assert serial == Serial.from_random(octets[:16])
    assert int(str(serial)) == serial.value


@settings(deadline=None)
@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_serials_differ_where_randomness_differs_below_the_top_bit(one: bytes, other: bytes) -> None:
    same = (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")) & ((1 << 127) - 1) == 0
    assert (Serial.from_random(one) == Serial.from_random(other)) == same


@pytest.mark.parametrize("number", [0, -1, 1 << 159])
def test_nonsense_is_no_serial(number: int) -> None:
    with pytest.raises(ValueError, match="serial"):
        Serial(number)


def test_largest_serial_has_twenty_octets() -> None:
    assert Serial((1 << 159) - 1).value.bit_length() == 159


P = 2**255 - 19
ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
LOW_ORDER = (0, 1, *ORDER_8, P - 1, P, P + 1)


@pytest.mark.parametrize("point", LOW_ORDER)
@pytest.mark.parametrize("top_bit", [0, 1 << 255])
def test_point_of_low_order_is_no_key_however_it_is_spelled(point: int, top_bit: int) -> None:
    raw = (point | top_bit).to_bytes(32, "little")
    with pytest.raises(BadWireGuardKey):
        WireGuardKey(base64.b64encode(raw).decode())


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_key_has_one_spelling(raw: bytes) -> None:
    text = base64.b64encode(raw).decode()
    point = int.from_bytes(raw, "little")
    if point >> 255 or point in LOW_ORDER:
        with pytest.raises(BadWireGuardKey):
            WireGuardKey(text)
        return
    assert str(WireGuardKey(text)) == text
    spelled_otherwise = text[:-2] + chr(ord(text[-2]) + 1) + "="  # the last two bits of base64 say nothing
    for other in (text[:-1], text + "\n", " " + text, text + "=", text.replace("=", ""), spelled_otherwise):
        with pytest.raises(BadWireGuardKey):
            WireGuardKey(other)


@pytest.mark.parametrize("size", [0, 1, 31, 33, 64])
def test_key_has_32_octets(size: int) -> None:
    with pytest.raises(BadWireGuardKey):
        WireGuardKey(base64.b64encode(b"\x11" * size).decode())


@pytest.mark.parametrize("text", ["not base64!", "ключ", "A" * 43 + "\u00e9", "-_" * 21 + "A="])
def test_nonsense_is_no_key(text: str) -> None:
    with pytest.raises(BadWireGuardKey) as refused:
        WireGuardKey(text)
    assert text not in str(refused.value)
