"""Provisioners of a CA that this project sets up: the embedded one, the real one of tests and compose.

Not responsible for judging tokens (``ca.standin.tokens``).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwe
from joserfc.jwk import ECKey, OctKey
from jwt.algorithms import ECAlgorithm

from ca.provisioner_key import pbes2_registry

ITERATIONS: Final = 600_000
"""PBKDF2 iterations of a fresh key: what today's ``step`` writes."""


@dataclass(frozen=True, slots=True)
class NewProvisioner:
    """A fresh JWK provisioner: its public key, and its private key encrypted under a password."""

    name: str
    public_jwk: Mapping[str, Any]
    encrypted_key: str = field(repr=False)

    @property
    def kid(self) -> str:
        """The key id: RFC 7638 thumbprint of the public key."""
        return str(self.public_jwk["kid"])


def new_provisioner(name: str, password: str, *, iterations: int = ITERATIONS) -> NewProvisioner:
    """Make an EC P-256 provisioner whose private key opens with ``password`` (PBES2-HS256+A128KW)."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    kid = ECKey.import_key(public).thumbprint()
    common = {"use": "sig", "kid": kid, "alg": "ES256"}
    header = {"alg": "PBES2-HS256+A128KW", "enc": "A256GCM", "cty": "jwk+json", "p2c": iterations}
    private = ECAlgorithm.to_jwk(key, as_dict=True) | common
    encrypted = jwe.encrypt_compact(
        header, json.dumps(private).encode(), OctKey(password.encode(), password.encode()), registry=pbes2_registry()
    )
    return NewProvisioner(name, public | common, encrypted)
