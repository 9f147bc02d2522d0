"""The embedded CA's signatures: leaves by the two templates of ``ca.template``, server certificates, the CRL.

Not responsible for who may ask (``ca.standin.tokens``) nor for the CSR's rules (``ca.standin.requests``).
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from ca.check import general_name
from ca.models import MAX_SERIAL, ServerCertificate, new_serial
from ca.standin.durations import BACKDATE, integer
from ca.standin.hierarchy import Hierarchy
from ca.standin.refusals import Refusal, bad_request, server_error
from ca.standin.requests import PublicKey, split
from ca.standin.store import Revoked

PROVISIONER_OID: Final = ObjectIdentifier("1.3.6.1.4.1.37476.9000.64.1")
CRL_LIFETIME: Final = timedelta(hours=24)
_JWK_TYPE: Final = 1


@dataclass(frozen=True, slots=True)
class Wish:
    """A certificate to be: subject, names, key, validity, and the provisioner that asked for it."""

    subject: str
    names: tuple[str, ...]
    key: PublicKey
    not_before: datetime
    not_after: datetime
    provisioner: str
    kid: str


class Signer:
    """Signs with the hierarchy's issuing CA."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._ca = hierarchy.issuing
        self._key_identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._ca.key.public_key())
        chain = hierarchy.anchor.chain
        self.chain_pems = tuple(one.public_bytes(Encoding.PEM).decode() for one in chain)

    def device(self, wish: Wish, claims: Mapping[str, Any]) -> x509.Certificate:
        """Sign by the device template: client authentication, the token's serial; 400 "no serial" without."""
        return self._sign(wish, _serial(claims), ExtendedKeyUsageOID.CLIENT_AUTH)

    def server(self, wish: Wish, allowed: tuple[str, ...]) -> x509.Certificate:
        """Sign by the server template: server authentication, one of ``allowed`` and nothing else."""
        if wish.subject not in allowed:
            raise bad_request(f"only {', '.join(allowed)}")
        one_name = Wish(
            wish.subject, (wish.subject,), wish.key, wish.not_before, wish.not_after, wish.provisioner, wish.kid
        )
        return self._sign(one_name, new_serial(secrets.token_bytes), ExtendedKeyUsageOID.SERVER_AUTH)

    def _sign(self, wish: Wish, serial: int, purpose: ObjectIdentifier) -> x509.Certificate:
        builder = self._builder(wish, serial, purpose)
        extension = x509.UnrecognizedExtension(PROVISIONER_OID, _provisioner_der(wish.provisioner, wish.kid))
        return builder.add_extension(extension, critical=False).sign(self._ca.key, hashes.SHA256())

    def _builder(self, wish: Wish, serial: int, purpose: ObjectIdentifier) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wish.subject)]))
            .issuer_name(self._ca.certificate.subject)
            .public_key(wish.key)
            .serial_number(serial)
            .not_valid_before(wish.not_before)
            .not_valid_after(wish.not_after)
            .add_extension(_LEAF_KEY_USAGE, critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(wish.key), critical=False)
            .add_extension(self._key_identifier, critical=False)
            .add_extension(x509.SubjectAlternativeName(_general_names(wish.names)), critical=False)
        )

    def server_certificate(self, names: tuple[str, ...], now: datetime, lifetime: timedelta) -> ServerCertificate:
        """Make a key and a certificate for a server of the embedded stack; IP addresses become IP SANs."""
        key = ec.generate_private_key(ec.SECP256R1())
        begin, end = now - BACKDATE, now + lifetime
        wish = Wish(names[0], names, key.public_key(), begin, end, "", "")
        builder = self._builder(wish, new_serial(secrets.token_bytes), ExtendedKeyUsageOID.SERVER_AUTH)
        leaf = builder.sign(self._ca.key, hashes.SHA256())
        return ServerCertificate(
            chain_pem=leaf.public_bytes(Encoding.PEM).decode() + "".join(self.chain_pems),
            key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            not_before=leaf.not_valid_before_utc,
            not_after=leaf.not_valid_after_utc,
            names=names,
        )

    def crl(self, revoked: Sequence[Revoked], number: int, now: datetime, url: str) -> bytes:
        """Sign the list of ``revoked`` as DER, valid for a day from ``now``."""
        point = x509.IssuingDistributionPoint(
            full_name=[x509.UniformResourceIdentifier(url)],
            relative_name=None,
            only_contains_user_certs=False,
            only_contains_ca_certs=False,
            only_some_reasons=None,
            indirect_crl=False,
            only_contains_attribute_certs=False,
        )
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._ca.certificate.subject)
            .last_update(now)
            .next_update(now + CRL_LIFETIME)
            .add_extension(self._key_identifier, critical=False)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(point, critical=True)
        )
        for one in revoked:
            builder = builder.add_revoked_certificate(_entry(one))
        return builder.sign(self._ca.key, hashes.SHA256()).public_bytes(Encoding.DER)


def _serial(claims: Mapping[str, Any]) -> int:
    """Read the token's serial as the template does; step-ca itself would sign more than twenty octets."""
    value = claims.get("serial")
    if not value:
        raise bad_request("no serial")
    try:
        serial = integer(str(value))
    except ValueError as error:
        raise Refusal(500, "error applying certificate template") from error
    if not 0 < serial <= MAX_SERIAL:
        raise server_error(f"serial number {serial} cannot be signed")
    return serial


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    kinds = split(names)
    return [
        *(x509.DNSName(one) for one in kinds["DNS names"]),
        *(general_name(one) for one in kinds["IP addresses"]),
        *(x509.RFC822Name(one) for one in kinds["email addresses"]),
        *(x509.UniformResourceIdentifier(one) for one in kinds["URIs"]),
    ]


_REASONS: Final = {
    1: x509.ReasonFlags.key_compromise,
    2: x509.ReasonFlags.ca_compromise,
    3: x509.ReasonFlags.affiliation_changed,
    4: x509.ReasonFlags.superseded,
    5: x509.ReasonFlags.cessation_of_operation,
    6: x509.ReasonFlags.certificate_hold,
    8: x509.ReasonFlags.remove_from_crl,
    9: x509.ReasonFlags.privilege_withdrawn,
    10: x509.ReasonFlags.aa_compromise,
}


def _entry(revoked: Revoked) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder().serial_number(revoked.serial).revocation_date(revoked.at)
    if revoked.reason_code in _REASONS:
        builder = builder.add_extension(x509.CRLReason(_REASONS[revoked.reason_code]), critical=False)
    return builder.build()


def _provisioner_der(name: str, kid: str) -> bytes:
    """The extension by which step-ca knows a leaf's provisioner: SEQUENCE {type, name, credential id}."""
    body = bytes([2, 1, _JWK_TYPE]) + _octets(name.encode()) + _octets(kid.encode())
    return b"\x30" + _length(len(body)) + body


def _octets(value: bytes) -> bytes:
    return b"\x04" + _length(len(value)) + value


def _length(size: int) -> bytes:
    """DER length (X.690, 8.1.3)."""
    if size < 128:  # noqa: PLR2004 - the short form's limit
        return bytes([size])
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets


_LEAF_KEY_USAGE: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
