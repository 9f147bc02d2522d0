"""Device keys in a file: the provider for devices without hardware for keys.

Responsible for making EC P-256 keys and for reading every kind of key that a device may have from before.
Not responsible for writing files; and nothing here prints a key: the representations show public parts only.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from enroll.keys import identity, kinds, spki
from enroll.keys.provider import KeyFormatError

if TYPE_CHECKING:
    from enroll.keys.provider import PrivateKey

_MIN_RSA_BITS: Final = 2048


@dataclass(frozen=True, slots=True)
class FileKey:
    """A private key in this process's memory."""

    private: PrivateKey = field(repr=False)
    spki_sha256: str
    """Lower-case hex SHA-256 of the public key's SubjectPublicKeyInfo (DER)."""

    @classmethod
    def generate(cls) -> FileKey:
        """Make a new EC P-256 key."""
        return cls._of(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes) -> FileKey:
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
    def _of(cls, private: PrivateKey) -> FileKey:
        return cls(private, spki.sha256(private.public_key()))

    def content(self) -> bytes:
        """Return the private key as PKCS#8 PEM: a secret."""
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def load_into(self, context: ssl.SSLContext, chain: bytes, key_file: Path) -> None:
        """Give a TLS context the device's identity (``DeviceKey.load_into``)."""
        identity.load(context, chain, key_file)


class FileKeys:
    """The provider ``file``."""

    name: Final = "file"

    def generate(self) -> FileKey:
        """Make a new EC P-256 key."""
        return FileKey.generate()

    def read(self, content: bytes) -> FileKey:
        """Read an unencrypted PEM key: P-256, P-384, Ed25519, or RSA of at least 2048 bits.

        :raises KeyFormatError: anything else.
        :raises ConfigurationError: it is hardware's.
        """
        kinds.refuse_others(content, self.name)
        return FileKey.from_pem(content)

    def sweep(self, keep: Sequence[bytes]) -> int:  # noqa: ARG002 - the Protocol's; files are the core's own
        """Remove nothing: a file's key is gone with the file."""
        return 0
