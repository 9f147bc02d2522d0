"""A provider's PKI in small: root -> intermediate -> a tenant's sub-CA, made once and kept in a folder.

Not responsible for leaves (``ca.standin.signing``) nor for provisioners.
"""

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from ca.models import TrustAnchor, new_serial
from ca.standin.files import private_folder, write_private

ROOT_NAME: Final = "Provider Root CA"
INTERMEDIATE_NAME: Final = "Intermediate CA"
ISSUING_NAME: Final = "Tenant Sub-CA"

_YEARS: Final = {"root": 20, "intermediate": 15, "issuing": 10}
_BACKDATE: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA certificate with its private key (EC P-256)."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key as unencrypted PKCS#8 PEM."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Three CAs, each certified by the one before it."""

    root: Authority
    intermediate: Authority
    issuing: Authority

    @property
    def anchor(self) -> TrustAnchor:
        """What a client of this PKI trusts."""
        return TrustAnchor(self.root.certificate, self.issuing.certificate, (self.intermediate.certificate,))


def make_authority(name: str, parent: Authority | None, path_length: int, now: datetime, years: int) -> Authority:
    """Make a CA called ``name``, certified by ``parent`` or by itself, valid for ``years`` from ``now``.

    ``path_length`` is how many CAs may stand below it (RFC 5280, 4.2.1.9).
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer_key = parent.key if parent else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(parent.certificate.subject if parent else subject)
        .public_key(key.public_key())
        .serial_number(new_serial(secrets.token_bytes))
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + timedelta(days=365 * years))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_CA_KEY_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    return Authority(builder.sign(issuer_key, hashes.SHA256()), key)


def make_hierarchy(now: datetime) -> Hierarchy:
    """Make a fresh root, intermediate and sub-CA; nothing is written."""
    root = make_authority(ROOT_NAME, None, 2, now, _YEARS["root"])
    intermediate = make_authority(INTERMEDIATE_NAME, root, 1, now, _YEARS["intermediate"])
    issuing = make_authority(ISSUING_NAME, intermediate, 0, now, _YEARS["issuing"])
    return Hierarchy(root, intermediate, issuing)


def load_or_make(folder: Path, now: datetime) -> Hierarchy:
    """Return the hierarchy kept in ``folder``; the first call makes it.

    One file per CA, certificate and key together, so that none is ever half there; a folder in which
    making was interrupted is completed by making everything anew (nothing was issued before the last file
    was written).
    """
    private_folder(folder)
    paths = [folder / f"{name}.pem" for name in ("root", "intermediate", "issuing")]
    if all(path.exists() for path in paths):
        return Hierarchy(*(_read(path) for path in paths))
    made = make_hierarchy(now)
    for path, authority in zip(paths, (made.root, made.intermediate, made.issuing), strict=True):
        write_private(path, authority.pem + authority.key_pem)
    return made


def _read(path: Path) -> Authority:
    content = path.read_bytes()
    key = load_pem_private_key(content, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path} holds no EC key")
    return Authority(x509.load_pem_x509_certificate(content), key)


_CA_KEY_USAGE: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
