"""The installation's signing key, for audit heads and receipts."""

from __future__ import annotations

from typing import Protocol

from bridge.model.signing import Purpose, VerifyKey


class Signer(Protocol):
    """Signs on behalf of the installation. The private key never leaves it."""

    @property
    def public_key(self) -> VerifyKey:
        """The key that its signatures are checked with."""
        ...

    def sign(self, payload: bytes, purpose: Purpose) -> str:
        """Return a compact JWS of the payload; the same payload gives the same one (Ed25519)."""
        ...
