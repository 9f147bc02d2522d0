"""X.509 certificates through one door, so that the agent runs on cryptography 38 (Debian 12) and on today's.

Responsible for loading certificates, for the few facts the agent reads from any of them, and for the signature
of one certificate by another. Every call that a version in use lacks, or warns about, is hidden here.

Not responsible for whether a certificate may be believed (``enroll.trust.paths``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

from enroll.names import Fingerprint
from enroll.printable import printable

_MAX_SUBJECT: Final = 200
_MALFORMED: Final = (
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography says of a malformed certificate beside ``ValueError``."""

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_BLOCK: Final = re.compile(_BEGIN + rb"[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


class Validity(NamedTuple):
    """From when to when a certificate is valid, both inclusive, aware UTC (RFC 5280 §4.1.2.5)."""

    begin: datetime
    end: datetime

    def covers(self, moment: datetime) -> bool:
        """Return whether the moment lies within."""
        return self.begin <= moment <= self.end


def load_all(pem: bytes) -> list[x509.Certificate]:
    """Parse every certificate of a PEM text, in order; what stands around them is ignored.

    Blocks are cut out here: ``load_pem_x509_certificates`` came with cryptography 39.

    :raises ValueError: no certificate in it, or one that is torn or malformed.
    """
    blocks = _BLOCK.findall(pem)
    if not blocks:
        raise ValueError("no PEM certificate in it")
    if len(blocks) != pem.count(_BEGIN):
        raise ValueError("a PEM certificate in it is torn")
    return [_parsed(_load_whole, block) for block in blocks]


def _load_whole(block: bytes) -> x509.Certificate:
    """Parse names, dates and extensions too: cryptography leaves them until somebody asks."""
    certificate = x509.load_pem_x509_certificate(block)
    _ = certificate.subject, certificate.issuer, certificate.extensions, validity(certificate)
    return certificate


def load_der(der: bytes) -> x509.Certificate:
    """Parse one certificate, as TLS hands it over.

    :raises ValueError: malformed.
    """
    return _parsed(x509.load_der_x509_certificate, der)


def validity(certificate: x509.Certificate) -> Validity:
    """Return the certificate's dates.

    cryptography 42 brought the aware properties and began to warn about the naive ones.
    """
    if hasattr(certificate, "not_valid_before_utc"):
        return Validity(certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    begin, end = certificate.not_valid_before, certificate.not_valid_after
    return Validity(begin.replace(tzinfo=UTC), end.replace(tzinfo=UTC))


def verify_issued(child: x509.Certificate, issuer: x509.Certificate) -> None:
    """Check that the issuer's name stands in the child and that its key made the child's signature.

    Nothing else is looked at: neither dates nor whether the issuer may sign. ``verify_directly_issued_by``
    came with cryptography 40.

    :raises cryptography.exceptions.InvalidSignature: the signature is not by the issuer's key.
    :raises ValueError: the names differ, or a key or algorithm is of an unknown kind.
    """
    try:
        if hasattr(child, "verify_directly_issued_by"):
            child.verify_directly_issued_by(issuer)
        else:
            _verify_by_hand(child, issuer)
    except (TypeError, UnsupportedAlgorithm) as e:
        raise ValueError(f"the signature is of an unknown kind: {e}") from e


def _verify_by_hand(child: x509.Certificate, issuer: x509.Certificate) -> None:
    """Do what ``verify_directly_issued_by`` does; RSA with PKCS #1 v1.5 only, for 38 knows no parameters of PSS."""
    if child.issuer != issuer.subject:
        raise ValueError("the child's issuer is not the issuer's subject")
    key, signature, signed = issuer.public_key(), child.signature, child.tbs_certificate_bytes
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        key.verify(signature, signed)
        return
    digest = child.signature_hash_algorithm
    if digest is None:
        raise ValueError("the signature names no hash")
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, signed, ec.ECDSA(digest))
    elif isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, signed, padding.PKCS1v15(), digest)
    else:
        raise ValueError("the issuer's key is of an unknown kind")  # noqa: TRY004 - a stranger's data, no caller's mistake


def sha256(certificate: x509.Certificate) -> Fingerprint:
    """Return the SHA-256 of the certificate's DER."""
    return Fingerprint(certificate.fingerprint(hashes.SHA256()).hex())


def pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """Return the certificates as one PEM text, without anything that stood around them."""
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def subject(certificate: x509.Certificate) -> str:
    """Return the subject in the order and form OpenSSL prints it, ``O=Tenant, CN=Root CA``: one bounded line."""
    try:
        text = ", ".join(f"{a.rfc4514_attribute_name}={a.value!s}" for a in certificate.subject)
    except (ValueError, TypeError):
        return "(unreadable subject)"
    return printable(text, _MAX_SUBJECT)


def _parsed(load: Callable[[bytes], x509.Certificate], data: bytes) -> x509.Certificate:
    try:
        return load(data)
    except _MALFORMED as e:
        raise ValueError(str(e)) from e
