"""The embedded stack: stand-ins of all four systems in this process, on loopback, kept in the data folder.

The only place that builds stand-ins. What comes out is a set of settings that name them, so that everything else talks
to them exactly as to real servers: which of them you talk to is only a URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from pydantic import SecretStr

from bridge.adapters.connecting import Connect
from bridge.adapters.folders import private_folder
from bridge.adapters.remembered_ports import RememberedPorts
from bridge.config import Settings
from bridge.ports.runtime import Clock
from ca.bootstrap import context_for_root
from ca.models import ServerCertificate
from ca.standin import StandInCa, StandInSettings
from hawkbit.standin import EmbeddedHawkbit
from thingsboard.standin import EmbeddedThingsBoard, Webhook
from wireguard.applied_file import Applied
from wireguard.errors import WireGuardError
from wireguard.interface import InterfaceName
from wireguard.keys import PrivateKey
from wireguard.standin import MemoryInterface
from wireguard.sync import watch

_log = structlog.get_logger("bridge.embedded")

_SUBNET: Final = IPv4Network("10.8.0.0/24")
_USER: Final = "iot-bridge"
_INTERFACE: Final = InterfaceName("wg0")


@dataclass(frozen=True, slots=True)
class EmbeddedStack:
    """The running stand-ins, for the composition and the demonstration."""

    settings: Settings
    """The given settings, completed so that they name the stand-ins."""
    ca: StandInCa
    thingsboard: EmbeddedThingsBoard
    hawkbit: EmbeddedHawkbit

    def server_certificate(self) -> ServerCertificate:
        """Issue the certificate of the bridge's own HTTPS: localhost by name and by both addresses."""
        return self.ca.issue_server_certificate()


@asynccontextmanager
async def embedded_stack(
    settings: Settings, bridge_url: str, clock: Clock, connect: Connect
) -> AsyncIterator[EmbeddedStack]:
    """Run the stand-ins until left.

    :param bridge_url: where connect events are posted to, such as ``https://localhost:8443``.
    """
    folder = private_folder(settings.data / "embedded")
    given = settings.bridge_webhook_secret
    secret = given.get_secret_value() if given is not None else _remembered(folder / "webhook.secret")
    password = _remembered(folder / "operator.secret")
    ports = RememberedPorts(folder / "ports.json")
    async with contextlib.AsyncExitStack() as stack:
        ca = await stack.enter_async_context(StandInCa(StandInSettings(folder / "ca"), clock=clock.now))
        certificate = _certificate_files(folder, ca.issue_server_certificate())
        http = await stack.enter_async_context(connect(context_for_root(ca.anchor)))
        hawkbit = await stack.enter_async_context(
            EmbeddedHawkbit(folder / "hawkbit", _USER, password, port=ports.of("hawkbit"))
        )
        thingsboard = await stack.enter_async_context(
            EmbeddedThingsBoard(
                folder / "thingsboard",
                server_cert=certificate[0],
                server_key=certificate[1],
                client_ca=ca.anchor.root_pem,
                username=_USER,
                password=password,
                webhook=Webhook(f"{bridge_url}/webhooks/thingsboard", secret, http),
                mqtt_port=ports.of("mqtt"),
                clock=clock.now,
            )
        )
        ports.remember(hawkbit=urlsplit(hawkbit.url).port or 0, mqtt=thingsboard.mqtt_port)
        tunnels = await stack.enter_async_context(_tunnels(settings, folder))
        named = _named(settings, ca, thingsboard, hawkbit, password, secret) | tunnels
        yield EmbeddedStack(settings.model_copy(update=named), ca, thingsboard, hawkbit)


def _named(
    settings: Settings,
    ca: StandInCa,
    thingsboard: EmbeddedThingsBoard,
    hawkbit: EmbeddedHawkbit,
    password: str,
    secret: str,
) -> dict[str, Any]:
    return {
        "step_ca_url": ca.url,
        "step_ca_fingerprint": ca.fingerprint.value,
        "step_ca_provisioner_name": ca.device_provisioner,
        "step_ca_provisioner_password": SecretStr(ca.password),
        "thingsboard_url": thingsboard.rest_url,
        "thingsboard_username": _USER,
        "thingsboard_password": SecretStr(password),
        "thingsboard_mqtt_host": thingsboard.mqtt_host,
        "thingsboard_mqtt_port": thingsboard.mqtt_port,
        "hawkbit_url": hawkbit.url,
        "hawkbit_username": _USER,
        "hawkbit_password": SecretStr(password),
        "hawkbit_public_url": hawkbit.url,
        "bridge_webhook_secret": SecretStr(secret),
        "bridge_admission": settings.bridge_admission or "registered",
        "bridge_public_host": settings.bridge_public_host or "localhost",
    }


@asynccontextmanager
async def _tunnels(settings: Settings, folder: Path) -> AsyncIterator[dict[str, Any]]:
    """Run an interface in memory and the same sync that runs beside a real one."""
    key = _server_key(folder / "wireguard.key")
    data = settings.wg_data_dir or private_folder(folder / "wg-data")
    stop = asyncio.Event()
    interface = MemoryInterface(_INTERFACE, key)
    task = asyncio.create_task(watch(data, interface, stop, on_pass=_report))
    try:
        yield {
            "wg_subnet": settings.wg_subnet or _SUBNET,
            "wg_server_endpoint": settings.wg_server_endpoint or "127.0.0.1:51820",
            "wg_server_public_key": settings.wg_server_public_key or str(key.public_key),
            "wg_data_dir": data,
        }
    finally:
        stop.set()
        await task


def _report(outcome: Applied | WireGuardError) -> None:
    if isinstance(outcome, WireGuardError):
        _log.debug("wireguard.sync", error=str(outcome))


def _server_key(path: Path) -> PrivateKey:
    return PrivateKey.parse(_remembered(path, str(PrivateKey.generate().reveal())))


def _remembered(path: Path, value: str | None = None) -> str:
    """Return the secret in the file; at the first start write a new one, 0600."""
    if not path.exists():
        _write_private(path, value or secrets.token_urlsafe(24))
    return path.read_text(encoding="ascii").strip()


def _certificate_files(folder: Path, made: ServerCertificate) -> tuple[Path, Path]:
    certificate, key = folder / "mqtt.crt", folder / "mqtt.key"
    _write_private(certificate, made.chain_pem)
    _write_private(key, made.key_pem)
    return certificate, key


def _write_private(path: Path, text: str) -> None:
    beside = path.with_suffix(path.suffix + ".new")
    beside.touch(mode=0o600)
    beside.write_text(text, encoding="ascii")
    beside.replace(path)
