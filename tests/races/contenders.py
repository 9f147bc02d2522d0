"""Devices that all come at the same moment: real keys, real CSRs, connections that are open before anybody speaks."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from jwt import PyJWS

from enroll.wire import PROOF_TYPE, Act, ProofClaims
from wireguard.keys import PrivateKey


@dataclass(frozen=True, slots=True)
class Contender:
    """One device with its keys, and what it sends."""

    name: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    wg_key: str | None = field(default_factory=lambda: str(PrivateKey.generate().public_key))
    voucher: str | None = None

    def as_id(self, name: str) -> Contender:
        """Return the same keys under another id."""
        return replace(self, name=name)

    @property
    def path(self) -> str:
        """Where it asks."""
        return f"/devices/{self.name}/enroll"

    def body(self) -> dict[str, Any]:
        """Return a request with a CSR of its own: the same key never makes the same bytes twice."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self.key, hashes.SHA256())
        sent = {"csr_pem": csr.public_bytes(Encoding.PEM).decode(), "wg_public_key": self.wg_key}
        return {name: value for name, value in (sent | {"voucher": self.voucher}).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Renewal:
    """A device that comes with a new key, proven by the one of its certificate."""

    held: Contender
    leaf: str
    """Its certificate, PEM."""
    root_sha256: str
    wanted: Contender
    """The new key, without a WireGuard key."""

    @property
    def name(self) -> str:
        """The device id."""
        return self.held.name

    @property
    def path(self) -> str:
        """Where it asks."""
        return self.held.path

    def body(self) -> dict[str, Any]:
        """Return a request with a CSR of its own, and the proof for it."""
        body = self.wanted.body()
        csr = x509.load_pem_x509_csr(body["csr_pem"].encode()).public_bytes(Encoding.DER)
        said = _claims(Act.RENEW, self.name, self.leaf, self.root_sha256, hashlib.sha256(csr).hexdigest())
        return body | {"proof": _signed(said, self.held.key)}


@dataclass(frozen=True, slots=True)
class Activation:
    """A device that puts its renewed certificate into use."""

    held: Contender
    leaf: str
    """The pending certificate, PEM."""
    root_sha256: str

    @property
    def path(self) -> str:
        """Where it asks."""
        return f"/devices/{self.held.name}/activate"

    def body(self) -> dict[str, Any]:
        """Return the proof."""
        said = _claims(Act.ACTIVATE, self.held.name, self.leaf, self.root_sha256, None)
        return {"proof": _signed(said, self.held.key)}


def _claims(act: Act, name: str, leaf: str, root_sha256: str, csr_sha256: str | None) -> ProofClaims:
    digest = x509.load_pem_x509_certificate(leaf.encode()).fingerprint(hashes.SHA256()).hex()
    return ProofClaims(root_sha256, act, name, csr_sha256, None, digest)


def _signed(claims: ProofClaims, key: ec.EllipticCurvePrivateKey) -> str:
    return PyJWS().encode(json.dumps(claims.to_json()).encode(), key, "ES256", {"typ": PROOF_TYPE})


class Asks(Protocol):
    """Anybody with one request."""

    @property
    def path(self) -> str:
        """Where it asks."""
        ...

    def body(self) -> dict[str, Any]:
        """What it sends."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; ``status`` 0 where the connection ended without an answer."""

    status: int
    content: dict[str, Any]

    @property
    def code(self) -> str:
        """The problem's code; empty for an answer that is none."""
        return str(self.content.get("code", ""))

    @property
    def address(self) -> str:
        """The leased VPN address."""
        return str(self.content["wg"]["address"])

    @property
    def serial(self) -> int:
        """Of the certificate that was answered."""
        return x509.load_pem_x509_certificate(self.content["cert"].encode()).serial_number


NO_ANSWER = Answer(0, {})


class Crowd:
    """Sends many requests at once, each on a connection of its own, to one or several servers in turn."""

    def __init__(self, urls: Sequence[str], trust: ssl.SSLContext) -> None:
        self._urls = tuple(urls)
        self._trust = trust

    async def rush(self, contenders: Sequence[Asks], heard: Callable[[Answer], None] = lambda _: None) -> list[Answer]:
        """Return the answers in the order of the contenders: the n-th asks the server n modulo their number.

        ``heard`` is told each answer as it comes.
        """

        async def one(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> Answer:
            answer = await self._ask(client, path, body)
            heard(answer)
            return answer

        bodies = [one.body() for one in contenders]
        urls = [self._urls[number % len(self._urls)] for number in range(len(contenders))]
        clients = [httpx.AsyncClient(base_url=url, verify=self._trust, trust_env=False, timeout=60) for url in urls]
        try:
            await asyncio.gather(*(client.get("/healthz") for client in clients))
            # Everybody has a connection; now everybody speaks.
            return await asyncio.gather(
                *(
                    one(client, contender.path, body)
                    for client, contender, body in zip(clients, contenders, bodies, strict=True)
                )
            )
        finally:
            await asyncio.gather(*(client.aclose() for client in clients))

    async def ask(self, contender: Asks, server: int = 0) -> Answer:
        """Ask once."""
        async with httpx.AsyncClient(
            base_url=self._urls[server], verify=self._trust, trust_env=False, timeout=60
        ) as client:
            return await self._ask(client, contender.path, contender.body())

    @staticmethod
    async def _ask(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> Answer:
        try:
            answer = await client.post(path, json=body)
        except httpx.TransportError:
            return NO_ANSWER
        return Answer(answer.status_code, answer.json())
