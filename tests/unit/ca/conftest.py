"""A PKI made of real certificates, leaves with any fault, and hostile servers on real sockets."""

import asyncio
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ca.bootstrap import context_for_root
from ca.check import Expected
from ca.models import SignedChain, new_serial
from ca.standin.hierarchy import Authority, Hierarchy, make_authority, make_hierarchy
from ca.standin.signing import Signer

LIFETIME = timedelta(days=30)


def key_usage(*, sign: bool = True, cert: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=cert,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass
class Forge:
    """Signs whatever it is told, by the tenant's issuing CA unless told otherwise."""

    hierarchy: Hierarchy
    now: datetime
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    serial: int = field(default_factory=lambda: new_serial(secrets.token_bytes))

    @property
    def expected(self) -> Expected:
        spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return Expected("dev-1", spki, self.serial, LIFETIME)

    def leaf(self, **fault: Any) -> x509.Certificate:
        """A good leaf of dev-1 but for ``fault``."""
        issuer: Authority = fault.get("issuer", self.hierarchy.issuing)
        begin = fault.get("begin", self.now - timedelta(minutes=1))
        builder = (
            x509.CertificateBuilder()
            .subject_name(
                x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in fault.get("names", ["dev-1"])])
            )
            .issuer_name(issuer.certificate.subject)
            .public_key(fault.get("key", self.key).public_key())
            .serial_number(fault.get("serial", self.serial))
            .not_valid_before(begin)
            .not_valid_after(fault.get("end", self.now + LIFETIME))
        )
        usage = fault.get("usage", key_usage())
        if usage is not None:
            builder = builder.add_extension(usage, critical=True)
        eku = fault.get("eku", [ExtendedKeyUsageOID.CLIENT_AUTH])
        if eku:
            builder = builder.add_extension(x509.ExtendedKeyUsage(eku), critical=False)
        san = fault.get("san", [x509.DNSName("dev-1")])
        if san:
            builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
        for extension, critical in fault.get("extensions", []):
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(fault.get("signer", issuer.key), hashes.SHA256())

    def chain(self, leaf: x509.Certificate | None = None, *issuers: x509.Certificate) -> SignedChain:
        """The answer that holds ``leaf`` (a good one) and ``issuers`` (the right ones)."""
        listed = issuers or self.hierarchy.anchor.chain
        return SignedChain(pem(leaf or self.leaf()), tuple(pem(one) for one in listed))

    def other_tenant(self) -> Authority:
        """Another tenant's sub-CA under the same intermediate, with the same name as ours."""
        return make_authority("Tenant Sub-CA", self.hierarchy.intermediate, 0, self.now, 10)


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


@pytest.fixture(scope="session")
def hierarchy() -> Hierarchy:
    return make_hierarchy(datetime.now(UTC))


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def forge(hierarchy: Hierarchy, now: datetime) -> Forge:
    return Forge(hierarchy, now)


@pytest.fixture
def usage() -> Callable[..., x509.KeyUsage]:
    return key_usage


Answering = Callable[[str, str], Awaitable[bytes | None] | bytes | None]


@dataclass
class Hostile:
    """A server on a real TLS socket that says what a test wants, and remembers who asked for what."""

    url: str
    asked: list[str] = field(default_factory=list)


def reply(status: int, body: Any, kind: str = "application/json", **headers: str) -> bytes:
    """One HTTP answer as octets."""
    content = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


@pytest.fixture
def answer_with() -> Callable[..., bytes]:
    return reply


async def _head_and_body(reader: asyncio.StreamReader) -> tuple[str, str]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    method, path, *_ = head.split(" ")
    length = next((int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-l")), 0)
    await reader.readexactly(length)
    return method, path


@pytest.fixture
def hostile(hierarchy: Hierarchy, tmp_path: Path) -> Callable[..., Any]:
    """``async with hostile(answering) as server``: ``answering(method, path)`` gives octets, or None to hang up."""

    @asynccontextmanager
    async def serve(
        answering: Answering, *, pki: Hierarchy | None = None, names: tuple[str, ...] = ("localhost",)
    ) -> AsyncIterator[Hostile]:
        made = Signer(pki or hierarchy).server_certificate(names, datetime.now(UTC), LIFETIME)
        path = tmp_path / f"{secrets.token_hex(4)}.pem"
        path.write_text(made.chain_pem + made.key_pem)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(path)
        server = Hostile("")
        writers: set[asyncio.StreamWriter] = set()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.add(writer)
            try:
                while True:
                    method, asked = await _head_and_body(reader)
                    server.asked.append(f"{method} {asked}")
                    said = answering(method, asked)
                    octets = await said if isinstance(said, Awaitable) else said
                    if octets is None:
                        return
                    writer.write(octets)
                    await writer.drain()
                    if not octets.startswith(b"HTTP/1.1 200"):  # a good answer keeps the connection
                        return
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.transport.abort()

        listening = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
        server.url = f"https://localhost:{listening.sockets[0].getsockname()[1]}"
        try:
            yield server
        finally:
            listening.close()
            for writer in writers:
                writer.transport.abort()
            await listening.wait_closed()

    return serve


@pytest.fixture
async def http(hierarchy: Hierarchy) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=context_for_root(hierarchy.anchor)) as client:
        yield client
