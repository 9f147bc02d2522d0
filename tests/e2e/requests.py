"""CSRs, good and bad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID


def csr(
    name: str,
    key: Any = None,
    *,
    san: Sequence[x509.GeneralName] = (),
    extension: x509.ExtensionType | None = None,
) -> str:
    """Make a CSR as PEM; with a key of its own unless one is given."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
    if extension is not None:
        builder = builder.add_extension(extension, critical=True)
    signed = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(Encoding.PEM).decode()
