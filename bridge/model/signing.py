"""Signatures by the installation's key: compact JWS (RFC 7515) with Ed25519 (RFC 8037), one purpose each.

Responsible for checking them, with the public key alone. Signing is :class:`bridge.ports.signing.Signer`.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from jwt import PyJWS
from jwt.exceptions import PyJWTError

from bridge.model.identity import Fingerprint

ALGORITHM: Final = "EdDSA"
_JWS: Final = PyJWS(algorithms=[ALGORITHM])


class Purpose(StrEnum):
    """What a signature is for: the header's ``typ``, so that none can be taken for one of another kind."""

    AUDIT_HEAD = "iot-bridge-audit-head"
    RECEIPT = "iot-bridge-receipt"


class NotSigned(ValueError):
    """It is no signature of this kind by this key."""


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """An Ed25519 public key."""

    raw: bytes
    """32 octets."""

    def __post_init__(self) -> None:
        if len(self.raw) != 32:  # noqa: PLR2004 - octets of an Ed25519 public key (RFC 8032, section 5.1.5)
            raise ValueError("an Ed25519 public key has 32 octets")

    @classmethod
    def from_pem(cls, text: str) -> Self:
        """Read a PEM block ``PUBLIC KEY``.

        :raises ValueError: it is none, or not of Ed25519.
        """
        try:
            key = load_pem_public_key(text.encode())
        except (ValueError, UnsupportedAlgorithm) as e:
            raise ValueError("it is no public key in PEM") from e
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("it is no Ed25519 public key")  # noqa: TRY004 - the text's fault, no caller's
        return cls(key.public_bytes_raw())

    @property
    def _key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.raw)

    @property
    def pem(self) -> str:
        """The key as a PEM block ``PUBLIC KEY``."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")

    @property
    def fingerprint(self) -> Fingerprint:
        """SHA-256 of the SPKI: what people compare, and the header's ``kid``."""
        return Fingerprint.of(self._key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    def check(self, jws: str, purpose: Purpose) -> bytes:
        """Return the payload of a signature by this key for this purpose, if it is one to the last bit.

        :raises NotSigned: it is not.
        """
        if _header(jws) != {"alg": ALGORITHM, "kid": self.fingerprint.hex, "typ": purpose.value}:
            raise NotSigned("its header names another key, algorithm or purpose")
        try:
            payload = _JWS.decode(jws, self._key, algorithms=[ALGORITHM])
        except PyJWTError as e:
            raise NotSigned("its signature does not hold") from e
        return bytes(payload)


def key_named_in(jws: str) -> Fingerprint:
    """Return the fingerprint of the key that a signature says it is by. Nothing of it is checked.

    :raises NotSigned: it is no compact JWS with a ``kid``.
    """
    kid = _header(jws).get("kid")
    try:
        return Fingerprint(kid if isinstance(kid, str) else "")
    except ValueError as e:
        raise NotSigned("its header names no key") from e


def _header(jws: str) -> dict[str, object]:
    parts = jws.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - of a compact JWS (RFC 7515, section 3.1)
        raise NotSigned("it is no compact JWS")
    octets = [_octets(part) for part in parts]
    try:
        header = json.loads(octets[0])
    except ValueError as e:
        raise NotSigned("its header is no JSON") from e
    if not isinstance(header, dict):
        raise NotSigned("its header is no JSON object")
    return header


def _octets(part: str) -> bytes:
    """Decode base64url, taking the one spelling only: the last character has bits that decoders ignore."""
    try:
        octets = base64.urlsafe_b64decode(part.encode("ascii") + b"=" * (-len(part) % 4))
    except (binascii.Error, UnicodeEncodeError) as e:
        raise NotSigned("it is not base64url") from e
    if base64.urlsafe_b64encode(octets).rstrip(b"=").decode() != part:
        raise NotSigned("it is not written canonically")
    return octets
