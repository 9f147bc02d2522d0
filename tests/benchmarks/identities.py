"""Devices for the benchmarks: real keys and real CSRs, made before anything is timed."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Identity:
    """A device that has not enrolled yet."""

    device: str
    csr_pem: str
    csr_der: bytes
    wg_public_key: str

    def enroll_body(self) -> bytes:
        """Return the body of its request to the bridge."""
        return json.dumps({"csr_pem": self.csr_pem, "wg_public_key": self.wg_public_key}).encode()


def identity(device: str) -> Identity:
    """Make a key and a CSR."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(device)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Identity(
        device=device,
        csr_pem=csr.public_bytes(Encoding.PEM).decode(),
        csr_der=csr.public_bytes(Encoding.DER),
        wg_public_key=_wireguard_key(),
    )


def _wireguard_key() -> str:
    octets = bytearray(os.urandom(32))
    octets[31] &= 0x7F  # as `wg pubkey` prints them
    return base64.b64encode(octets).decode()
