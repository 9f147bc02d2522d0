"""Names, keys and numbers of a device's identity: frozen values that cannot hold nonsense.

Responsible for parsing them at the edge. Not responsible for what the registry knows of them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final, NewType, Self

from bridge.errors import BadDeviceId, BadWireGuardKey

_DEVICE_ID: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?", re.ASCII)
_DOTTED_QUAD: Final = re.compile(r"[0-9]+(?:\.[0-9]+){3}", re.ASCII)
_HEX_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)

Pem = NewType("Pem", str)
"""One or more PEM blocks that were parsed, or made, by this process."""


@dataclass(frozen=True, slots=True)
class DeviceId:
    """The one name of a device in all systems: CN of the leaf, ThingsBoard name, hawkBit controllerId."""

    value: str

    def __post_init__(self) -> None:
        if not _DEVICE_ID.fullmatch(self.value):
            raise BadDeviceId("the device id breaks the naming rule")
        if _DOTTED_QUAD.fullmatch(self.value):
            raise BadDeviceId("a device id must not be an IP address")
        if self.folded == "localhost" or self.folded.endswith(".localhost"):
            raise BadDeviceId("a device id must not name this host")

    @property
    def folded(self) -> str:
        """The spelling that is unique: ASCII lower case."""
        return self.value.lower()

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class NamingRule:
    """The rule that a leaf must never name a server: ids equal to a host of ours are refused."""

    reserved: frozenset[str]
    """Host names of every configured URL and of the CA, in lower case."""

    def parse(self, text: str) -> DeviceId:
        """Return the id.

        :raises BadDeviceId: it breaks the naming rule, is an IP address, or names a server of ours.
        """
        device = DeviceId(text)
        if device.folded in self.reserved:
            raise BadDeviceId("a device id must not be the name of a server")
        return device


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A SHA-256 digest in lower-case hex: of a certificate's DER, of an SPKI, of a secret."""

    hex: str

    def __post_init__(self) -> None:
        if not _HEX_DIGEST.fullmatch(self.hex):
            raise ValueError("a fingerprint is 64 lower-case hex digits")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Accept upper case and colons, as openssl and step print it.

        :raises ValueError: it is not a SHA-256 digest.
        """
        return cls(text.strip().replace(":", "").lower())

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return the digest of ``data``."""
        return cls(hashlib.sha256(data).hexdigest())

    def __str__(self) -> str:
        return self.hex


@dataclass(frozen=True, slots=True)
class Serial:
    """A certificate's serial number, chosen by the bridge before the CA is asked (RFC 5280 4.1.2.2)."""

    value: int

    def __post_init__(self) -> None:
        if not 0 < self.value < 1 << 159:
            raise ValueError("a serial is positive and at most 20 octets long")

    @classmethod
    def from_random(cls, octets: bytes) -> Self:
        """Return a positive serial of exactly 128 bits from 16 random octets."""
        return cls(int.from_bytes(octets[:16], "big") | 1 << 127)

    def __str__(self) -> str:
        return str(self.value)


# Curve25519 points of small order: a peer with one of these shares no secret (RFC 7748, section 6.1).
_LOW_ORDER: Final = frozenset(
    bytes.fromhex(text)
    for text in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)


@dataclass(frozen=True, slots=True)
class WireGuardKey:
    """A WireGuard public key: canonical base64 of 32 bytes that is a usable Curve25519 point."""

    text: str

    def __post_init__(self) -> None:
        try:
            raw = base64.b64decode(self.text, validate=True)
        except (binascii.Error, ValueError) as e:
            raise BadWireGuardKey("the WireGuard key is not base64") from e
        if len(raw) != 32 or base64.b64encode(raw).decode() != self.text:  # noqa: PLR2004 - octets of X25519
            raise BadWireGuardKey("the WireGuard key is not the base64 of exactly 32 bytes")
        # The curve ignores the top bit (RFC 7748, section 5): with it one point would have two spellings.
        if raw[31] & 0x80:
            raise BadWireGuardKey("the WireGuard key has a bit set that no key made by `wg pubkey` has")
        if raw in _LOW_ORDER:
            raise BadWireGuardKey("the WireGuard key is a point of low order")

    def __str__(self) -> str:
        return self.text
