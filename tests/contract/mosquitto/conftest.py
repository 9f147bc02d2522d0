"""A CA with CRLs, certificates of it, and a broker that checks both."""

import datetime as dt
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from compose.real.mosquitto import RealMosquitto

HOUR = dt.timedelta(hours=1)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass
class Leaf:
    """A certificate and its key, as files."""

    serial: int
    certificate: Path
    key: Path


@dataclass
class Authority:
    """A CA, self-signed or under `parent`; `file` holds it and all above, `crl` is what the broker reads."""

    folder: Path
    parent: "Authority | None" = None
    title: str = "Issuing CA"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.name = common_name(self.title)
        self.file, self.crl = self.folder / "ca.pem", self.folder / "crl.pem"
        above = self.parent or self
        certificate = (
            above._builder(self.name, self.key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(above.key, hashes.SHA256())
        )
        own = certificate.public_bytes(serialization.Encoding.PEM)
        self.file.write_bytes(own + (self.parent.file.read_bytes() if self.parent else b""))
        self.publish_crl()

    def issue(self, name: str, *, server: bool = False) -> Leaf:
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        certificate = (
            self._builder(common_name(name), key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        leaf = Leaf(certificate.serial_number, self.folder / f"{name}.pem", self.folder / f"{name}.key")
        leaf.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        leaf.key.touch(mode=0o600)
        leaf.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return leaf

    def publish_crl(self, *revoked: Leaf, expired: bool = False) -> None:
        until = now() - HOUR if expired else now() + HOUR
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(until - 2 * HOUR).next_update(until)
        for leaf in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(leaf.serial).revocation_date(now() - HOUR).build()
            builder = builder.add_revoked_certificate(entry)
        crl = builder.sign(self.key, hashes.SHA256())
        fresh = self.crl.with_suffix(".new")
        fresh.write_bytes(crl.public_bytes(serialization.Encoding.PEM))
        fresh.replace(self.crl)

    def client_context(self, leaf: Leaf | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.file))
        if leaf is not None:
            context.load_cert_chain(leaf.certificate, leaf.key)
        return context

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now() - HOUR)
            .not_valid_after(now() + HOUR)
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def broker(authority: Authority, tmp_path: Path) -> Iterator[RealMosquitto]:
    server = authority.issue("localhost", server=True)
    with RealMosquitto(
        tmp_path / "mosquitto", authority.file, authority.crl, server.certificate, server.key
    ) as running:
        yield running
