"""Every CSR that a device must not get through with, made by a library where it makes such, else by hand in DER."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.enrollment.csr import parse_csr
from bridge.errors import BadCsr
from bridge.model.identity import DeviceId, Fingerprint

# The library warns of names that are too short or too long, and goes on.
pytestmark = pytest.mark.filterwarnings("ignore:Attribute's length must be:UserWarning")

ID = DeviceId("dev-1")
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)


# -- DER by hand (X.690): enough to write what the library refuses to write --------------------------------------
def tlv(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + body


def oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    out = [40 * first + second]
    for arc in rest:
        chunk = [arc & 0x7F]
        while arc := arc >> 7:
            chunk.insert(0, 0x80 | arc & 0x7F)
        out += chunk
    return tlv(0x06, bytes(out))


def name(*values: bytes, tag: int = 0x0C, kind: str = "2.5.4.3") -> bytes:
    return tlv(0x30, *(tlv(0x31, tlv(0x30, oid(kind), tlv(tag, value))) for value in values))


def wanted(*extensions: bytes, kind: str = "1.2.840.113549.1.9.14") -> bytes:
    """Return one attribute that asks for extensions, PKCS #9's or another's."""
    return tlv(0x30, oid(kind), tlv(0x31, tlv(0x30, *extensions)))


def extension(kind: str, value: bytes) -> bytes:
    return tlv(0x30, oid(kind), tlv(0x04, value))


CA_TRUE = extension("2.5.29.19", tlv(0x30, tlv(0x01, b"\xff")))
SPKI = EC_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
ECDSA_SHA256 = tlv(0x30, oid("1.2.840.10045.4.3.2"))


def by_hand(
    subject: bytes,
    *attributes: bytes,
    spki: bytes = SPKI,
    algorithm: bytes = ECDSA_SHA256,
    signature: bytes = b"",
    version: bytes = b"\x00",
) -> str:
    info = tlv(0x30, tlv(0x02, version), subject, spki, tlv(0xA0, *attributes))
    signature = signature or EC_KEY.sign(info, ec.ECDSA(hashes.SHA256()))
    return as_pem(tlv(0x30, info, algorithm, tlv(0x03, b"\x00" + signature)))


def as_pem(der: bytes, label: str = "CERTIFICATE REQUEST") -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n"


# -- by the library ----------------------------------------------------------------------------------------------
def made(*extensions: x509.ExtensionType, key: Any = EC_KEY, names: tuple[str, ...] = ("dev-1",), **more: str) -> str:
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, one) for one in names]
    subject += [x509.NameAttribute(getattr(NameOID, kind), text) for kind, text in more.items()]
    builder = x509.CertificateSigningRequestBuilder(x509.Name(subject))
    for one in extensions:
        builder = builder.add_extension(one, critical=False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(Encoding.PEM).decode()


def san(*names: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(names)


def der_of(pem: str) -> bytes:
    return base64.b64decode(re.sub("-----.*-----", "", pem))


GOOD: dict[str, Callable[[], str]] = {
    "p-256": made,
    "p-384": lambda: made(key=ec.generate_private_key(ec.SECP384R1())),
    "ed25519": lambda: made(key=ed25519.Ed25519PrivateKey.generate()),
    "rsa-2048": lambda: made(key=RSA_KEY),
    "exact san": lambda: made(san(x509.DNSName("dev-1"))),
    "other attributes of the subject": lambda: made(
        ORGANIZATION_NAME="Acme", COUNTRY_NAME="DE", SERIAL_NUMBER="42", EMAIL_ADDRESS="a@b.example"
    ),
    "ca false": lambda: made(x509.BasicConstraints(ca=False, path_length=None)),
    "other extensions": lambda: made(
        x509.KeyUsage(True, True, True, True, True, True, True, True, True),
        x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x00\xff"),
    ),
    "written by hand": lambda: by_hand(name(b"dev-1")),
    "printable string": lambda: by_hand(name(b"dev-1", tag=0x13)),
    "windows line ends and text around": lambda: "made by hand\r\n" + made().replace("\n", "\r\n") + "\nend",
    "old label": lambda: made().replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
}


@pytest.mark.parametrize("build", GOOD.values(), ids=GOOD.keys())
def test_sound_request_is_taken(build: Callable[[], str]) -> None:
    csr = parse_csr(build(), ID)
    request = x509.load_der_x509_csr(csr.der)

    assert csr.der_sha256 == Fingerprint.of(csr.der)
    assert csr.spki == Fingerprint.of(csr.spki_der)
    assert csr.spki_der == request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert x509.load_pem_x509_csr(csr.pem.encode()) == request
    assert csr.pem.startswith("-----BEGIN CERTIFICATE REQUEST-----\n")


def test_what_the_ca_gets_is_what_was_checked() -> None:
    original = made()
    assert der_of(parse_csr("text before\n" + original + "text after", ID).pem) == der_of(original)


BAD: dict[str, tuple[Callable[[], str], str]] = {
    "nothing": (lambda: "", "exactly one PEM"),
    "two requests": (lambda: made() + made(), "exactly one PEM"),
    "a certificate behind it": (lambda: made() + as_pem(b"0", "CERTIFICATE"), "exactly one PEM"),
    "another label": (lambda: as_pem(der_of(made()), "CERTIFICATE"), "readable"),
    "cut off": (lambda: as_pem(der_of(made())[:-5]), "readable"),
    "octets behind it": (lambda: as_pem(der_of(made()) + b"\x00"), "readable"),
    "no ASCII": (lambda: made().replace("M", "Ï", 1), "readable"),
    "no base64": (lambda: made().replace("M", "!", 1), "readable"),
    "broken signature": (lambda: as_pem(der_of(made())[:-1] + b"\x00"), "signature"),
    "signature of another key": (
        lambda: by_hand(
            name(b"dev-1"), signature=ec.generate_private_key(ec.SECP256R1()).sign(b"x", ec.ECDSA(hashes.SHA256()))
        ),
        "signature",
    ),
    "no signature at all": (lambda: by_hand(name(b"dev-1"), signature=b"\x00"), "signature"),
    "signature of another kind of key": (
        lambda: by_hand(name(b"dev-1"), algorithm=tlv(0x30, oid("1.2.840.113549.1.1.11"), tlv(0x05))),
        "signature",
    ),
    "unknown signature algorithm": (lambda: by_hand(name(b"dev-1"), algorithm=tlv(0x30, oid("1.2.3.4"))), "signature"),
    "md5": (lambda: by_hand(name(b"dev-1"), algorithm=tlv(0x30, oid("1.2.840.113549.1.1.4"), tlv(0x05))), "signature"),
    "another id": (lambda: made(names=("dev-2",)), "CN is not"),
    "another spelling": (lambda: made(names=("DEV-1",)), "CN is not"),
    "a blank behind the name": (lambda: made(names=("dev-1 ",)), "CN is not"),
    "no CN": (lambda: made(names=(), ORGANIZATION_NAME="dev-1"), "exactly one CN"),
    "no subject": (lambda: made(names=()), "exactly one CN"),
    "two CNs": (lambda: made(names=("dev-1", "evil")), "exactly one CN"),
    "the CN twice": (lambda: made(names=("dev-1", "dev-1")), "exactly one CN"),
    "empty CN": (lambda: by_hand(name(b"")), "CSR"),
    "CN with a zero octet": (lambda: by_hand(name(b"dev-1\x00.evil")), "CN is not"),
    "CN that is no text": (lambda: by_hand(name(b"\xff\xfe", tag=0x0C)), "CSR"),
    "second name": (lambda: made(san(x509.DNSName("dev-1"), x509.DNSName("evil.example"))), "SAN"),
    "another name": (lambda: made(san(x509.DNSName("evil.example"))), "SAN"),
    "the name twice": (lambda: made(san(x509.DNSName("dev-1"), x509.DNSName("dev-1"))), "SAN"),
    "name in another spelling": (lambda: made(san(x509.DNSName("Dev-1"))), "SAN"),
    "an address": (lambda: made(san(x509.IPAddress(ip_address("10.0.0.1")))), "SAN"),
    "a mail address": (lambda: made(san(x509.RFC822Name("dev-1"))), "SAN"),
    "a URI": (lambda: made(san(x509.UniformResourceIdentifier("spiffe://x/dev-1"))), "SAN"),
    "empty SAN": (lambda: by_hand(name(b"dev-1"), wanted(extension("2.5.29.17", tlv(0x30)))), "SAN|extensions"),
    "unreadable SAN": (lambda: by_hand(name(b"dev-1"), wanted(extension("2.5.29.17", b"\x30\x05"))), "extensions"),
    "CA true": (lambda: made(x509.BasicConstraints(ca=True, path_length=0)), "CA certificate"),
    "CA true twice": (lambda: by_hand(name(b"dev-1"), wanted(CA_TRUE, CA_TRUE)), "extensions"),
    "CA true in a second list": (lambda: by_hand(name(b"dev-1"), wanted(), wanted(CA_TRUE)), "more than one list"),
    "CA true in Microsoft's list": (
        lambda: by_hand(name(b"dev-1"), wanted(CA_TRUE, kind="1.3.6.1.4.1.311.2.1.14")),
        "CA certificate",
    ),
    "CA true in both kinds of list": (
        lambda: by_hand(name(b"dev-1"), wanted(), wanted(CA_TRUE, kind="1.3.6.1.4.1.311.2.1.14")),
        "more than one list",
    ),
    "a name of a kind nobody reads": (
        lambda: by_hand(name(b"dev-1"), wanted(extension("2.5.29.17", tlv(0x30, tlv(0xA3, tlv(0x30)))))),
        "extensions",
    ),
    "another version": (lambda: by_hand(name(b"dev-1"), version=b"\x01"), "readable"),
    "rsa-1024": (lambda: made(key=rsa.generate_private_key(65537, 1024)), "1024 bits"),
    "p-521": (lambda: made(key=ec.generate_private_key(ec.SECP521R1())), "secp521r1"),
    "secp256k1": (lambda: made(key=ec.generate_private_key(ec.SECP256K1())), "secp256k1"),
    "p-192": (lambda: made(key=ec.generate_private_key(ec.SECP192R1())), "secp192r1"),
    "dsa": (lambda: made(key=dsa.generate_private_key(2048)), "kind of key"),
    "ed448": (lambda: made(key=ed448.Ed448PrivateKey.generate()), "kind of key"),
    "a key that cannot sign": (
        lambda: by_hand(
            name(b"dev-1"),
            spki=x25519.X25519PrivateKey.generate()
            .public_key()
            .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        ),
        "key",
    ),
    "a point off the curve": (lambda: by_hand(name(b"dev-1"), spki=SPKI[:-1] + bytes([SPKI[-1] ^ 1])), "key"),
    "an unknown kind of key": (
        lambda: by_hand(name(b"dev-1"), spki=tlv(0x30, tlv(0x30, oid("1.2.3.4")), tlv(0x03, b"\x00\x01"))),
        "key",
    ),
}


@pytest.mark.parametrize(("build", "says"), BAD.values(), ids=BAD.keys())
def test_unsound_request_is_refused_with_what_is_wrong(build: Callable[[], str], says: str) -> None:
    with pytest.raises(BadCsr, match=says):
        parse_csr(build(), ID)


def rsa_spki(modulus: int, exponent: int) -> bytes:
    numbers = rsa.RSAPublicNumbers(exponent, modulus)
    return numbers.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("bits", [8200, 16384])
def test_huge_rsa_key_is_refused_by_its_size_before_its_signature_costs_anything(bits: int) -> None:
    pem = by_hand(name(b"dev-1"), spki=rsa_spki((1 << bits - 1) | 1, 65537), signature=b"\x01" * (bits // 8))
    with pytest.raises(BadCsr, match=f"{bits} bits"):
        parse_csr(pem, ID)


@pytest.mark.parametrize("exponent", [(1 << 2047) + 1, (1 << 64) + 1])
def test_rsa_key_whose_exponent_makes_every_check_dear_is_refused(exponent: int) -> None:
    modulus = RSA_KEY.public_key().public_numbers().n
    algorithm = tlv(0x30, oid("1.2.840.113549.1.1.11"), tlv(0x05))
    pem = by_hand(name(b"dev-1"), spki=rsa_spki(modulus, exponent), algorithm=algorithm, signature=b"\x01" * 256)
    with pytest.raises(BadCsr, match="exponent"):
        parse_csr(pem, ID)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_no_text_ends_in_anything_but_a_refusal(text: str) -> None:
    with pytest.raises(BadCsr):
        parse_csr(text, ID)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_no_octets_end_in_anything_but_a_refusal(octets: bytes) -> None:
    with pytest.raises(BadCsr):
        parse_csr(as_pem(octets), ID)


SOUND = {kind: der_of(GOOD[kind]()) for kind in ("exact san", "other extensions", "rsa-2048", "ed25519")}


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(SOUND)), st.integers(0, 2000), st.integers(1, 255))
@example("exact san", 0, 1)
def test_no_changed_octet_makes_another_request_that_is_taken(kind: str, place: int, change: int) -> None:
    der = bytearray(SOUND[kind])
    der[place % len(der)] ^= change
    try:
        taken = parse_csr(as_pem(bytes(der)), ID)
    except BadCsr:
        return
    # Some octets beside what is signed can be written in two ways; what is signed cannot.
    assert (
        x509.load_der_x509_csr(taken.der).tbs_certrequest_bytes
        == x509.load_der_x509_csr(SOUND[kind]).tbs_certrequest_bytes
    )
