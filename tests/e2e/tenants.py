"""A bridge with the systems around it: embedded, or real servers that nobody here wrote."""

from __future__ import annotations

import json
import secrets
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from bridge.app.http_clients import connect
from ca.bootstrap import context_for_root
from ca.standin.signing import Signer
from ca.standin.store import Store, read_signed
from compose.real.hawkbit_server import BRIDGE as HAWKBIT_USER
from compose.real.hawkbit_server import RealHawkbit
from compose.real.owned_process import OwnedProcess
from compose.real.step_ca import RealStepCa, real_step_ca
from compose.real.wireguard_namespaces import Namespaces, wireguard_namespaces
from tests.e2e.background import Background
from tests.e2e.observers import Eyes, open_eyes
from tests.e2e.processes import BIN, Bridge, Device
from thingsboard.standin import EmbeddedThingsBoard, Webhook

THINGSBOARD_USER = ("tenant@example.com", "only for this test")
WEBHOOK_SECRET = "a secret of this test alone"


@dataclass
class Tenant:
    """A bridge with the systems around it, embedded or real."""

    bridge: Bridge
    root_pem: str
    eyes: Eyes
    tunnels: Path
    revoked: Callable[[], set[int]]
    """What the CA says is revoked."""
    make_folder: Callable[[str], Path]

    def device(self, name: str = "dev", *, registered: bool = True) -> Device:
        """A device that was never started; its id is used nowhere else."""
        identity = f"{name}-{secrets.token_hex(4)}"
        if registered:
            self.bridge.order("device", "register", identity)
        folder = self.make_folder("device") / "certs"
        return Device(identity, folder, self.bridge.url, self.bridge.ready["root_sha256"])

    def booted(self, name: str = "dev") -> Device:
        """A device after its first boot."""
        device = self.device(name)
        ended = device.run()
        assert ended.status == 0, (ended.output, ended.errors)
        return device

    def tunnel_file(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.tunnels / name).read_text())
        return content

    def applied(self) -> dict[str, str]:
        """Peers on the interface as reported: address to public key."""
        if not (self.tunnels / "applied.json").exists():
            return {}  # the sync has not looked yet
        peers = self.tunnel_file("applied.json")["peers"]
        return {network: peer["public_key"] for peer in peers for network in peer["allowed_ips"]}


def signed_by_embedded_ca(bridge: Bridge) -> list[int]:
    """Every serial that the embedded CA signed, in order."""
    return [one.serial for one in read_signed(bridge.data / "embedded" / "ca" / "ca.sqlite")]


def embedded_root(bridge: Bridge) -> str:
    root = x509.load_pem_x509_certificate((bridge.data / "embedded" / "ca" / "pki" / "root.pem").read_bytes())
    return root.public_bytes(Encoding.PEM).decode()


def embedded_tenant(bridge: Bridge, make_folder: Callable[[str], Path]) -> Tenant:
    """The view on a running bridge that brings its own systems."""
    inside = bridge.data / "embedded"
    user = ("iot-bridge", (inside / "operator.secret").read_text().strip())

    def revoked() -> set[int]:
        store = Store(inside / "ca" / "ca.sqlite")
        try:
            return {one.serial for one in store.revoked()}
        finally:
            store.close()

    eyes = open_eyes(bridge, user, user)
    return Tenant(bridge, embedded_root(bridge), eyes, inside / "wg-data", revoked, make_folder)


@dataclass
class RealServers:
    """step-ca, hawkBit and WireGuard as others made them, and ThingsBoard's stand-in, which no registry carries."""

    ca: RealStepCa
    hawkbit: RealHawkbit
    tunnel: Namespaces
    thingsboard: EmbeddedThingsBoard

    def variables(self, tunnel_folder: Path) -> dict[str, str]:
        """The bridge's configuration for exactly these."""
        named = (self.ca.device_provisioner, self.ca.server_provisioner)
        return {
            "STEP_CA_URL": self.ca.url,
            "STEP_CA_FINGERPRINT": self.ca.anchor.issuing_fingerprint.value,
            "STEP_CA_PROVISIONER_NAME": named[0],
            "STEP_CA_PROVISIONER_PASSWORD": self.ca.password,
            "STEP_CA_SERVER_PROVISIONER_NAME": named[1],
            "STEP_CA_SERVER_PROVISIONER_PASSWORD": self.ca.password,
            "BRIDGE_PUBLIC_HOST": "localhost",
            "BRIDGE_ADMISSION": "registered",
            "BRIDGE_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "THINGSBOARD_URL": self.thingsboard.rest_url,
            "THINGSBOARD_USERNAME": THINGSBOARD_USER[0],
            "THINGSBOARD_PASSWORD": THINGSBOARD_USER[1],
            "THINGSBOARD_MQTT_HOST": self.thingsboard.mqtt_host,
            "THINGSBOARD_MQTT_PORT": str(self.thingsboard.mqtt_port),
            "HAWKBIT_URL": self.hawkbit.url,
            "HAWKBIT_USERNAME": HAWKBIT_USER[0],
            "HAWKBIT_PASSWORD": HAWKBIT_USER[1],
            "WG_SUBNET": str(self.tunnel.pool),
            "WG_SERVER_ENDPOINT": str(self.tunnel.endpoint),
            "WG_SERVER_PUBLIC_KEY": str(self.tunnel.server_public_key),
            "WG_DATA_DIR": str(tunnel_folder),
        }

    def crl_pem(self) -> bytes:
        """The revocation list as step-ca serves it now."""
        trust = ssl.create_default_context(cadata=self.ca.anchor.root_pem)
        with httpx.Client(verify=trust, trust_env=False) as http:
            der = http.get(f"{self.ca.url}/1.0/crl").raise_for_status().content
        return x509.load_der_x509_crl(der).public_bytes(Encoding.PEM)

    def revoked(self) -> set[int]:
        return {one.serial_number for one in x509.load_pem_x509_crl(self.crl_pem())}


def write_server_certificate(signer: Signer, folder: Path) -> tuple[Path, Path]:
    made = signer.server_certificate(("localhost", "127.0.0.1", "::1"), datetime.now(UTC), timedelta(days=1))
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = folder / "server.crt", folder / "server.key"
    certificate.write_text(made.chain_pem)
    key.write_text(made.key_pem)
    return certificate, key


@contextmanager
def real_servers(folder: Path, background: Background) -> Iterator[RealServers]:
    with ExitStack() as stack:
        ca = stack.enter_context(real_step_ca(folder / "step-ca"))
        certificate, key = write_server_certificate(Signer(ca.hierarchy), folder / "mqtt")
        thingsboard = EmbeddedThingsBoard(
            folder / "thingsboard",
            server_cert=certificate,
            server_key=key,
            client_ca=ca.anchor.root_pem,
            username=THINGSBOARD_USER[0],
            password=THINGSBOARD_USER[1],
        )
        background.enter(stack, thingsboard)
        tunnel = stack.enter_context(wireguard_namespaces())
        hawkbit = stack.enter_context(RealHawkbit(folder / "hawkbit"))
        yield RealServers(ca, hawkbit, tunnel, thingsboard)


@contextmanager
def real_tenant(
    servers: RealServers, background: Background, folder: Path, make_folder: Callable[[str], Path], **more: str
) -> Iterator[Tenant]:
    """Run a bridge on the real servers, and the process beside the WireGuard server in its namespace."""
    with ExitStack() as stack:
        shared = folder / "wg-data"
        shared.mkdir(mode=0o700)
        stack.callback(_beside_the_interface(servers.tunnel, shared).stop)
        bridge = stack.enter_context(Bridge(folder, servers.variables(shared) | more))
        http = background.enter(stack, connect(context_for_root(servers.ca.anchor)))
        servers.thingsboard.point_webhook(Webhook(f"{bridge.url}/webhooks/thingsboard", WEBHOOK_SECRET, http))
        eyes = open_eyes(bridge, THINGSBOARD_USER, HAWKBIT_USER)
        stack.callback(eyes.close)
        yield Tenant(bridge, servers.ca.anchor.root_pem, eyes, shared, servers.revoked, make_folder)


def _beside_the_interface(tunnel: Namespaces, shared: Path) -> OwnedProcess:
    """Start `iot-bridge wireguard sync` in the WireGuard server's namespace."""
    sync = [BIN / "iot-bridge", "wireguard", "sync", "--interface", str(tunnel.server_interface)]
    command = ["ip", "netns", "exec", tunnel.server.namespace, *sync]
    environment = {"WG_DATA_DIR": str(shared)}
    process = OwnedProcess("wireguard sync", command, shared.with_suffix(".log"), shared, environment=environment)
    process.start()
    return process
