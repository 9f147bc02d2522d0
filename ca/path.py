"""Chains of CA certificates: parsing, and whether each was issued by the next up to a root.

Not responsible for leaves (``ca.check``) nor for where the certificates came from (``ca.bootstrap``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from ca.errors import CaBadAnswer
from ca.models import Fingerprint, TrustAnchor

UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What ``cryptography`` raises for a certificate that is no good; some of it only when a field is looked at."""

_BEGIN: Final = "-----BEGIN CERTIFICATE-----"


def bad(failed: str, what: str) -> CaBadAnswer:
    """Build the error of a certificate that does not hold."""
    return CaBadAnswer(
        what,
        failed=failed,
        check="look at the certificate in step-ca's log, at its provisioner's template, "
        "and run `iot-bridge config check`",
    )


def parse_one(pem: object) -> x509.Certificate:
    """Parse text that holds exactly one PEM certificate, else raise CaBadAnswer (``pem``)."""
    if not isinstance(pem, str) or pem.count(_BEGIN) != 1:
        raise bad("pem", "the CA's answer should hold exactly one certificate in a PEM block")
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except UNREADABLE as error:
        raise bad("pem", "a certificate of the CA's answer cannot be parsed") from error


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether ``issuer``'s name and key signed ``certificate`` directly."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*UNREADABLE, InvalidSignature):
        return False
    return True


def is_ca(certificate: x509.Certificate, *, below: int) -> bool:
    """Tell whether ``certificate`` may sign certificates with ``below`` CAs between it and a leaf."""
    try:
        found = {type(one.value): one.value for one in certificate.extensions}
    except UNREADABLE:
        return False
    constraints, usage = found.get(x509.BasicConstraints), found.get(x509.KeyUsage)
    if not isinstance(constraints, x509.BasicConstraints) or not constraints.ca:
        return False
    if isinstance(usage, x509.KeyUsage) and not usage.key_cert_sign:
        return False
    return constraints.path_length is None or constraints.path_length >= below


def is_self_signed_ca(certificate: x509.Certificate) -> bool:
    """Tell whether ``certificate`` is a root: self-signed and CA:TRUE."""
    return is_ca(certificate, below=0) and issued_by(certificate, certificate)


def anchor_of(
    root: x509.Certificate, issuing_ca: x509.Certificate, others: Sequence[x509.Certificate] = ()
) -> TrustAnchor:
    """Find the way from ``issuing_ca`` over ``others`` to ``root``.

    Every certificate on it must be a CA, deep enough, and signed by the next. Raises CaBadAnswer
    (``chain``) where there is no way, (``root``) where ``root`` is none.
    """
    if not is_self_signed_ca(root):
        raise bad("root", "the CA's root is not a self-signed CA certificate")
    if issuing_ca == root:
        return TrustAnchor(root, root)
    path = [issuing_ca]
    while not issued_by(path[-1], root):
        step = next((one for one in others if one not in path and issued_by(path[-1], one)), None)
        if step is None:
            raise bad("chain", f"the issuing CA {Fingerprint.of(issuing_ca)} does not chain to the root")
        path.append(step)
    if not all(is_ca(one, below=depth) for depth, one in enumerate([*path, root])):
        raise bad("chain", "a certificate between the issuing CA and the root may not sign certificates")
    return TrustAnchor(root, issuing_ca, tuple(path[1:]))


@dataclass(frozen=True, slots=True)
class Issuers:
    """The checked issuers of an answer, ready for the next leaf under the same ones.

    ``chain_pem`` is the issuing CA first, without the root; all of it and the root are valid between the
    two instants.
    """

    chain_pem: str
    fingerprint: Fingerprint
    valid_from: datetime
    valid_until: datetime


@lru_cache(maxsize=32)
def verified_issuers(issuer_pems: tuple[str, ...], anchor: TrustAnchor) -> Issuers:
    """Check the issuers of an answer against ``anchor``, once for each different chain.

    They must be the expected issuing CA first, then each one's issuer in order, complete up to the pinned
    root (which may itself be the last).
    """
    issuers = [parse_one(pem) for pem in issuer_pems]
    if issuers[-1] == anchor.root and len(issuers) > 1:
        issuers.pop()
    if Fingerprint.of(issuers[0]) != anchor.issuing_fingerprint:
        raise bad("issuer", "the CA's answer names another issuing CA than the trusted one")
    checked = anchor_of(anchor.root, issuers[0], issuers[1:])
    if [issuers[0], *checked.intermediates] != issuers:
        raise bad("chain", "the CA's answer holds issuers out of order or without need")
    valid = [*issuers, anchor.root]
    return Issuers(
        checked.chain_pem,
        checked.issuing_fingerprint,
        max(one.not_valid_before_utc for one in valid),
        min(one.not_valid_after_utc for one in valid),
    )
