"""Devices of complete-device-management, unchanged: what they send, octet by octet, and how they read the answer."""

from __future__ import annotations

import base64
import configparser
import hashlib
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from enroll import mqtt
from enroll.names import HostPort
from tests.e2e.processes import wait_for
from tests.e2e.referee import accepted_as_client
from tests.e2e.tenants import Tenant
from wireguard.keys import PrivateKey

PLACEHOLDER = "<REPLACE_WITH_DEVICE_PRIVATE_KEY>"
Post = Callable[[str, bytes, Path], tuple[int, bytes]]
"""Posts JSON to a URL, trusting the authorities in a file; returns status and body."""


def octets(url: str, header: bytes, body: bytes, trust: ssl.SSLContext) -> tuple[int, bytes]:
    """Send exactly this request over a TLS socket and read an answer that states its length."""
    parts = urlsplit(url)
    request = b"%s\r\nContent-Length: %d\r\n\r\n%s" % (header, len(body), body)
    plain = socket.create_connection((parts.hostname, parts.port), timeout=20)
    with plain, trust.wrap_socket(plain, server_hostname=parts.hostname) as sealed:
        sealed.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += sealed.recv(4096)
        head, _, content = received.partition(b"\r\n\r\n")
        lines = head.decode("ascii").lower().split("\r\n")
        length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
        while len(content) < length:
            content += sealed.recv(4096)
    return int(lines[0].split(" ")[1]), content


def as_curl_does(url: str, body: bytes, trusted: Path) -> tuple[int, bytes]:
    """The octets of `curl -sf -X POST -H "Content-Type: application/json" -d …`."""
    parts = urlsplit(url)
    header = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n"
        "Content-Type: application/json"
    )
    return octets(url, header.encode("ascii"), body, ssl.create_default_context(cafile=trusted))


def with_curl(url: str, body: bytes, trusted: Path) -> tuple[int, bytes]:
    """`curl` itself with the flags of the shell client; `-w` only tells us the status."""
    command = ["curl", "-sf", "--retry", "10", "--retry-delay", "5", "--retry-connrefused", "-X", "POST", url]
    command += ["-H", "Content-Type: application/json", "-d", body.decode(), "--cacert", str(trusted)]
    done = subprocess.run([*command, "-w", "\n%{http_code}"], capture_output=True, timeout=60, check=False)
    content, _, status = done.stdout.rpartition(b"\n")
    assert done.returncode == (0 if status.startswith(b"2") else 22), done.stderr
    return int(status), content


@dataclass
class ShellClient:
    """enroll.sh: bootstraps trust by fingerprint, posts a CSR, stores what comes back in its own files."""

    id: str
    folder: Path
    base_url: str
    fingerprint: str
    post: Post
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    wg_key: PrivateKey = field(default_factory=PrivateKey.generate)

    def bootstrap(self, root_pem: str) -> None:
        """`step ca bootstrap --fingerprint … --install`: the root by its digest, and nothing else believed.

        `step` does not verify this one connection; that the pinned root verifies it too is more than it asks.
        """
        parts = urlsplit(self.base_url)
        trust = ssl.create_default_context(cadata=root_pem)
        header = f"GET /root/{self.fingerprint} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: Go-http-client/1.1"
        status, body = octets(self.base_url, header.encode("ascii"), b"", trust)
        assert status == 200
        pem = json.loads(body)["ca"]
        root = x509.load_pem_x509_certificate(pem.encode())
        assert root.fingerprint(hashes.SHA256()).hex() == self.fingerprint
        self.folder.mkdir(exist_ok=True)
        (self.folder / "root.pem").write_text(pem)

    def csr(self) -> str:
        """As `step certificate create --csr --san ID … ID` makes it: EC P-256, CN = SAN = id."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.id)])
        san = x509.SubjectAlternativeName([x509.DNSName(self.id)])
        builder = x509.CertificateSigningRequestBuilder().subject_name(name).add_extension(san, critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def request(self, **more: str) -> bytes:
        body = {"csr": self.csr(), "device_name": "Pump 7", "device_type": "pump"} | more
        return json.dumps(body).encode()

    def enroll(self) -> tuple[int, bytes]:
        body = self.request(wg_public_key=str(self.wg_key.public_key))
        return self.post(f"{self.base_url}/devices/{self.id}/enroll", body, self.folder / "root.pem")

    def store(self, body: bytes) -> None:
        """`jq -r .certificate > device.pem` and so on."""
        answer: dict[str, Any] = json.loads(body)
        fields = ("certificate", "ca_chain", "wireguard_ip", "wireguard_config")
        assert all(isinstance(answer[name], str) and answer[name] for name in fields)
        key = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        (self.folder / "device-key.pem").write_bytes(key)
        (self.folder / "device.pem").write_text(answer["certificate"])
        (self.folder / "ca-chain.pem").write_text(answer["ca_chain"])
        configuration = answer["wireguard_config"]
        assert configuration.count(PLACEHOLDER) == 1
        (self.folder / "wg0.conf").write_text(configuration.replace(PLACEHOLDER, self.wg_key.reveal()))
        (self.folder / ".enrolled").write_text(answer["wireguard_ip"])


@pytest.fixture(params=["", "/api"], ids=["no-prefix", "prefix"])
def prefix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(
    params=[pytest.param(as_curl_does, id="octets"), pytest.param(with_curl, id="curl", marks=pytest.mark.real)]
)
def post(request: pytest.FixtureRequest) -> Post:
    found: Post = request.param
    return found


@pytest.fixture
def shell(tenant: Tenant, post: Post, prefix: str) -> ShellClient:
    device = tenant.device("shell")
    client = ShellClient(device.id, device.folder, device.url + prefix, device.root_sha256, post)
    client.bootstrap(tenant.root_pem)
    return client


def test_the_shell_client_enrolls(tenant: Tenant, shell: ShellClient) -> None:
    status, body = shell.enroll()

    assert status == 201
    shell.store(body)
    chain = (shell.folder / "ca-chain.pem").read_text()
    assert chain.strip().endswith((shell.folder / "root.pem").read_text().strip())
    stored = configparser.ConfigParser()
    stored.read(shell.folder / "wg0.conf")
    address = (shell.folder / ".enrolled").read_text()
    assert stored["Interface"]["Address"] == f"{address}/32"
    assert stored["Interface"]["PrivateKey"] == shell.wg_key.reveal()
    assert PLACEHOLDER not in (shell.folder / "wg0.conf").read_text()
    shown = tenant.bridge.show(shell.id)
    assert (shown["state"], shown["address"], shown["name"], shown["type"]) == ("active", address, "Pump 7", "pump")


def test_openssl_takes_what_the_shell_client_stores(tenant: Tenant, shell: ShellClient) -> None:
    shell.store(shell.enroll()[1])
    # The leaf alone, under the chain file that it was given: where one file serves as --cafile.
    accepted_as_client(
        shell.folder / "device.pem", shell.folder / "device-key.pem", (shell.folder / "ca-chain.pem").read_text()
    )


def test_its_files_open_the_broker_and_the_connect_comes_round(tenant: Tenant, shell: ShellClient) -> None:
    _, body = shell.enroll()
    shell.store(body)
    # As `mosquitto_pub --cafile ca-chain.pem --cert device.pem --key device-key.pem`.
    context = ssl.create_default_context(cafile=shell.folder / "ca-chain.pem")
    context.load_cert_chain(shell.folder / "device.pem", shell.folder / "device-key.pem")
    broker = json.loads(body)["mqtt"]

    def connected() -> bool:
        mqtt.connect_once(HostPort(broker["host"], broker["port"]), shell.id, context, 10)
        return True

    wait_for(lambda: tenant.eyes.thingsboard.attributes(shell.id))
    assert connected()
    address = (shell.folder / ".enrolled").read_text()
    wait_for(lambda: (tenant.eyes.thingsboard.attributes(shell.id) or {}).get("wireguard_ip") == address)
    wait_for(lambda: tenant.eyes.hawkbit.target(shell.id))
    wait_for(lambda: tenant.applied().get(f"{address}/32") == str(shell.wg_key.public_key))


def test_its_second_request_gets_the_same_certificate(shell: ShellClient) -> None:
    first, second = shell.enroll(), shell.enroll()

    assert (first[0], second[0]) == (201, 200)
    assert json.loads(first[1])["certificate"] == json.loads(second[1])["certificate"]


def test_a_new_key_after_a_lost_answer_ends_its_retries(tenant: Tenant, shell: ShellClient) -> None:
    assert shell.enroll()[0] == 201
    again = ShellClient(shell.id, shell.folder, shell.base_url, shell.fingerprint, shell.post)

    # A 4xx: `curl -f` gives up at once, with 22, instead of knocking for a minute.
    assert again.enroll()[0] == 409

    tenant.bridge.order("re-enroll", shell.id)
    status, body = again.enroll()
    assert status == 201
    assert json.loads(body)["generation"] == 2


def c_client(base_url: str, path: str, body: bytes, root_pem: str) -> tuple[str, str]:
    """The C clients: raw HTTP, the status after the first blank, the certificate found by text search."""
    parts = urlsplit(base_url)
    request = (
        f"POST {parts.path}{path} HTTP/1.1\r\nHost: {parts.hostname}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    trust = ssl.create_default_context(cadata=root_pem)
    plain = socket.create_connection((parts.hostname, parts.port), timeout=20)
    with plain, trust.wrap_socket(plain, server_hostname=parts.hostname) as sealed:
        sealed.sendall(request.encode("ascii") + body)
        text = b"".join(iter(lambda: sealed.recv(4096), b"")).decode("utf-8")
    marker = '"certificate":"'
    _, found, rest = text.partition(marker)
    assert "transfer-encoding" not in text.lower()
    return text.split(" ", 2)[1], rest.partition('"')[0].replace("\\n", "\n") if found else ""


@pytest.fixture
def c_request(tenant: Tenant) -> tuple[str, bytes]:
    """The id of a registered device, and the body that FreeRTOS and QEMU send."""
    device = tenant.device("c")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "cdm"),
            x509.NameAttribute(NameOID.COMMON_NAME, device.id),
        ]
    )
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    builder = builder.add_extension(
        x509.KeyUsage(True, False, False, False, False, False, False, False, False), critical=True
    )
    csr = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    escaped = csr.replace("\n", "\\n")
    body = f'{{"device_id":"{device.id}","device_type":"freertos-qemu","csr":"{escaped}"}}'
    return device.id, body.encode("ascii")


def test_the_c_clients_get_200_and_find_their_certificate(
    tenant: Tenant, prefix: str, c_request: tuple[str, bytes]
) -> None:
    name, body = c_request

    status, certificate = c_client(tenant.bridge.url + prefix, "/v1/enroll", body, tenant.root_pem)

    assert status == "200"
    leaf = x509.load_pem_x509_certificate(certificate.encode())
    assert leaf.subject.rfc4514_string() == f"CN={name}"
    shown = tenant.bridge.show(name)
    assert (shown["address"], shown["issuances"][0]["serial"]) == (None, str(leaf.serial_number))
    again = c_client(tenant.bridge.url + prefix, "/v1/enroll", body, tenant.root_pem)
    assert again == (status, certificate)


def test_without_a_wireguard_key_no_field_is_missing_or_null(
    tenant: Tenant, prefix: str, c_request: tuple[str, bytes], tmp_path: Path
) -> None:
    _, body = c_request
    trusted = tmp_path / "root.pem"
    trusted.write_text(tenant.root_pem)

    status, content = as_curl_does(f"{tenant.bridge.url}{prefix}/v1/enroll", body, trusted)

    answer = json.loads(content)
    assert (status, answer["wireguard_ip"], answer["wireguard_config"]) == (200, "", "")
    assert b'"certificate":"-----BEGIN CERTIFICATE-----' in content
    assert answer["ca_chain"].count("BEGIN CERTIFICATE") == 3


@pytest.mark.parametrize("spelling", [str.lower, str.upper])
def test_step_ca_bootstrap_finds_the_root(tenant: Tenant, prefix: str, spelling: Callable[[str], str]) -> None:
    fingerprint = tenant.bridge.ready["root_sha256"]
    with tenant.bridge.client(tenant.root_pem) as http:
        answer = http.get(f"{prefix}/root/{spelling(fingerprint)}")
        unknown = http.get(f"{prefix}/root/{'0' * 64}")

    assert answer.status_code == 200
    der = base64.b64decode("".join(answer.json()["ca"].strip().splitlines()[1:-1]))
    assert hashlib.sha256(der).hexdigest() == fingerprint
    assert unknown.status_code == 404


@pytest.mark.real
def test_openssl_verify_and_wg_quick_take_the_files(real: Tenant, tmp_path: Path) -> None:
    device = real.device("shell")
    client = ShellClient(device.id, device.folder, device.url, device.root_sha256, with_curl)
    client.bootstrap(real.root_pem)
    client.store(client.enroll()[1])
    chain = client.folder / "ca-chain.pem"

    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-no-CApath", "-CAfile", chain]
    verified = subprocess.run([*command, client.folder / "device.pem"], capture_output=True, text=True, check=False)
    stripped = subprocess.run(
        ["wg-quick", "strip", shutil.copy(client.folder / "wg0.conf", tmp_path / "wg0.conf")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert verified.returncode == 0, verified.stderr
    assert stripped.returncode == 0, stripped.stderr
    assert client.wg_key.reveal() in stripped.stdout
