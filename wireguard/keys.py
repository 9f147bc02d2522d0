"""WireGuard keys as values that cannot hold nonsense.

Responsible for the text form of Curve25519 keys (RFC 7748, section 5) as `wg` reads and prints it, and
for making key pairs without a process. Not responsible for where private keys are kept.
"""

import base64
import binascii
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from wireguard.errors import InvalidKeyError

KEY_BYTES = 32
_TEXT_LENGTH = 44
_FIELD_PRIME = 2**255 - 19
# The u-coordinates of all points whose order divides the cofactor 8, modulo the field prime: with any of
# them every Diffie-Hellman result is zero, whoever takes part (RFC 7748, section 6.1).
_LOW_ORDER = frozenset(
    {
        0,
        1,
        _FIELD_PRIME - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)


def _decode(text: str) -> bytes:
    if len(text) != _TEXT_LENGTH or not text.isascii():
        raise InvalidKeyError(f"A WireGuard key is {_TEXT_LENGTH} characters of base64, this has {len(text)}.")
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise InvalidKeyError("A WireGuard key is base64 of 32 bytes; this is not base64.") from error
    if len(raw) != KEY_BYTES or base64.b64encode(raw).decode("ascii") != text:
        raise InvalidKeyError("A WireGuard key is the canonical base64 of exactly 32 bytes; this is not.")
    return raw


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PeerKey:
    """32 bytes by which an interface knows a peer, whatever they are worth as a key.

    `wg` lets anybody add a peer with an all-zero or low-order key; to show and remove such a peer it must
    be possible to name it. Everything that *adds* a peer takes a `PublicKey`. A `PeerKey` and a
    `PublicKey` of the same bytes are equal.
    """

    raw: bytes

    def __post_init__(self) -> None:
        """Refuse anything but 32 bytes."""
        if type(self.raw) is not bytes or len(self.raw) != KEY_BYTES:
            raise InvalidKeyError("A WireGuard key is exactly 32 bytes.")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the canonical base64 form: no newline, no blank, no missing padding.

        Raises:
            InvalidKeyError: it is something else.

        """
        return cls(_decode(text))

    def __str__(self) -> str:
        return base64.b64encode(self.raw).decode("ascii")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"

    def __eq__(self, other: object) -> bool:
        return self.raw == other.raw if isinstance(other, PeerKey) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.raw)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PublicKey(PeerKey):
    """A public key that a peer can really have: a canonical point that is not of low order.

    A point with its top bit set, or not below the field prime, is another spelling of a key that
    implementations never send: WireGuard would not recognise its owner, and a unique index would take one
    key for two. Both are refused, as are the all-zero key and the other points of low order.
    """

    def __post_init__(self) -> None:
        """Refuse what no X25519 key pair can have as its public half."""
        PeerKey.__post_init__(self)
        point = int.from_bytes(self.raw, "little")
        if point % 2**255 % _FIELD_PRIME in _LOW_ORDER:
            raise InvalidKeyError("A WireGuard public key of zeros or of low order; make a new key pair.")
        if point >= _FIELD_PRIME:
            raise InvalidKeyError("This WireGuard public key is not in canonical form; make a new key pair.")


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key. Neither `repr` nor `str` shows it; `reveal` does."""

    raw: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse anything but 32 bytes that are not all zero (`wg` reads those as: no key)."""
        if type(self.raw) is not bytes or len(self.raw) != KEY_BYTES or not any(self.raw):
            raise InvalidKeyError("A WireGuard private key is exactly 32 bytes, not all zero.")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the canonical base64 form, as `wg genkey` prints it without its newline.

        Raises:
            InvalidKeyError: it is something else; the text of the error does not repeat it.

        """
        return cls(_decode(text))

    @classmethod
    def generate(cls, randomness: Callable[[int], bytes] = os.urandom) -> Self:
        """Make a new key as `wg genkey` does: 32 random bytes, clamped (RFC 7748, section 5)."""
        raw = bytearray(randomness(KEY_BYTES))
        if len(raw) != KEY_BYTES:
            raise InvalidKeyError(f"The source of randomness gave {len(raw)} bytes instead of {KEY_BYTES}.")
        raw[0] &= 248
        raw[31] = (raw[31] & 127) | 64
        return cls(bytes(raw))

    @property
    def public_key(self) -> PublicKey:
        """The public half, the same that `wg pubkey` computes."""
        return PublicKey(X25519PrivateKey.from_private_bytes(self.raw).public_key().public_bytes_raw())

    def reveal(self) -> str:
        """Give the base64 text, for a file of mode 0600 and for nothing else."""
        return base64.b64encode(self.raw).decode("ascii")
