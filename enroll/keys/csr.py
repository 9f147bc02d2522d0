"""The certificate signing request of a device.

Responsible for building one (CN = device id, SAN exactly DNS:device-id; WIRE §1) and for telling whether a
stored one still fits. Not responsible for keys or files: the bridge looks at the key, never at the CSR's
bytes, so a lost CSR is made again without harm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from enroll.keys import spki

if TYPE_CHECKING:
    from enroll.keys.provider import PrivateKey


def build(key: PrivateKey, device_id: str) -> bytes:
    """Return a PKCS#10 request in PEM, signed by the key with the digest that its kind goes with.

    :raises StorageError: the key is in hardware that does not answer.
    """
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(device_id)]), critical=False)
    )
    return builder.sign(key, _digest(key)).public_bytes(serialization.Encoding.PEM)


def _digest(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | None:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1):
        return hashes.SHA384()
    return hashes.SHA256()


def fits(pem: bytes, key: PrivateKey, device_id: str) -> bool:
    """Return whether a stored request is whole, carries this key and names this device alone."""
    try:
        request = x509.load_pem_x509_csr(pem)
        san = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [attribute.value for attribute in request.subject]
        return (
            request.is_signature_valid
            # Public keys are compared by their digest: before cryptography 40 they have no equality.
            and spki.sha256(request.public_key()) == spki.sha256(key.public_key())
            and names == [device_id]
            and list(san) == [x509.DNSName(device_id)]
        )
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, UnsupportedAlgorithm):
        return False
