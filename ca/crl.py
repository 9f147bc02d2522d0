"""The CA's revocation list: parsed, and believed only with the issuing CA's signature (RFC 5280, 6.3.3)."""

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ca.errors import CaBadAnswer
from ca.models import Crl
from ca.path import UNREADABLE


def parse_crl(der: bytes, issuer: x509.Certificate) -> Crl:
    """Return the list if ``issuer`` signed it, else raise CaBadAnswer (``crl``).

    Its age is not judged here: see ``Crl.is_fresh``. Entries taken off hold again (reason removeFromCRL)
    do not occur in a full list.
    """
    try:
        crl = x509.load_der_x509_crl(der)
        extensions = list(crl.extensions)
        serials = frozenset(entry.serial_number for entry in crl)
    except UNREADABLE as error:
        raise _bad("the revocation list cannot be parsed") from error
    if crl.issuer != issuer.subject or not _signed_by(crl, issuer):
        raise _bad("the revocation list is not signed by the trusted issuing CA")
    if any(extension.critical and not _whole(extension.value) for extension in extensions):
        raise _bad("the revocation list covers only some certificates, or has an unknown critical extension")
    numbers = [e.value for e in extensions if isinstance(e.value, x509.CRLNumber)]
    return Crl(
        serials=serials,
        this_update=crl.last_update_utc,
        next_update=crl.next_update_utc,
        number=numbers[0].crl_number if numbers else None,
    )


def _whole(value: x509.ExtensionType) -> bool:
    """Tell whether a critical extension leaves the list whole (RFC 5280, 5.2.5): step-ca's only says from where."""
    return isinstance(value, x509.IssuingDistributionPoint) and not (
        value.only_contains_ca_certs
        or value.only_contains_attribute_certs
        or value.only_some_reasons
        or value.indirect_crl
    )


def _signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        return False
    try:
        return crl.is_signature_valid(key)
    except UNREADABLE:
        return False


def _bad(what: str) -> CaBadAnswer:
    return CaBadAnswer(
        what, failed="crl", check="check `crl` in ca.json, and that STEP_CA_URL is the CA that issues the leaves"
    )
