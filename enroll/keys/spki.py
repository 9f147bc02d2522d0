"""The digest by which keys are compared: everywhere in the agent a key is its SubjectPublicKeyInfo.

Responsible for that digest alone.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes


def sha256(key: PublicKeyTypes) -> str:
    """Return the lower-case hex SHA-256 of the key's SubjectPublicKeyInfo (DER)."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
