"""A CRL as a file for a broker, kept fresh from step-ca; and a server certificate for that broker."""

import contextlib
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ca.standin.hierarchy import Hierarchy

_TIMEOUT = 10.0


@dataclass
class CrlFile:
    """The CRL at ``url`` as PEM in ``path``; ``changed`` is called when another one lies there."""

    url: str
    root_pem: str
    path: Path
    every: float
    changed: Callable[[], None] | None = None

    def refresh(self) -> bool:
        """Fetch the CRL; return whether it differs from the file, which then holds it.

        :raises OSError: it could not be fetched.
        """
        context = ssl.create_default_context(cadata=self.root_pem)
        # The address is our own step-ca's, on loopback.
        with urllib.request.urlopen(self.url, timeout=_TIMEOUT, context=context) as answer:  # noqa: S310
            pem = x509.load_der_x509_crl(answer.read()).public_bytes(Encoding.PEM)
        if self.path.exists() and self.path.read_bytes() == pem:
            return False
        beside = self.path.with_suffix(".new")
        beside.write_bytes(pem)
        beside.replace(self.path)
        return True

    def watch(self, stop: threading.Event) -> None:
        """Refresh until ``stop``; what cannot be fetched now is fetched at the next look."""
        while not stop.wait(self.every):
            with contextlib.suppress(urllib.error.URLError, OSError):
                if self.refresh() and self.changed is not None:
                    self.changed()


def server_certificate(pki: Hierarchy, name: str) -> tuple[bytes, bytes]:
    """Return chain (leaf first) and key of a server certificate for ``name``, both PEM."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(pki.issuing.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(pki.issuing.key, hashes.SHA256())
    )
    chain = leaf.public_bytes(Encoding.PEM) + pki.issuing.pem + pki.intermediate.pem
    return chain, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
