"""The provisioner's key: how far we go to open it, and that it is the right one."""

import json
import warnings
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from joserfc import jwe
from joserfc.jwk import OctKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from ca.errors import CaMisconfigured
from ca.models import Provisioner
from ca.provisioner_key import MAX_P2C, decrypt_key, pbes2_registry, read_key
from ca.standin.provisioners import NewProvisioner, new_provisioner

PASSWORD = "correct horse battery staple"


def provisioner(made: NewProvisioner) -> Provisioner:
    return Provisioner(name=made.name, kid=made.kid, public_jwk=made.public_jwk)


def of_key(key: Any) -> Provisioner:
    kinds = {ec.EllipticCurvePrivateKey: ECAlgorithm, rsa.RSAPrivateKey: RSAAlgorithm}
    algorithm = next((kind for cls, kind in kinds.items() if isinstance(key, cls)), OKPAlgorithm)
    return Provisioner("p", "k", algorithm.to_jwk(key.public_key(), as_dict=True))


def encrypted(key: ec.EllipticCurvePrivateKey, **header: Any) -> str:
    merged = {"alg": "PBES2-HS256+A128KW", "enc": "A256GCM", "cty": "jwk+json", "p2c": 1000} | header
    plain = json.dumps(ECAlgorithm.to_jwk(key, as_dict=True)).encode()
    return jwe.encrypt_compact(merged, plain, OctKey(PASSWORD.encode(), PASSWORD.encode()), registry=pbes2_registry())


@pytest.fixture(scope="module")
def made() -> NewProvisioner:
    return new_provisioner("iot-bridge", PASSWORD, iterations=1000)


def test_opens_with_text_or_octets(made: NewProvisioner) -> None:
    for password in (PASSWORD, PASSWORD.encode()):
        key = decrypt_key(provisioner(made), made.encrypted_key, password)
        assert (key.kid, key.alg) == (made.kid, "ES256")
        assert PASSWORD not in repr(key)


def test_six_hundred_thousand_iterations_as_step_writes_them() -> None:
    made = new_provisioner("p", PASSWORD)
    assert jwt.utils.base64url_decode(made.encrypted_key.split(".")[0]).find(b'"p2c":600000') > 0
    decrypt_key(provisioner(made), made.encrypted_key, PASSWORD)


def test_the_limit_of_iterations_is_pinned() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    assert MAX_P2C == 1_000_000
    decrypt_key(of_key(key), encrypted(key, p2c=MAX_P2C), PASSWORD)
    for count in (MAX_P2C + 1, 0, -1, 10**12, True, "1000"):
        header = {"alg": "PBES2-HS256+A128KW", "enc": "A256GCM", "p2s": "c2FsdHNhbHQ", "p2c": count}
        first = jwt.utils.base64url_encode(json.dumps(header).encode()).decode()
        tampered = ".".join([first, *encrypted(key).split(".")[1:]])
        with pytest.raises(CaMisconfigured):
            decrypt_key(of_key(key), tampered, PASSWORD)


def test_the_registry_of_everyone_else_is_untouched() -> None:
    before = jwe.default_registry.algorithms["alg"]["PBES2-HS256+A128KW"]
    ours = pbes2_registry().algorithms["alg"]["PBES2-HS256+A128KW"]
    assert ours is not before
    assert ours.more_header_registry is not before.more_header_registry


def test_a128gcm_too() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    decrypt_key(of_key(key), encrypted(key, enc="A128GCM"), PASSWORD)


@pytest.mark.parametrize("password", ["wrong", "", "x"])
def test_wrong_password_without_a_warning(made: NewProvisioner, password: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CaMisconfigured) as caught:
            decrypt_key(provisioner(made), made.encrypted_key, password)
    assert "STEP_CA_PROVISIONER_PASSWORD" in caught.value.check


@pytest.mark.parametrize("text", ["", "garbage", "a.b.c.d.e", "....", "e30.e30.e30.e30.e30", "{}"])
def test_garbage(made: NewProvisioner, text: str) -> None:
    for read in (decrypt_key, read_key):
        with pytest.raises(CaMisconfigured):
            read(provisioner(made), text, PASSWORD)


def test_attack_other_algorithms_are_not_accepted(made: NewProvisioner) -> None:
    secret = OctKey(b"k" * 32, b"k" * 32)
    direct = jwe.encrypt_compact({"alg": "dir", "enc": "A256GCM"}, b"{}", secret, algorithms=["dir", "A256GCM"])
    with pytest.raises(CaMisconfigured):
        decrypt_key(provisioner(made), direct, b"k" * 32)


def test_another_provisioners_key(made: NewProvisioner) -> None:
    other = new_provisioner("other", PASSWORD, iterations=1000)
    with pytest.raises(CaMisconfigured, match="not that of provisioner 'iot-bridge'") as caught:
        decrypt_key(provisioner(made), other.encrypted_key, PASSWORD)
    assert "STEP_CA_PROVISIONER_NAME" in caught.value.check


@pytest.mark.parametrize(
    ("key", "alg"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (ec.generate_private_key(ec.SECP521R1()), "ES512"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
        (rsa.generate_private_key(65537, 2048), "RS256"),
    ],
)
def test_pem_files_of_every_kind(key: Any, alg: str) -> None:
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSWORD.encode()))
    for text, password in ((plain, None), (plain.decode(), PASSWORD), (locked, PASSWORD)):
        assert read_key(of_key(key), text, password).alg == alg
    for password in (None, "wrong"):
        with pytest.raises(CaMisconfigured):
            read_key(of_key(key), locked, password)


def test_jwk_and_jwe_files() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    jwk = json.dumps(ECAlgorithm.to_jwk(key, as_dict=True))
    compact = encrypted(key)
    names = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
    flattened = json.dumps(dict(zip(names, compact.split("."), strict=True)))
    assert read_key(of_key(key), jwk).kid == "k"
    for text in (compact, f"{compact}\n", flattened):
        assert read_key(of_key(key), text, PASSWORD).kid == "k"
        with pytest.raises(CaMisconfigured, match="encrypted"):
            read_key(of_key(key), text)


def test_files_that_hold_no_signing_key() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = json.dumps(ECAlgorithm.to_jwk(key.public_key(), as_dict=True))
    exchange = x25519.X25519PrivateKey.generate()
    for text in (
        public,
        exchange.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        b"-----BEGIN nonsense",
        b"\xff\xfe",
        '{"kty": "EC"}',
        '{"kty": 5}',
        '{"protected": 5}',
        "{",
    ):
        with pytest.raises(CaMisconfigured):
            read_key(of_key(key), text, PASSWORD)


def test_a_public_key_that_cannot_be_read() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(CaMisconfigured, match="public key"):
        read_key(Provisioner("p", "k", {"kty": "EC", "crv": "P-256"}), plain)
