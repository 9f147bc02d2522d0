"""Proofs: a certificate's key speaks for the device once more (WIRE §3).

Responsible for the compact JWS that goes with a renewal and an activation. Not responsible for which key signs,
or for sending it. PyJWT is imported with the first proof: most starts need none.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from enroll.keys import DeviceKey
from enroll.wire import PROOF_TYPE, Act, ProofClaims

if TYPE_CHECKING:
    from enroll.keys.provider import PrivateKey


def renewal(key: DeviceKey, audience: str, device_id: str, csr_pem: bytes, leaf_sha256: str) -> str:
    """Return the proof by the current key that the CSR is this device's own next one.

    :param audience: SHA-256 of the root that the bridge is known by.
    :raises StorageError: the key is in hardware that does not answer.
    """
    der = x509.load_pem_x509_csr(csr_pem).public_bytes(Encoding.DER)
    claims = ProofClaims(audience, Act.RENEW, device_id, hashlib.sha256(der).hexdigest(), None, leaf_sha256)
    return _signed(key, claims)


def activation(key: DeviceKey, audience: str, device_id: str, leaf_sha256: str) -> str:
    """Return the proof by the next key that the device holds the pending pair.

    :raises StorageError: the key is in hardware that does not answer.
    """
    return _signed(key, ProofClaims(audience, Act.ACTIVATE, device_id, None, None, leaf_sha256))


def _signed(key: DeviceKey, claims: ProofClaims) -> str:
    import jwt  # noqa: PLC0415 - see the module's docstring

    return jwt.encode(claims.to_json(), key.private, algorithm=_algorithm(key.private), headers={"typ": PROOF_TYPE})


def _algorithm(key: PrivateKey) -> str:
    match key:
        case ec.EllipticCurvePrivateKey():
            return "ES384" if isinstance(key.curve, ec.SECP384R1) else "ES256"
        case rsa.RSAPrivateKey():
            return "PS256"
        case _:
            return "EdDSA"
