"""A proof's signature (the wire protocol, section 3): by the key that the registry holds, and by no other.

Responsible for: which algorithm a key signs by, and whether it signed. Not responsible for the proof's form and claims
(:mod:`bridge.routes.proofs` reads them), nor for which leaf may prove what: that is the registry's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import PyJWS
from jwt.exceptions import PyJWTError

from bridge.errors import BadProof
from bridge.model.identity import Fingerprint, Pem

_JWS: Final = PyJWS(algorithms=["ES256", "ES384", "EdDSA", "PS256"])


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof that was read: it speaks of exactly the request at hand. Nobody has looked at its signature yet."""

    leaf: Fingerprint
    """The leaf whose key is said to have signed."""
    algorithm: str
    signed: bytes
    signature: bytes

    def check(self, leaf: Pem) -> None:
        """Return if the key of this leaf, which must be the one that is named, signed the proof.

        :raises BadProof: it did not, or by an algorithm that is not this key's.
        """
        key = x509.load_pem_x509_certificate(leaf.encode("ascii")).public_key()
        if algorithm_of(key) != self.algorithm:
            raise BadProof("the proof's algorithm is not the one of the certificate's key")
        try:
            sound = _JWS.get_algorithm_by_name(self.algorithm).verify(self.signed, key, self.signature)
        except (PyJWTError, ValueError, TypeError) as e:
            raise BadProof("the proof's signature cannot be read") from e
        if not sound:
            raise BadProof("the proof is not signed by the key of the certificate that it names")


def algorithm_of(key: object) -> str | None:
    """Return the one algorithm by which this key may sign a proof; ``None`` if there is none."""
    match key:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return "ES256"
        case ec.EllipticCurvePublicKey(curve=ec.SECP384R1()):
            return "ES384"
        case ed25519.Ed25519PublicKey():
            return "EdDSA"
        case rsa.RSAPublicKey():
            return "PS256"
    return None
