"""The device's WireGuard key: always a file, because the kernel wants the key itself.

Responsible for making and reading it. Not responsible for files, and its representation shows the public part.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from enroll.keys.provider import KeyFormatError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class WireGuardKey:
    """The device's X25519 key in the form ``wg`` uses: base64 of 32 bytes."""

    private: str = field(repr=False)
    public: str

    @classmethod
    def generate(cls) -> WireGuardKey:
        """Make a new key, as ``wg genkey`` does."""
        from cryptography.hazmat.primitives.asymmetric import x25519  # noqa: PLC0415 - slow, and often not needed

        return cls._of(x25519.X25519PrivateKey.generate())

    @classmethod
    def from_text(cls, text: bytes) -> WireGuardKey:
        """Read a file made by ``wg genkey`` or by ``to_text``.

        :raises KeyFormatError: not base64 of 32 bytes, or all zero.
        """
        from cryptography.hazmat.primitives.asymmetric import x25519  # noqa: PLC0415 - as above

        try:
            raw = base64.b64decode(text.strip(), validate=True)
        except binascii.Error as e:
            raise KeyFormatError("is no WireGuard key") from e
        if len(raw) != _BYTES or not any(raw):
            raise KeyFormatError("is no WireGuard key")
        return cls._of(x25519.X25519PrivateKey.from_private_bytes(raw))

    @classmethod
    def _of(cls, key: X25519PrivateKey) -> WireGuardKey:
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - as above
            Encoding,
            NoEncryption,
            PrivateFormat,
            PublicFormat,
        )

        # The shorter private_bytes_raw came with cryptography 40.
        private = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return cls(base64.b64encode(private).decode(), base64.b64encode(public).decode())

    def to_text(self) -> bytes:
        """Return the file's content: a secret."""
        return self.private.encode() + b"\n"
