"""The certificate signing request of a device.

Responsible for building one (CN = device id, SAN exactly DNS:device-id; WIRE §1) and for telling whether a
stored one still fits. Not responsible for keys or files: the bridge looks at the key, never at the CSR's
bytes, so a lost CSR is made again without harm.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID


def build(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey, device_id: str) -> bytes:
    """Return a PKCS#10 request in PEM, signed by the key."""
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(device_id)]), critical=False)
    )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


def fits(
    pem: bytes,
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey,
    device_id: str,
) -> bool:
    """Return whether a stored request is whole, carries this key and names this device alone."""
    try:
        request = x509.load_pem_x509_csr(pem)
        san = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [attribute.value for attribute in request.subject]
        return (
            request.is_signature_valid
            and request.public_key() == key.public_key()
            and names == [device_id]
            and list(san) == [x509.DNSName(device_id)]
        )
    except (ValueError, x509.ExtensionNotFound):
        return False
