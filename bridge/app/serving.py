"""``iot-bridge serve``: everything started in order, and ended in the order that loses nothing."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from bridge.adapters.connecting import Systems, connected, server_certificate
from bridge.adapters.embedded import EmbeddedStack, embedded_stack
from bridge.adapters.folders import private_folder
from bridge.adapters.runtime import SystemClock, SystemRandomness
from bridge.app import tls, wiring
from bridge.app.http_clients import connect
from bridge.app.installation import installed
from bridge.app.server import HttpServer, listen
from bridge.app.signing import signer_of
from bridge.config import Mode, Settings, mode_of
from bridge.config.modes import systems_of
from bridge.errors import Misconfigured
from bridge.model.records import Installation, System
from bridge.reconcile.service import Hints
from bridge.routes.api import build_api
from bridge.store.lock import FolderLock
from bridge.store.open import RegistryStore, open_registry

_log = structlog.get_logger("bridge")

_CANCEL_AGAIN: Final = 10.0
"""Seconds after which a task is told again to end; longer than any lets its work in hand finish."""


@dataclass(frozen=True, slots=True)
class Serving:
    """How to serve: where to listen, and which file says that everything listens."""

    host: str = "127.0.0.1"
    port: int = 8443
    ready_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """A server whose every part listens."""

    url: str
    settings: Settings
    systems: Systems
    installation: Installation
    stack: EmbeddedStack | None
    background: asyncio.Task[None]
    """The reconciler; it never ends by itself, unless something is broken."""

    def ready(self) -> dict[str, Any]:
        """Return what the ready file holds."""
        return {
            "url": self.url,
            "root_sha256": self.systems.authority.root_sha256.hex,
            "mqtt_host": self.settings.thingsboard_mqtt_host,
            "mqtt_port": self.settings.thingsboard_mqtt_port if self.settings.thingsboard_url else None,
            "thingsboard_url": self.settings.thingsboard_url,
            "hawkbit_url": self.settings.hawkbit_url,
            "data": str(self.settings.data),
        }


async def serve(settings: Settings, serving: Serving) -> None:
    """Serve until SIGTERM or SIGINT; open requests get five seconds, attempts at the CA are finished.

    :raises bridge.errors.BridgeError: it cannot start; the text says what to change.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings, serving) as started:
        _announce(started)
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, started.background}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if started.background.done() and not stop.is_set():
            # Serving on without it would look healthy and bring nothing into agreement any more.
            started.background.result()


@asynccontextmanager
async def running(settings: Settings, serving: Serving) -> AsyncIterator[Running]:
    """Run the whole server inside the block."""
    mode = mode_of(settings)
    clock, randomness = SystemClock(), SystemRandomness()
    private_folder(settings.data)
    async with AsyncExitStack() as stack:
        listener = listen(serving.host, serving.port)
        stack.callback(listener.close)
        if settings.bridge_database_url is None:
            stack.enter_context(FolderLock(settings.data))
        if serving.ready_file is not None:
            _remove(serving.ready_file)  # of a server that was killed: nothing listens yet
        url = _url(settings, mode, listener)
        embedded = None
        if mode is Mode.EMBEDDED:
            embedded = await stack.enter_async_context(embedded_stack(settings, url, clock, connect))
            settings = embedded.settings
        registry = await _registry(stack, settings, mode)
        systems = await stack.enter_async_context(connected(settings, connect, clock, randomness))
        installation = await installed(
            registry, settings, mode, systems.authority, systems.tunnel_terms, clock, randomness
        )
        signer = await signer_of(registry, settings, clock)
        off = frozenset(System) - systems_of(settings, mode)
        await registry.write(lambda tx: tx.forget_links(off))
        outfit = wiring.Outfit(settings, registry, systems, installation, signer, clock, randomness)
        background = await _start(stack, outfit, embedded, listener)
        started = Running(url, settings, systems, installation, embedded, background)
        _write_run_file(settings.data / "run.json", started.ready())
        if serving.ready_file is not None:
            _write_run_file(serving.ready_file, started.ready())
            stack.callback(_remove, serving.ready_file)
        stack.callback(_remove, settings.data / "run.json")
        yield started


async def _registry(stack: AsyncExitStack, settings: Settings, mode: Mode) -> RegistryStore:
    url = settings.bridge_database_url
    registry = await open_registry(
        url.get_secret_value() if url is not None else settings.data / "registry.sqlite",
        systems=systems_of(settings, mode),
        quarantine=settings.bridge_lease_quarantine,
        migrate=True,
    )
    stack.push_async_callback(registry.close)
    return registry


async def _start(
    stack: AsyncExitStack, outfit: wiring.Outfit, embedded: EmbeddedStack | None, listener: socket.socket
) -> asyncio.Task[None]:
    """Start the reconciler and the HTTP server; they end in the opposite order."""
    hints = Hints()
    enrollment = wiring.build_enrollment(outfit)
    reconciler = wiring.build_reconciler(outfit, hints)
    task = asyncio.create_task(reconciler.run(), name="reconciler")
    stack.push_async_callback(_cancel, task)
    stack.push_async_callback(enrollment.drain)
    obtain = _certificate_source(outfit, embedded)
    certificate = await obtain() if outfit.settings.bridge_tls == "on" else None
    server = HttpServer(build_api(wiring.build_parts(outfit, enrollment, hints)), certificate)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="https")
    stack.push_async_callback(_end, server, serving)
    await server.listening.wait()
    context = server.config.ssl
    if certificate is not None and context is not None:
        fresh = asyncio.create_task(tls.keep_fresh(context, certificate, obtain, outfit.clock), name="certificate")
        stack.push_async_callback(_cancel, fresh)
    return task


def _certificate_source(outfit: wiring.Outfit, embedded: EmbeddedStack | None) -> tls.Obtain:
    settings, folder = outfit.settings, outfit.settings.data / "tls"

    async def from_files() -> tls.CertificateFiles:
        files = tls.CertificateFiles(settings.bridge_tls_cert_file or folder, settings.bridge_tls_key_file or folder)
        files.check()
        return files

    async def from_embedded() -> tls.CertificateFiles:
        assert embedded is not None  # noqa: S101 - chosen below only then
        made = embedded.server_certificate()
        return tls.write_files(folder, made.chain_pem, made.key_pem)

    async def from_provisioner() -> tls.CertificateFiles:
        made = await server_certificate(settings, outfit.systems.authority, outfit.clock, outfit.randomness)
        return tls.write_files(folder, made.chain_pem, made.key_pem)

    if settings.bridge_tls_cert_file is not None:
        return from_files
    return from_embedded if embedded is not None else from_provisioner


async def _cancel(task: asyncio.Task[None]) -> None:
    """End a task, told again if it has not heard; one that failed before has been heard already."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_AGAIN)


async def _end(server: HttpServer, serving: asyncio.Task[None]) -> None:
    server.end()
    await serving


def _url(settings: Settings, mode: Mode, listener: socket.socket) -> str:
    scheme = "http" if settings.bridge_tls == "off" else "https"
    host = settings.bridge_public_host or ("localhost" if mode is Mode.EMBEDDED else listener.getsockname()[0])
    return f"{scheme}://{host}:{listener.getsockname()[1]}"


def _write_run_file(path: Path, content: dict[str, Any]) -> None:
    beside = path.with_name(path.name + ".new")
    try:
        beside.unlink(missing_ok=True)
        beside.touch(mode=0o600)
        beside.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as e:
        raise Misconfigured(f"{path} cannot be written ({e.strerror}); check --ready-file and --data") from e


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as e:
        raise Misconfigured(f"{path} cannot be removed ({e.strerror}); check --ready-file and --data") from e


def _announce(started: Running) -> None:
    """Say what runs, and loudly what is open."""
    settings = started.settings
    _log.info("serving", **started.ready(), mode=started.installation.mode, tenant=settings.bridge_tenant)
    if started.stack is not None:
        _log.warning("embedded", text="EMBEDDED STACK: stand-ins of all systems, for trying out; nothing is configured")
    if settings.bridge_admission == "open":
        _log.warning("admission.open", text="BRIDGE_ADMISSION=open: EVERY device id is let in, unproven")
    if settings.bridge_reenrollment == "allow":
        _log.warning("reenrollment.allow", text="BRIDGE_REENROLLMENT=allow: an active id may come with a new key")
    if settings.step_ca_profile == "plain":
        _log.warning("ca.plain", text="STEP_CA_PROFILE=plain: serial, usage and renewal at the CA are not checked")
