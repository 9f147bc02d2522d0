"""The private key of a JWK provisioner: decrypted or read once, checked against the public key, and kept.

step-ca publishes the key as a compact JWE under a password (PBES2-HS256+A128KW, ``cty`` jwk+json); an
operator may instead keep it in a file (PEM, JWK, or JWE as compact text or flattened JSON, as ``step
crypto jwk create`` writes). Not responsible for fetching either, nor for making tokens.

Deriving the key of a password costs 14 to 120 ms of CPU by design: call it in a thread.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwe import JWERegistry
from joserfc.jwk import OctKey
from joserfc.registry import HeaderParameter

from ca.errors import CaMisconfigured
from ca.models import Provisioner

MAX_P2C: Final = 1_000_000
"""PBKDF2 iterations accepted: newer releases write 600,000; a limit stays, for the count comes from the
network.
"""

_ALGORITHMS: Final = ("PBES2-HS256+A128KW", "PBES2-HS384+A192KW", "PBES2-HS512+A256KW", "A128GCM", "A256GCM")
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

SigningKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class ProvisionerKey:
    """A prepared private key with the ``kid`` and ``alg`` that its tokens carry in their header."""

    key: SigningKey = field(repr=False)
    kid: str
    alg: str


def decrypt_key(provisioner: Provisioner, encrypted_key: str, password: str | bytes) -> ProvisionerKey:
    """Decrypt the JWE of ``provisioner``'s key.

    Raises CaMisconfigured if the password is wrong, the JWE cannot be read or asks for more than ``MAX_P2C``
    iterations, or the key inside is not the provisioner's.
    """
    secret = password.encode() if isinstance(password, str) else password
    try:
        plain = jwe.decrypt_compact(encrypted_key, OctKey(secret, secret), registry=pbes2_registry()).plaintext
        jwk = json.loads(plain or b"")
    except (JoseError, ValueError, TypeError, KeyError, AssertionError) as error:
        raise CaMisconfigured(
            f"the key of provisioner {provisioner.name!r} cannot be decrypted",
            check="check STEP_CA_PROVISIONER_PASSWORD: it has to be the password this provisioner was made with",
        ) from error
    return _fitting(provisioner, _from_jwk(provisioner, jwk))


def read_key(provisioner: Provisioner, text: str | bytes, password: str | bytes | None = None) -> ProvisionerKey:
    """Read the content of a key file: PEM (encrypted or not), JWK, or JWE under ``password``.

    Raises CaMisconfigured if it is none of these or its key is not the provisioner's.
    """
    data = text.encode() if isinstance(text, str) else text
    secret = password.encode() if isinstance(password, str) else password
    if b"-----BEGIN" in data:
        return _fitting(provisioner, _from_pem(provisioner, data, secret))
    try:
        body = data.decode().strip()
        parsed = json.loads(body) if body.startswith("{") else None
    except ValueError as error:
        raise _unreadable(provisioner) from error
    if isinstance(parsed, dict) and "kty" in parsed:
        return _fitting(provisioner, _from_jwk(provisioner, parsed))
    compact = _compact(provisioner, parsed) if isinstance(parsed, dict) else body
    if secret is None:
        raise CaMisconfigured(
            f"the key file of provisioner {provisioner.name!r} is encrypted",
            check="set STEP_CA_PROVISIONER_PASSWORD beside STEP_CA_PROVISIONER_KEY_FILE",
        )
    return decrypt_key(provisioner, compact, secret)


def pbes2_registry() -> JWERegistry:
    """Return a registry of our own: joserfc's PBES2 stops at 300,000 iterations, step-ca writes 600,000."""
    registry = JWERegistry(algorithms=list(_ALGORITHMS))
    algorithms = dict(registry.algorithms["alg"])
    for name, algorithm in algorithms.items():
        if name.startswith("PBES2"):
            ours = copy.copy(algorithm)
            ours.more_header_registry = algorithm.more_header_registry | {
                "p2c": HeaderParameter("PBES2 Count", _validate_p2c, required=True)
            }
            algorithms[name] = ours
    registry.algorithms = {**registry.algorithms, "alg": algorithms}
    return registry


def _validate_p2c(value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_P2C:
        raise ValueError(f"p2c must be an integer of at most {MAX_P2C}")


def _compact(provisioner: Provisioner, flattened: Mapping[str, Any]) -> str:
    try:
        parts = [flattened[name] for name in ("protected", "encrypted_key", "iv", "ciphertext", "tag")]
        return ".".join(parts)
    except (KeyError, TypeError) as error:
        raise _unreadable(provisioner) from error


def _from_jwk(provisioner: Provisioner, jwk: Any) -> SigningKey:
    try:
        key = jwt.PyJWK.from_dict(jwk).key
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
        raise _unreadable(provisioner) from error
    return _private(provisioner, key)


def _from_pem(provisioner: Provisioner, pem: bytes, password: bytes | None) -> SigningKey:
    try:
        try:
            key = load_pem_private_key(pem, password)
        except TypeError:
            if password is None:
                raise
            key = load_pem_private_key(pem, None)  # a password is set, but this file is not encrypted
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _unreadable(provisioner) from error
    return _private(provisioner, key)


def _private(provisioner: Provisioner, key: object) -> SigningKey:
    if isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        return key
    raise _unreadable(provisioner)


def _fitting(provisioner: Provisioner, key: SigningKey) -> ProvisionerKey:
    try:
        public = jwt.PyJWK.from_dict(dict(provisioner.public_jwk), algorithm=algorithm_of(key)).key
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise CaMisconfigured(
            f"the public key of provisioner {provisioner.name!r} cannot be read",
            check="look at the provisioner's `key` in ca.json",
        ) from error
    if public != key.public_key():
        raise CaMisconfigured(
            f"the private key is not that of provisioner {provisioner.name!r}",
            check="check STEP_CA_PROVISIONER_NAME and STEP_CA_PROVISIONER_KEY_FILE: they name two different keys",
        )
    return ProvisionerKey(key, provisioner.kid, algorithm_of(key))


def algorithm_of(key: SigningKey) -> str:
    """Return the JWS algorithm (RFC 7518, 3.1; RFC 8037) of tokens signed with ``key``."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return _CURVES.get(key.curve.name, "ES256")
    return "EdDSA" if isinstance(key, ed25519.Ed25519PrivateKey) else "RS256"


def _unreadable(provisioner: Provisioner) -> CaMisconfigured:
    return CaMisconfigured(
        f"the private key of provisioner {provisioner.name!r} cannot be read",
        check="STEP_CA_PROVISIONER_KEY_FILE has to hold a PEM, a JWK or a JWE of an EC, Ed25519 or RSA private key",
    )
