"""Whom the device believes: the pinned root, the optional second pin, and paths that end there.

Responsible for comparing certificates with fingerprints, for checking that a chain stands in issuing order
(signatures, basicConstraints, keyUsage, dates: RFC 5280 §6.1 as far as a fixed path needs it), and for TLS
contexts that trust the anchor alone.

Not responsible for fetching anything, nor for what the leaf says about the device (``enroll.leaf``).
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

from enroll.errors import AnswerRejectedError, ForeignAnswerError, RootMismatchError
from enroll.names import Fingerprint

MAX_CHAIN: Final = 6
"""Most issuing certificates between leaf and root."""

_WEAK: Final = (hashes.MD5, hashes.SHA1)


@dataclass(frozen=True, slots=True)
class Anchor:
    """The end of every path the device accepts: the pinned root and, where pinned, the tenant's issuing CA."""

    root: x509.Certificate
    issuer: x509.Certificate | None = None

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate that servers must chain to: the issuing CA where it is pinned, else the root."""
        return self.issuer or self.root


def sha256(certificate: x509.Certificate) -> Fingerprint:
    """Return the SHA-256 of the certificate's DER."""
    return Fingerprint(certificate.fingerprint(hashes.SHA256()).hex())


def pem(certificates: Sequence[x509.Certificate]) -> bytes:
    """Return the certificates as one PEM text, without anything that stood around them."""
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def subject(certificate: x509.Certificate) -> str:
    """Return the subject in the order and form OpenSSL prints it: ``O=Tenant, CN=Root CA``."""
    try:
        return ", ".join(f"{a.rfc4514_attribute_name}={a.value!s}" for a in certificate.subject)
    except ValueError:
        return "(unreadable subject)"


def load_certificates(text: bytes) -> list[x509.Certificate]:
    """Parse every certificate of a PEM text, in order.

    :raises ValueError: no certificate in it, or one that is malformed.
    """
    try:
        return x509.load_pem_x509_certificates(text)
    except UnsupportedAlgorithm as e:
        raise ValueError(str(e)) from e


def pinned_root(unverified_pem: bytes, pin: Fingerprint) -> x509.Certificate:
    """Return the root certificate if it is the pinned one, self-signed and a CA.

    :raises ForeignAnswerError: not exactly one certificate.
    :raises RootMismatchError: another digest; both values are in the text.
    :raises AnswerRejectedError: the pinned certificate is no root.
    """
    try:
        served = load_certificates(unverified_pem)
    except ValueError as e:
        raise ForeignAnswerError("what was served as root is no certificate") from e
    if len(served) != 1:
        raise ForeignAnswerError(f"{len(served)} certificates were served as root; exactly one is expected")
    root = served[0]
    if sha256(root) != pin:
        raise RootMismatchError(wanted=str(pin), served=str(sha256(root)))
    _check_issued(root, root)
    _check_authority(root, cas_below=0)
    return root


def pinned_issuer(
    unverified: Sequence[x509.Certificate], pin: Fingerprint, root: x509.Certificate, now: datetime
) -> x509.Certificate:
    """Return the certificate with the pinned digest if it chains to the root through the others.

    :raises AnswerRejectedError: it is not among them, or no path leads from it to the root.
    """
    found = [c for c in unverified if sha256(c) == pin]
    if not found:
        served = ", ".join(str(sha256(c)) for c in unverified[:MAX_CHAIN]) or "none"
        raise AnswerRejectedError(
            f"no issuing CA with the pinned SHA-256 {pin} is served (served: {served}). "
            "Check ENROLL_ISSUER_FINGERPRINT."
        )
    path = [found[0]]
    others = [c for c in unverified if c != found[0]]
    while path[-1].issuer != root.subject and len(path) <= MAX_CHAIN:
        above = next((c for c in others if c.subject == path[-1].issuer), None)
        if above is None:
            break
        others.remove(above)
        path.append(above)
    check_authorities(path, root, now)
    return found[0]


def check_path(leaf: x509.Certificate, chain: Sequence[x509.Certificate], anchor: Anchor, now: datetime) -> None:
    """Check that leaf, chain and root stand in issuing order, every link signed, every issuer a valid CA.

    :param chain: issuing CA first, then its issuers, without the root.
    :raises AnswerRejectedError: says which link fails. With a pinned issuing CA it must be on the path.
    """
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise AnswerRejectedError(f"the chain holds {len(chain)} certificates; 1 to {MAX_CHAIN} are expected")
    if anchor.issuer is not None and anchor.issuer not in chain:
        raise AnswerRejectedError(
            "the certificate was not issued under the pinned issuing CA. Check ENROLL_ISSUER_FINGERPRINT."
        )
    _check_issued(leaf, chain[0])
    check_authorities(chain, anchor.root, now)


def check_authorities(chain: Sequence[x509.Certificate], root: x509.Certificate, now: datetime) -> None:
    """Check a path of CA certificates up to and with the root.

    :raises AnswerRejectedError: a link, a constraint or a date does not hold.
    """
    path = [*chain, root]
    for below, above in pairwise(path):
        _check_issued(below, above)
    for cas_below, certificate in enumerate(path):
        _check_authority(certificate, cas_below)
        check_dates(certificate, now)


def check_dates(certificate: x509.Certificate, now: datetime) -> None:
    """Check that the time lies within the certificate's validity.

    :raises AnswerRejectedError: it does not; the text names both and the clock.
    """
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= now <= end:
        raise AnswerRejectedError(
            f"the certificate of {subject(certificate)} is valid from {begin:%Y-%m-%dT%H:%MZ} to "
            f"{end:%Y-%m-%dT%H:%MZ}, and this device's clock says {now:%Y-%m-%dT%H:%MZ}; check the clock"
        )


def system_context() -> ssl.SSLContext:
    """Return a client context that checks host names and trusts the system's authorities alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def server_context(anchor: Anchor, *, system: bool) -> ssl.SSLContext:
    """Return a client context that checks host names and trusts the anchor alone (or, if told, the system).

    A pinned issuing CA is an anchor without its issuer (``X509_V_FLAG_PARTIAL_CHAIN``), so that a server
    certified by another sub-CA of the same root is refused.
    """
    if system:
        context = system_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=pem([anchor.certificate]).decode("ascii"))
    if anchor.issuer is not None:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _check_issued(child: x509.Certificate, issuer: x509.Certificate) -> None:
    if isinstance(child.signature_hash_algorithm, _WEAK):
        raise AnswerRejectedError(f"the certificate of {subject(child)} is signed with a broken hash")
    try:
        child.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as e:
        raise AnswerRejectedError(
            f"the certificate of {subject(child)} was not issued by {subject(issuer)}: "
            "the chain is not in issuing order, or ends at another root than the pinned one"
        ) from e


def _check_authority(certificate: x509.Certificate, cas_below: int) -> None:
    """Check that it may issue certificates, with ``cas_below`` CA certificates between it and the leaf."""
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, x509.ExtensionNotFound) as e:
        raise AnswerRejectedError(f"{subject(certificate)} is not a CA certificate") from e
    if not constraints.ca:
        raise AnswerRejectedError(f"{subject(certificate)} is not a CA certificate (CA:FALSE)")
    if constraints.path_length is not None and constraints.path_length < cas_below:
        raise AnswerRejectedError(f"{subject(certificate)} does not allow {cas_below} CA certificates below it")
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.key_cert_sign:
        raise AnswerRejectedError(f"the key of {subject(certificate)} is not for signing certificates")
