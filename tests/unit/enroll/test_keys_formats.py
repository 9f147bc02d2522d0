"""What lies in device.key for hardware: read without the hardware, whole or not at all."""

from __future__ import annotations

import base64
import random
import struct
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enroll.keys import KeyFormatError, tss2
from enroll.keys.pkcs11_uri import KeyName

P256_OF_A_TPM = b"""-----BEGIN TSS2 PRIVATE KEY-----
MIHwBgZngQUKAQOgAwEBAQIEQAAAAQRYAFYAIwALAAYAcgAAABAAEAADABAAIKes
qKvv7s847PDp3yAMLJBROsDH26ty6EqVp7yx7oQiACCffczq6+jyYQJryTrh/Gfn
ibBvv3U31eZnFyOHAOKZVASBgAB+ACDdsh3swZKi3XxBfUmg1cCLF7ZQ4klTznEa
1VPQ8v/CyAAQf+IbxtJDSOaqgFj/2dUb7XGGQQrXPnqORj/UItIsvSF/wCooPjyc
nq+zxtwANQFVXFVLiGmh/GX78wGiu1hMZznhad9lLAxOcKUk/xoD9y3gst/+VRIu
C6QL
-----END TSS2 PRIVATE KEY-----
"""
HEAD, TAIL = P256_OF_A_TPM.split(b"\n", 1)[0] + b"\n", b"-----END TSS2 PRIVATE KEY-----\n"
DER = base64.b64decode(b"".join(P256_OF_A_TPM.splitlines()[1:-1]))


def armoured(der: bytes) -> bytes:
    return HEAD + base64.encodebytes(der) + TAIL


def element(tag: int, value: bytes) -> bytes:
    size = bytes([len(value)]) if len(value) < 0x80 else b"\x82" + struct.pack(">H", len(value))
    return bytes([tag]) + size + value


def a_key(*, empty_auth: bytes | None = b"\xff", public: bytes | None = None) -> bytes:
    """A file as tpm2-openssl or another writer may make it."""
    auth = b"" if empty_auth is None else element(0xA0, element(0x01, empty_auth))
    parts = bytes.fromhex("06066781050a0103") + auth + element(0x02, bytes.fromhex("40000001"))
    private = struct.pack(">H", 4) + b"wrap"
    body = public if public is not None else ecc(3)
    return armoured(element(0x30, parts + element(0x04, struct.pack(">H", len(body)) + body) + element(0x04, private)))


def ecc(curve: int, scheme: bytes = b"\0\x10") -> bytes:
    head = struct.pack(">HHIH", 0x23, 0x0B, 0x60072, 0)
    return head + b"\0\x10" + scheme + struct.pack(">HH", curve, 0x10) + b"\0\x20" + b"x" * 32 + b"\0\x20" + b"y" * 32


def test_a_key_that_a_tpm_wrapped() -> None:
    assert tss2.parse(P256_OF_A_TPM) == tss2.WrappedKey("P-256", needs_secret=False)
    assert tss2.parse(armoured(DER)) == tss2.WrappedKey("P-256", needs_secret=False)
    assert tss2.parse(P256_OF_A_TPM.replace(b"\n", b"\r\n")) == tss2.parse(P256_OF_A_TPM)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (a_key(), tss2.WrappedKey("P-256", needs_secret=False)),
        (a_key(empty_auth=b"\0"), tss2.WrappedKey("P-256", needs_secret=True)),
        (a_key(empty_auth=None), tss2.WrappedKey("P-256", needs_secret=True)),
        (a_key(public=ecc(4)), tss2.WrappedKey("P-384", needs_secret=False)),
        (a_key(public=ecc(3, struct.pack(">HH", 0x18, 0x0B))), tss2.WrappedKey("P-256", needs_secret=False)),
        (a_key(public=ecc(0x20)), tss2.WrappedKey(None, needs_secret=False)),
        (
            a_key(public=struct.pack(">HHIH", 1, 0x0B, 0x60072, 0) + b"\0" * 300),
            tss2.WrappedKey(None, needs_secret=False),
        ),
    ],
    ids=["as openssl", "with a password", "older writers", "P-384", "with a scheme", "SM2", "RSA"],
)
def test_what_can_be_said_without_the_tpm(content: bytes, found: tss2.WrappedKey) -> None:
    assert tss2.parse(content) == found


@pytest.mark.parametrize("size", range(0, len(DER), 7))
def test_a_torn_file_is_refused_wherever_it_ends(size: int) -> None:
    torn = P256_OF_A_TPM[:size]
    for content in (armoured(DER[:size]), torn, torn + bytes(len(P256_OF_A_TPM) - size)):
        with pytest.raises(KeyFormatError):
            tss2.parse(content)


@given(st.binary(max_size=300))
def test_rubbish_never_surprises(content: bytes) -> None:
    for given_content in (content, armoured(content)):
        with pytest.raises(KeyFormatError):
            tss2.parse(given_content)


@given(st.integers(0, len(DER) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_a_key_or_refused(at: int, flip: int) -> None:
    """What is within the wrapping, the TPM judges."""
    changed = bytearray(DER)
    changed[at] ^= flip
    try:
        tss2.parse(armoured(bytes(changed)))
    except KeyFormatError:
        return


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
NAMES = st.builds(KeyName, TEXT, TEXT, st.binary(min_size=1, max_size=20), TEXT)


@given(NAMES)
def test_a_name_is_read_back_as_it_was(name: KeyName) -> None:
    content = name.content()
    assert KeyName.parse(content) == name
    lines = content.decode().splitlines()
    assert lines[0] == name.uri()
    assert lines[0].isascii()
    assert unquote(lines[0]).startswith(f"pkcs11:token={name.token};serial={name.serial};id=")
    assert lines[1], lines[-1] == ("-----BEGIN PKCS#11 PROVIDER URI-----", "-----END PKCS#11 PROVIDER URI-----")
    der = base64.b64decode("".join(lines[2:-1]))
    assert der.endswith(name.uri().encode())
    assert b"PKCS#11 Provider URI v1.0" in der


@given(NAMES, st.data())
def test_a_torn_name_is_refused(name: KeyName, data: st.DataObject) -> None:
    content = name.content()
    size = data.draw(st.integers(0, len(content) - 1))
    for torn in (content[:size], content[:size] + bytes(len(content) - size)):
        with pytest.raises(KeyFormatError):
            KeyName.parse(torn)


@given(st.binary(max_size=200))
def test_rubbish_names_nothing(content: bytes) -> None:
    for given_content in (content, b"pkcs11:" + content + b"\n"):
        with pytest.raises(KeyFormatError):
            KeyName.parse(given_content)


def test_a_uri_with_a_pin_is_refused() -> None:
    name = KeyName("dev", "1", random.Random(1).randbytes(16), "iot-enroll dev-1")
    content = name.content().replace(b";type=private\n", b";type=private?pin-value=1234\n")
    with pytest.raises(KeyFormatError):
        KeyName.parse(content)
