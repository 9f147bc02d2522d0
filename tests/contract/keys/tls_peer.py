"""A server of TLS that wants a client's certificate, with a PKI of its own, and a client as a process."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

CLIENT = Path(__file__).with_name("tls_client.py")
Signer: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def new_key(kind: str) -> Signer:
    match kind:
        case "P-256":
            return ec.generate_private_key(ec.SECP256R1())
        case "P-384":
            return ec.generate_private_key(ec.SECP384R1())
        case "Ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return rsa.generate_private_key(65537, int(kind.removeprefix("RSA-")))


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


@dataclass(frozen=True)
class Authority:
    """A root that certifies servers and devices."""

    key: Signer
    certificate: x509.Certificate

    @classmethod
    def new(cls, kind: str = "P-256") -> Authority:
        key = new_key(kind)
        return cls(key, _certificate("Root", "Root", key.public_key(), key, ca=True))

    def leaf(self, name: str, public_key: Any) -> x509.Certificate:
        return _certificate(name, "Root", public_key, self.key, ca=False)


def _certificate(name: str, issuer: str, public_key: Any, key: Signer, *, ca: bool) -> x509.Certificate:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
    )
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


@dataclass(frozen=True)
class Server:
    """A listening server; it tells each client the name in the client's certificate."""

    port: int
    root: Path


@contextlib.contextmanager
def server(authority: Authority, folder: Path, *, kind: str = "P-256", limit: str = "") -> Iterator[Server]:
    """Serve as ``localhost``. ``limit``: ``TLS 1.2``, or ``P-256 only`` for the key agreement."""
    key = new_key(kind)
    file = folder / "server.pem"
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(key.private_bytes(*private) + pem(authority.leaf("localhost", key.public_key())))
    root = folder / "root.pem"
    root.write_bytes(pem(authority.certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.load_verify_locations(root)
    context.verify_mode = ssl.CERT_REQUIRED
    if limit == "TLS 1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if limit == "P-256 only":
        context.set_ecdh_curve("prime256v1")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_serve, args=(listening, context))
        thread.start()
        try:
            yield Server(listening.getsockname()[1], root)
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listening: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
            subject = dict(pair for pairs in (tls.getpeercert() or {})["subject"] for pair in pairs)  # type: ignore[union-attr, misc]
            tls.sendall(subject["commonName"].encode())


def client(interpreter: str, *arguments: object, environment: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Run ``tls_client.py`` as the agent's process would run; return what it tells."""
    command = [interpreter, str(CLIENT), *(str(one) for one in arguments)]
    done = subprocess.run(
        command, env=dict(environment), cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told | {"stderr": done.stderr}
