"""Check of what came back from the CA, before anything of it is stored or delivered.

On the hot path: the leaf is parsed once and its signature verified once; its issuers are checked once for
each different chain and remembered. Not responsible for asking again or for revoking what failed.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from ca.models import MAX_SERIAL, CheckedLeaf, Fingerprint, Profile, SignedChain, TrustAnchor
from ca.path import UNREADABLE, bad, issued_by, parse_one, verified_issuers

SKEW: Final = timedelta(minutes=5)
"""How far the CA's clock may be from ours; step-ca also dates back by a minute."""

_UNDERSTOOD: Final = frozenset(
    {
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
_EKU: Final = {"client": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}


@dataclass(frozen=True, slots=True)
class Expected:
    """What was asked for; the leaf must be exactly this.

    ``name`` is the device id (or the host name of a server certificate), ``spki_der`` the DER of the
    public key's SubjectPublicKeyInfo in the CSR. ``serial`` None means that the CA chose it. With the
    profile ``plain`` the serial is not compared and the EKU may hold more than the purpose's.
    """

    name: str
    spki_der: bytes = field(repr=False)
    serial: int | None
    lifetime: timedelta
    profile: Profile = "bridge"
    purpose: Literal["client", "server"] = "client"


def check_leaf(chain: SignedChain, expected: Expected, anchor: TrustAnchor, *, now: datetime) -> CheckedLeaf:
    """Return the leaf if every check holds, else raise CaBadAnswer whose ``failed`` names the check.

    Checked: the public key is the CSR's; one CN, the name; SAN exactly that one name; the serial is the
    chosen one; not a CA; key usage; EKU exactly the purpose's; validity against ``now`` and the lifetime
    asked for; issued directly by ``anchor``'s issuing CA, whose chain is complete, in order and valid up
    to the pinned root. A certificate with a critical extension that is none of these is refused (RFC
    5280, 4.2).
    """
    try:
        return _checked(chain, expected, anchor, now)
    except UNREADABLE as error:
        raise bad("pem", "a certificate of the CA's answer cannot be parsed") from error


def _checked(chain: SignedChain, expected: Expected, anchor: TrustAnchor, now: datetime) -> CheckedLeaf:
    leaf = parse_one(chain.leaf_pem)
    issuers = verified_issuers(chain.issuer_pems, anchor)
    if not issuers.valid_from <= now <= issuers.valid_until:
        raise bad("chain", "a certificate of the CA's chain is expired or not yet valid")
    spki = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if spki != expected.spki_der:
        raise bad("key", "the certificate holds another public key than the CSR")
    _check_serial(leaf.serial_number, expected)
    _check_subject(leaf, expected.name)
    _check_extensions(leaf, expected)
    _check_validity(leaf, expected.lifetime, now)
    if not issued_by(leaf, anchor.issuing_ca):
        raise bad("issuer", "the certificate is not signed by the trusted issuing CA")
    der = leaf.public_bytes(Encoding.DER)
    return CheckedLeaf(
        pem=leaf.public_bytes(Encoding.PEM).decode(),
        der=der,
        fingerprint=Fingerprint.of_der(der),
        serial=leaf.serial_number,
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        spki_sha256=hashlib.sha256(spki).hexdigest(),
        issuer=issuers.fingerprint,
        chain_pem=issuers.chain_pem,
    )


def _check_serial(serial: int, expected: Expected) -> None:
    chosen = expected.serial is not None and expected.profile == "bridge"
    if chosen and serial != expected.serial:
        raise bad("serial", "the certificate has another serial than the one chosen for it")
    if not 0 < serial <= MAX_SERIAL:  # step-ca signs such, as it does serial 0
        raise bad("serial", "the certificate's serial is not a positive integer of at most 20 octets")


def _check_subject(leaf: x509.Certificate, name: str) -> None:
    names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [attribute.value for attribute in names] != [name]:
        raise bad("cn", "the certificate's common name is not exactly the name asked for")


def _check_extensions(leaf: x509.Certificate, expected: Expected) -> None:
    extensions = leaf.extensions
    found = {extension.oid: extension.value for extension in extensions}
    if any(extension.critical and extension.oid not in _UNDERSTOOD for extension in extensions):
        raise bad("extension", "the certificate has a critical extension that nobody here understands")
    _check_san(found.get(ExtensionOID.SUBJECT_ALTERNATIVE_NAME), expected)
    _check_usage(found, expected)


def _check_san(san: x509.ExtensionType | None, expected: Expected) -> None:
    wanted: list[x509.GeneralName] = [x509.DNSName(expected.name)]
    if expected.purpose == "server":
        wanted = [general_name(expected.name)]
    if not isinstance(san, x509.SubjectAlternativeName) or list(san) != wanted:
        raise bad("san", "the certificate's subject alternative name is not exactly the name asked for")


def general_name(name: str) -> x509.GeneralName:
    """Return ``name`` as step-ca would put it into a SAN: an IP address where it is one, else a DNS name."""
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _check_usage(found: dict[x509.ObjectIdentifier, x509.ExtensionType], expected: Expected) -> None:
    constraints = found.get(ExtensionOID.BASIC_CONSTRAINTS)
    if isinstance(constraints, x509.BasicConstraints) and constraints.ca:
        raise bad("basic_constraints", "the certificate is a CA's")
    usage = found.get(ExtensionOID.KEY_USAGE)
    if not isinstance(usage, x509.KeyUsage) or not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        raise bad("key_usage", "the certificate's key usage is not that of a leaf")
    wanted = _EKU[expected.purpose]
    eku = found.get(ExtensionOID.EXTENDED_KEY_USAGE)
    purposes = list(eku) if isinstance(eku, x509.ExtendedKeyUsage) else []
    exact = purposes == [wanted]
    if not (exact or (expected.profile == "plain" and wanted in purposes)):
        raise bad("eku", f"the certificate's extended key usage is not exactly {expected.purpose} authentication")


def _check_validity(leaf: x509.Certificate, lifetime: timedelta, now: datetime) -> None:
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if not now - timedelta(hours=1) <= begins <= now + SKEW:
        raise bad("validity", "the certificate does not begin now; compare the clocks of bridge and CA")
    if ends <= now or abs(ends - (now + lifetime)) > SKEW:
        raise bad("validity", "the certificate does not end when asked; compare the clocks of bridge and CA")
