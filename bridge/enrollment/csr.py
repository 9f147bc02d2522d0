"""Reading a CSR (PKCS#10, RFC 2986): the one place where a device's certificate request is judged by itself.

Responsible for: syntax, the proof of possession (the CSR's own signature), the subject, the SAN, the key's strength.
Not responsible for: whether this id or this key may have a certificate; that is the registry's to say.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID, NameOID

from bridge.errors import BadCsr
from bridge.model.facts import Csr
from bridge.model.identity import DeviceId, Fingerprint, Pem

_BEGIN: Final = "-----BEGIN "
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1)
_RSA_BITS: Final = (2048, 8192)
"""Weakest and largest RSA modulus taken; a larger one only costs time."""
_RSA_EXPONENT_BITS: Final = 31
"""Longest public exponent taken, as in Go's crypto/rsa, which is step-ca's: a long one makes every check dear."""

_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography raises for DER that it cannot make sense of."""

_EXTENSION_REQUESTS: Final = (
    bytes.fromhex("06092a864886f70d01090e"),  # PKCS #9 extensionRequest (RFC 2985, 5.4.2)
    bytes.fromhex("060a2b06010401823702010e"),  # and Microsoft's own
)


def parse_csr(pem: str, device: DeviceId) -> Csr:
    """Return the CSR if it is sound and asks for exactly this device's name.

    Other subject attributes and requested extensions are ignored, for they are never copied into the leaf.

    :raises BadCsr: with what is wrong, in words for the person who made it.
    """
    request = _load(pem)
    key = _checked_key(request)  # first: the signature of a monstrous key would be dear to check
    _check_signature(request)
    _check_subject(request, device)
    _check_extensions(request, device)
    der = request.public_bytes(Encoding.DER)
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Csr(
        pem=Pem(request.public_bytes(Encoding.PEM).decode("ascii")),
        der=der,
        der_sha256=Fingerprint.of(der),
        spki=Fingerprint.of(spki),
        spki_der=spki,
    )


def _load(pem: str) -> x509.CertificateSigningRequest:
    if pem.count(_BEGIN) != 1:
        raise BadCsr("the CSR must be exactly one PEM block")
    try:
        return x509.load_pem_x509_csr(pem.encode("ascii"))
    except _UNREADABLE as e:
        raise BadCsr("the CSR is not a readable PEM PKCS#10 request") from e


def _check_signature(request: x509.CertificateSigningRequest) -> None:
    try:
        sound = request.is_signature_valid
    except (InvalidSignature, *_UNREADABLE) as e:
        raise BadCsr("the CSR's own signature cannot be checked") from e
    if not sound:
        raise BadCsr("the CSR's own signature does not fit its key")


def _checked_key(
    request: x509.CertificateSigningRequest,
) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey:
    try:
        key = request.public_key()
    except _UNREADABLE as e:
        raise BadCsr("the CSR's public key is not readable") from e
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, _CURVES):
            raise BadCsr(f"the curve {key.curve.name} is not taken; use P-256 or P-384")
    elif isinstance(key, rsa.RSAPublicKey):
        weakest, largest = _RSA_BITS
        if not weakest <= key.key_size <= largest:
            raise BadCsr(f"an RSA key of {key.key_size} bits is not taken; use {weakest} to {largest}")
        if key.public_numbers().e.bit_length() > _RSA_EXPONENT_BITS:
            raise BadCsr("the RSA key's public exponent is too long; use 65537")
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        raise BadCsr("this kind of key is not taken; use P-256, P-384, Ed25519 or RSA")
    return key


def _check_subject(request: x509.CertificateSigningRequest, device: DeviceId) -> None:
    try:
        names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except _UNREADABLE as e:
        raise BadCsr("the CSR's subject is not readable") from e
    if len(names) != 1:
        raise BadCsr(f"the CSR must have exactly one CN, it has {len(names)}")
    if names[0].value != device.value:
        raise BadCsr("the CSR's CN is not the device id in the address")


def _check_extensions(request: x509.CertificateSigningRequest, device: DeviceId) -> None:
    info = request.tbs_certrequest_bytes
    if sum(info.count(attribute) for attribute in _EXTENSION_REQUESTS) > 1:
        # The library reads the first list only; another reader might take the second.
        raise BadCsr("the CSR has more than one list of requested extensions")
    try:
        extensions = request.extensions
        constraints = _extension(extensions, ExtensionOID.BASIC_CONSTRAINTS)
        names = _extension(extensions, ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    except _UNREADABLE as e:
        raise BadCsr("the CSR's extensions are not readable") from e
    if isinstance(constraints, x509.BasicConstraints) and constraints.ca:
        raise BadCsr("the CSR asks for a CA certificate")
    if isinstance(names, x509.SubjectAlternativeName) and list(names) != [x509.DNSName(device.value)]:
        raise BadCsr("the CSR's SAN must be absent or exactly DNS:<device id>")


def _extension(extensions: x509.Extensions, oid: x509.ObjectIdentifier) -> x509.ExtensionType | None:
    try:
        return extensions.get_extension_for_oid(oid).value
    except x509.ExtensionNotFound:
        return None
