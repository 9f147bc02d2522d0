"""What lies in ``device.key`` of a TPM: TSS2 PEM, the ASN.1 type ``TPMKey``.

Responsible for telling, without a TPM, whether content is a whole file of that format and what kind of key
it wraps. Not responsible for whether a TPM will take it.

The format: https://www.hansenpartnership.com/draft-bottomley-tpm2-keys.html ; the public part within it is a
TPM2B_PUBLIC (TCG TPM 2.0 Library, part 2, section 12.2).
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from dataclasses import dataclass
from typing import Final

from enroll.keys.provider import KeyFormatError

_PEM: Final = re.compile(
    rb"\s*-----BEGIN TSS2 PRIVATE KEY-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END TSS2 PRIVATE KEY-----\s*"
)
_LOADABLE_KEY: Final = bytes.fromhex("0606678105 0a0103".replace(" ", ""))
"""OBJECT IDENTIFIER 2.23.133.10.1.3."""

_BOOLEAN: Final = 0x01
_INTEGER: Final = 0x02
_OCTETS: Final = 0x04
_SEQUENCE: Final = 0x30
_TAGGED: Final = range(0xA0, 0xA6)
_EMPTY_AUTH: Final = 0xA0
_TPM_ALG_ECC: Final = 0x0023
_CURVES: Final = {0x0003: "P-256", 0x0004: "P-384"}
_LENGTH_IN_ONE: Final = 0x80


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """What can be said of a wrapped key without its TPM."""

    curve: str | None
    """``P-256`` or ``P-384``; ``None`` for a key of any other kind."""
    needs_secret: bool
    """Using the key takes a password."""


def parse(content: bytes) -> WrappedKey:
    """Read a TSS2 PEM file.

    :raises KeyFormatError: it is no such file, or not whole.
    """
    found = _PEM.fullmatch(content)
    if found is None:
        raise KeyFormatError("is no key of a TPM (TSS2 PRIVATE KEY)")
    try:
        return _key(base64.b64decode(b"".join(found[1].split()), validate=True))
    except (binascii.Error, struct.error, IndexError, ValueError) as e:
        raise KeyFormatError("is a damaged key of a TPM (TSS2 PRIVATE KEY)") from e


def _key(der: bytes) -> WrappedKey:
    elements = _elements(_only(der, _SEQUENCE))
    if elements.pop(0) != (_LOADABLE_KEY[0], _LOADABLE_KEY[2:]):
        raise ValueError("no loadable key")
    needs_secret = True
    while elements and elements[0][0] in _TAGGED:
        tag, value = elements.pop(0)
        if tag == _EMPTY_AUTH:
            needs_secret = _only(value, _BOOLEAN) == b"\0"
    kinds = [tag for tag, _ in elements]
    if kinds != [_INTEGER, _OCTETS, _OCTETS]:
        raise ValueError("not parent, public and private part")
    public, private = (_sized(value) for _, value in elements[1:])
    if not private:
        raise ValueError("no private part")
    return WrappedKey(_curve(public), needs_secret)


def _curve(public: bytes) -> str | None:
    """Return the curve of a TPMT_PUBLIC."""
    kind, _name_algorithm, _attributes, policy = struct.unpack_from(">HHIH", public)
    if kind != _TPM_ALG_ECC:
        return None
    at = 10 + policy
    symmetric, scheme = struct.unpack_from(">HH", public, at)
    at += 4
    null = 0x0010
    if symmetric != null:
        return None  # a key that wraps others
    at += 0 if scheme == null else 2
    return _CURVES.get(struct.unpack_from(">H", public, at)[0])


def _sized(value: bytes) -> bytes:
    """Return what a TPM2B holds: two bytes of length, then exactly so many."""
    (length,) = struct.unpack_from(">H", value)
    if len(value) != 2 + length:
        raise ValueError("length of a TPM2B")
    return value[2:]


def _only(der: bytes, tag: int) -> bytes:
    elements = _elements(der)
    if len(elements) != 1 or elements[0][0] != tag:
        raise ValueError("another element")
    return elements[0][1]


def _elements(der: bytes) -> list[tuple[int, bytes]]:
    """Return tag and value of each DER element, which together are the whole input."""
    found: list[tuple[int, bytes]] = []
    while der:
        tag, length, start = der[0], der[1], 2
        if length & _LENGTH_IN_ONE:
            start += length & ~_LENGTH_IN_ONE
            length = int.from_bytes(der[2:start], "big")
        if len(der) < start + length:
            raise ValueError("truncated")
        found.append((tag, der[start : start + length]))
        der = der[start + length :]
    return found
