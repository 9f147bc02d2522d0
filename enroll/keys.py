"""The device's own keys: made here, never sent anywhere.

Responsible for making and reading the device's TLS key (EC P-256) and its WireGuard key (X25519), as values.
Not responsible for files; and nothing here prints a key: the representations show public parts only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
"""Kinds of key a CSR may carry (WIRE §1)."""

_WIREGUARD_BYTES: Final = 32
_MIN_RSA_BITS: Final = 2048


class KeyFormatError(ValueError):
    """The bytes are no usable private key; they may be a torn or foreign file. The text holds no key material."""


@dataclass(frozen=True, slots=True)
class DeviceKey:
    """The key behind the device's certificate."""

    private: PrivateKey = field(repr=False)
    spki_sha256: str
    """Lower-case hex SHA-256 of the public key's SubjectPublicKeyInfo (DER)."""

    @classmethod
    def generate(cls) -> DeviceKey:
        """Make a new EC P-256 key."""
        return cls._of(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes) -> DeviceKey:
        """Read an unencrypted PEM key: P-256, P-384, Ed25519, or RSA of at least 2048 bits.

        :raises KeyFormatError: anything else.
        """
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as e:
            raise KeyFormatError("is no PEM private key") from e
        match key:
            case ec.EllipticCurvePrivateKey() if isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
                return cls._of(key)
            case ed25519.Ed25519PrivateKey():
                return cls._of(key)
            case rsa.RSAPrivateKey() if key.key_size >= _MIN_RSA_BITS:
                return cls._of(key)
            case _:
                raise KeyFormatError("holds a key of a kind that the bridge does not accept")

    @classmethod
    def _of(cls, private: PrivateKey) -> DeviceKey:
        spki = private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return cls(private, hashlib.sha256(spki).hexdigest())

    def to_pem(self) -> bytes:
        """Return the private key as PKCS#8 PEM: a secret."""
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


@dataclass(frozen=True, slots=True)
class WireGuardKey:
    """The device's X25519 key in the form ``wg`` uses: base64 of 32 bytes."""

    private: str = field(repr=False)
    public: str

    @classmethod
    def generate(cls) -> WireGuardKey:
        """Make a new key, as ``wg genkey`` does."""
        return cls._of(x25519.X25519PrivateKey.generate())

    @classmethod
    def from_text(cls, text: bytes) -> WireGuardKey:
        """Read a file made by ``wg genkey`` or by ``to_text``.

        :raises KeyFormatError: not base64 of 32 bytes, or all zero.
        """
        try:
            raw = base64.b64decode(text.strip(), validate=True)
        except binascii.Error as e:
            raise KeyFormatError("is no WireGuard key") from e
        if len(raw) != _WIREGUARD_BYTES or not any(raw):
            raise KeyFormatError("is no WireGuard key")
        return cls._of(x25519.X25519PrivateKey.from_private_bytes(raw))

    @classmethod
    def _of(cls, key: x25519.X25519PrivateKey) -> WireGuardKey:
        private = base64.b64encode(key.private_bytes_raw()).decode()
        return cls(private, base64.b64encode(key.public_key().public_bytes_raw()).decode())

    def to_text(self) -> bytes:
        """Return the file's content: a secret."""
        return self.private.encode() + b"\n"
