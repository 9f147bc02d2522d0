"""A device by hand, without the agent: plain HTTP requests, proofs, and a look at the MQTT door."""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt import PyJWS

from enroll.wire import PROOF_TYPE, Act, ProofClaims
from tests.e2e.requests import csr
from tests.e2e.tenants import Tenant
from thingsboard.models import Leaf


@dataclass
class Pair:
    """A key and what was answered for it."""

    key: ec.EllipticCurvePrivateKey
    answer: dict[str, Any]

    @property
    def leaf(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.answer["cert"].encode())

    @property
    def serial(self) -> int:
        return self.leaf.serial_number

    @property
    def credential(self) -> str:
        """The name by which ThingsBoard admits the leaf."""
        return Leaf.from_pem(self.answer["cert"]).credentials_id


class HandMade:
    """One device id at one tenant, and whatever it holds in its hands."""

    def __init__(self, tenant: Tenant, name: str, folder: Path) -> None:
        self.tenant, self.name, self._folder = tenant, name, folder

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        with self.tenant.bridge.client(self.tenant.root_pem) as http:
            return http.post(f"/devices/{self.name}/{path}", json=body)

    def enroll(self, wg_key: str | None = None) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        answer = self.post("enroll", {"csr_pem": csr(self.name, key), "wg_public_key": wg_key})
        assert answer.status_code == httpx.codes.CREATED, answer.text
        return Pair(key, answer.json())

    def renew(self, held: Pair) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        request = csr(self.name, key)
        der = x509.load_pem_x509_csr(request.encode()).public_bytes(Encoding.DER)
        body = {"csr_pem": request, "proof": self.proof(held, Act.RENEW, hashlib.sha256(der).hexdigest())}
        answer = self.post("enroll", body)
        assert answer.status_code == httpx.codes.CREATED, answer.text
        return Pair(key, answer.json())

    def activate(self, pair: Pair) -> httpx.Response:
        return self.post("activate", {"proof": self.proof(pair, Act.ACTIVATE, None)})

    def proof(self, pair: Pair, act: Act, csr_sha256: str | None) -> str:
        digest = pair.leaf.fingerprint(hashes.SHA256()).hex()
        root = self.tenant.bridge.ready["root_sha256"]
        claims = json.dumps(ProofClaims(root, act, self.name, csr_sha256, None, digest).to_json())
        return PyJWS().encode(claims.encode(), pair.key, "ES256", {"typ": PROOF_TYPE})

    def admitted(self, pair: Pair) -> bool:
        """Tell whether the MQTT door lets this pair in."""
        shown = self._folder / f"{pair.serial}.pem"
        key = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        shown.write_bytes(key + (pair.answer["cert"] + pair.answer["ca_chain"]).encode())
        trust = ssl.create_default_context(cadata=self.tenant.root_pem)
        trust.load_cert_chain(shown)
        codes: list[bool] = []
        told = threading.Event()

        def connected(_client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
            codes.append(not reason.is_failure)
            told.set()

        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=self.name)
        client.tls_set_context(trust)
        client.on_connect = connected
        client.on_disconnect = lambda *_: told.set()
        try:
            client.connect(pair.answer["mqtt"]["host"], pair.answer["mqtt"]["port"], keepalive=10)
            client.loop_start()
            assert told.wait(10)
        finally:
            client.disconnect()
            client.loop_stop()
        return codes == [True]
