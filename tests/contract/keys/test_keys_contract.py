"""What holds for every provider of device keys."""

from __future__ import annotations

import copy
import hashlib
import pickle
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from enroll.errors import ConfigurationError
from enroll.keys import DeviceKey, KeyFormatError, csr
from enroll.keys.file import FileKey
from tests.contract.keys.conftest import Kind

MARK = {
    "file": b"-----BEGIN PRIVATE KEY-----\n",
    "tpm": b"-----BEGIN TSS2 PRIVATE KEY-----\n",
    "pkcs11": b"pkcs11:token=a%20token%3B%20of%20this%20test;serial=",
}


@pytest.fixture
def key(kind: Kind) -> DeviceKey:
    return kind.provider().generate()


def test_a_new_key_is_p256_and_read_back_as_the_same(kind: Kind, key: DeviceKey) -> None:
    content = key.content()
    assert content.startswith(MARK[kind.name])
    for again in (kind.provider().read(content), kind.provider().read(content)):
        assert again.spki_sha256 == key.spki_sha256
        assert again.content() == content
    public = key.private.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert public.curve.name == "secp256r1"
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert key.spki_sha256 == hashlib.sha256(der).hexdigest()


def test_every_key_is_another_one(kind: Kind) -> None:
    made = [kind.provider().generate() for _ in range(3)]
    assert len({key.spki_sha256 for key in made}) == 3
    assert len({key.content() for key in made}) == 3


def test_a_csr_is_built_by_it_and_fits_it_alone(kind: Kind, key: DeviceKey) -> None:
    pem = csr.build(key.private, "dev-1")
    request = x509.load_pem_x509_csr(pem)
    assert request.is_signature_valid
    assert request.public_key() == key.private.public_key()
    assert csr.fits(pem, kind.provider().read(key.content()).private, "dev-1")
    assert not csr.fits(pem, kind.provider().generate().private, "dev-1")


def test_it_signs_certificates_too(key: DeviceKey) -> None:
    """Not that it should: but what cryptography's builders take, they take everywhere."""
    now = datetime.now(UTC)
    name = x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.private.public_key(), 1, now, now + timedelta(days=1))
    certificate = builder.sign(key.private, hashes.SHA384())
    certificate.verify_directly_issued_by(certificate)


def test_a_proof_is_signed_by_it(key: DeviceKey) -> None:
    claims = {"act": "renew", "device_id": "dev-1"}
    proof = jwt.encode(claims, key.private, "ES256", headers={"typ": "iot-enroll+jws"})
    assert jwt.decode(proof, key.private.public_key(), ["ES256"]) == claims
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(proof, FileKey.generate().private.public_key(), ["ES256"])


def test_what_is_torn_zero_filled_or_foreign_is_refused(kind: Kind, key: DeviceKey) -> None:
    content = key.content()
    damaged = [content[:size] for size in range(0, len(content) - 2, 23)]
    damaged += [
        b"\0" * len(content),
        content[: len(content) // 2] + b"\0" * (len(content) - len(content) // 2),
        b"not a key\n",
        b"\xff" * 512,
        content.replace(b"-----END", b"AAAA\n-----END"),
    ]
    for wrong in damaged:
        with pytest.raises(KeyFormatError) as refused:
            kind.provider().read(wrong)
        assert "BEGIN" not in str(refused.value)
    assert kind.provider().read(content).spki_sha256 == key.spki_sha256


def test_a_key_of_another_provider_is_not_damaged(kind: Kind) -> None:
    """Another ENROLL_KEY must not make the agent set a good key aside; hardware goes on with a key in a file."""
    for name, example in EXAMPLES.items():
        if name == "file":
            assert kind.provider().read(example).spki_sha256 == FileKey.from_pem(example).spki_sha256
        elif name != kind.name:
            with pytest.raises(ConfigurationError, match=f"set ENROLL_KEY={name}, or move"):
                kind.provider().read(example)


def test_nothing_private_is_shown(kind: Kind, key: DeviceKey) -> None:
    shown = f"{key!r} {key} {key.private!r} {key.private} {kind.provider()!r}"
    assert "PRIVATE" not in shown
    for line in key.content().splitlines():
        if not line.startswith((b"-----", b"pkcs11:")):
            assert line.decode() not in shown


def test_keys_in_hardware_have_nothing_to_give(kind: Kind, key: DeviceKey) -> None:
    if kind.name == "file":
        return
    private = key.private
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    for attempt in (
        lambda: private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        private.private_numbers,
        lambda: private.exchange(ec.ECDH(), private.public_key()),
    ):
        with pytest.raises(UnsupportedAlgorithm):
            attempt()
    assert copy.deepcopy(private) is private
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(private)
    with pytest.raises(ValueError, match="private key"):
        serialization.load_pem_private_key(key.content(), None)


def test_a_sweep_spares_what_is_named(kind: Kind) -> None:
    provider = kind.provider()
    spared, other = provider.generate(), provider.generate()
    provider.sweep([spared.content(), EXAMPLES["file"]])
    assert kind.provider().read(spared.content()).spki_sha256 == spared.spki_sha256
    if kind.name == "pkcs11":
        with pytest.raises(KeyFormatError, match="does not have any more"):
            kind.provider().read(other.content())
        assert provider.sweep([spared.content()]) == 0


EXAMPLES = {
    "file": FileKey.generate().content(),
    "tpm": b"""-----BEGIN TSS2 PRIVATE KEY-----
MIHwBgZngQUKAQOgAwEBAQIEQAAAAQRYAFYAIwALAAYAcgAAABAAEAADABAAIKes
qKvv7s847PDp3yAMLJBROsDH26ty6EqVp7yx7oQiACCffczq6+jyYQJryTrh/Gfn
ibBvv3U31eZnFyOHAOKZVASBgAB+ACDdsh3swZKi3XxBfUmg1cCLF7ZQ4klTznEa
1VPQ8v/CyAAQf+IbxtJDSOaqgFj/2dUb7XGGQQrXPnqORj/UItIsvSF/wCooPjyc
nq+zxtwANQFVXFVLiGmh/GX78wGiu1hMZznhad9lLAxOcKUk/xoD9y3gst/+VRIu
C6QL
-----END TSS2 PRIVATE KEY-----
""",
    "pkcs11": b"pkcs11:token=dev;id=%01;type=private\n",
}
"""Sound content of each provider; the TPM's is wrapped by one that is no more."""
