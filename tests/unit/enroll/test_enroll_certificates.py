"""The door to cryptography: PEM, dates, signatures, the same on every version in use."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

from enroll.trust import certificates
from enroll.trust.certificates import Validity, load_all, load_der, pem, sha256, subject, validity, verify_issued

BEGIN, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)
KEYS: dict[str, Callable[[], Any]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
}


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def signed(key: Any, *, issuer: str = "CA", subject: str = "dev-1", **how: Any) -> x509.Certificate:
    public = ec.generate_private_key(ec.SECP256R1()).public_key() if subject != issuer else key.public_key()
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()
    return (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(BEGIN)
        .not_valid_after(END)
        .sign(key, digest, **how)
    )


@pytest.fixture(params=["as the version at hand does it", "by hand"])
def verify(request: pytest.FixtureRequest) -> Callable[[x509.Certificate, x509.Certificate], None]:
    return certificates._verify_by_hand if request.param == "by hand" else verify_issued


@pytest.mark.parametrize("kind", KEYS)
def test_a_signature_holds_for_its_issuer_alone(verify: Any, kind: str) -> None:
    key, other = KEYS[kind](), KEYS[kind]()
    issuer, child = signed(key, subject="CA"), signed(key)
    verify(child, issuer)
    verify(issuer, issuer)
    with pytest.raises(InvalidSignature):
        verify(child, signed(other, subject="CA"))
    with pytest.raises(ValueError, match=r"."):
        verify(child, signed(key, subject="Other CA", issuer="Other CA"))


def test_a_key_of_another_kind_signs_nothing(verify: Any) -> None:
    for one, another in itertools.permutations(KEYS, 2):
        with pytest.raises((InvalidSignature, ValueError)):
            verify(signed(KEYS[one]()), signed(KEYS[another](), subject="CA"))


def test_an_unknown_kind_of_issuer_is_an_error_of_the_value(verify: Any) -> None:
    issuer = signed(dsa.generate_private_key(2048), subject="CA")
    with pytest.raises((InvalidSignature, ValueError)):
        verify(signed(KEYS["P-256"]()), issuer)


def test_pss_is_verified_where_the_version_knows_it_and_else_refused() -> None:
    key = KEYS["RSA"]()
    child = signed(key, rsa_padding=padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH))
    if hasattr(x509.Certificate, "signature_algorithm_parameters"):  # cryptography 41
        verify_issued(child, signed(key, subject="CA"))
    with pytest.raises((InvalidSignature, ValueError)):
        verify_issued(child, signed(KEYS["RSA"](), subject="CA"))


def test_a_text_of_certificates_is_read_in_order_whatever_stands_between() -> None:
    first, second = signed(KEYS["P-256"]()), signed(KEYS["RSA"](), issuer="Other")
    text = b"# a comment\n" + pem([first]) + b"\nBag Attributes\n" + pem([second]).replace(b"\n", b"\r\n")
    assert load_all(text) == [first, second]
    assert load_all(pem([first, second])) == [first, second]
    assert pem(load_all(text)) == pem([first]) + pem([second])


@pytest.mark.parametrize(
    "damage",
    [
        lambda _text: b"",
        lambda _text: b"\0" * 900,
        lambda text: b"\0" * len(text),
        lambda text: text[:-30],
        lambda text: text[: len(text) // 2],
        lambda text: text + text[:-30],
        lambda text: text[:-30] + text,
        lambda text: text.replace(b"A", b"B"),
        lambda text: text[:60] + b"*" + text[61:],
        lambda text: text.replace(b"CERTIFICATE", b"PRIVATE KEY"),
        lambda _text: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        lambda _text: b"-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----\n",
    ],
)
def test_a_torn_or_foreign_text_is_refused_whole(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ValueError, match=r"."):
        load_all(damage(pem([signed(KEYS["P-256"]())])))


def test_der_is_read_or_refused() -> None:
    certificate = signed(KEYS["P-256"]())
    der = certificate.public_bytes(certificates.serialization.Encoding.DER)
    assert load_der(der) == certificate
    for bad in (b"", der[:-1], der[:40], b"\0" * 200):
        with pytest.raises(ValueError, match=r"."):
            load_der(bad)


def test_dates_are_aware_and_inclusive() -> None:
    dates = validity(signed(KEYS["P-256"]()))
    assert dates == Validity(BEGIN, END)
    assert dates.covers(BEGIN)
    assert dates.covers(END)
    assert not dates.covers(BEGIN - timedelta(seconds=1))
    assert not dates.covers(END + timedelta(seconds=1))


def test_a_subject_is_one_printable_line() -> None:
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Ten\nant"), x509.NameAttribute(NameOID.COMMON_NAME, "Root")]
    key = KEYS["P-256"]()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(x509.Name(names))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(BEGIN)
        .not_valid_after(END)
        .sign(key, hashes.SHA256())
    )
    assert subject(certificate) == "O=Ten ant, CN=Root"
    assert str(sha256(certificate)) == certificate.fingerprint(hashes.SHA256()).hex()


def test_reading_a_clock_or_asking_loads_no_cryptography() -> None:
    modules = "enroll.trust.clock, enroll.network.transport, enroll.disk.files"
    code = f"import sys, {modules}; print('cryptography' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout.strip() == "False"
