"""Which algorithm a key proves by, and that nothing but its own signature counts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from jwt import PyJWS

from bridge.enrollment.proof import Proof, algorithm_of
from bridge.errors import BadProof
from bridge.model.identity import Pem
from enroll.wire import PROOF_ALGORITHMS

KEYS: dict[str, Any] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "PS256": rsa.generate_private_key(65537, 2048),
}


def leaf_of(key: Any, world: Any) -> Pem:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dev-1")])
    issuer = ec.generate_private_key(ec.SECP256R1())
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(world.now)
        .not_valid_after(world.now + timedelta(days=1))
        .sign(issuer, hashes.SHA256())
    )
    return Pem(made.public_bytes(Encoding.PEM).decode())


def proof_by(key: Any, algorithm: str, world: Any) -> Proof:
    signature = PyJWS().get_algorithm_by_name(algorithm).sign(b"what was said", key)
    return Proof(world.digest("leaf"), algorithm, b"what was said", signature)


def test_each_kind_of_key_has_one_algorithm_of_the_protocol() -> None:
    assert {algorithm_of(key.public_key()): name for name, key in KEYS.items()} == {name: name for name in KEYS}
    assert set(KEYS) == set(PROOF_ALGORITHMS)
    others = (ec.generate_private_key(ec.SECP521R1()), ec.generate_private_key(ec.SECP256K1()))
    more = (ed448.Ed448PrivateKey.generate(), x25519.X25519PrivateKey.generate())
    assert {algorithm_of(key.public_key()) for key in (*others, *more)} == {None}


@pytest.mark.parametrize("key", KEYS)
def test_its_own_signature_counts(world: Any, key: str) -> None:
    proof_by(KEYS[key], key, world).check(leaf_of(KEYS[key], world))


@pytest.mark.parametrize("signer", KEYS)
@pytest.mark.parametrize("named", KEYS)
@pytest.mark.parametrize("said", KEYS)
def test_no_other_combination_of_key_leaf_and_algorithm_does(world: Any, signer: str, named: str, said: str) -> None:
    proof = proof_by(KEYS[signer], signer, world)
    proof = Proof(proof.leaf, said, proof.signed, proof.signature)
    if signer == named == said:
        proof.check(leaf_of(KEYS[named], world))
        return
    with pytest.raises(BadProof):
        proof.check(leaf_of(KEYS[named], world))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("signature", [b"", b"\0", b"\0" * 64, b"\xff" * 64, b"\0" * 256, b"x" * 5000])
def test_a_signature_that_is_none_is_refused_and_no_error(world: Any, key: str, signature: bytes) -> None:
    with pytest.raises(BadProof):
        Proof(world.digest("leaf"), key, b"what was said", signature).check(leaf_of(KEYS[key], world))


@pytest.mark.parametrize("key", KEYS)
def test_something_else_that_was_signed_is_refused(world: Any, key: str) -> None:
    proof = proof_by(KEYS[key], key, world)
    with pytest.raises(BadProof, match="not signed by"):
        Proof(proof.leaf, key, b"what was never said", proof.signature).check(leaf_of(KEYS[key], world))
