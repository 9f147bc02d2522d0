"""How a command reaches the registry: the same environment, or the same data folder, as the server."""

from __future__ import annotations

import getpass
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from bridge.adapters.folders import private_folder
from bridge.adapters.runtime import SystemClock
from bridge.config import Settings, load
from bridge.errors import Misconfigured
from bridge.lifecycle.service import Lifecycle
from bridge.model.identity import DeviceId, NamingRule
from bridge.model.records import System
from bridge.ports.registry import Registry
from bridge.store.lock import FolderLock
from bridge.store.open import open_registry

DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="Data folder of the server; default BRIDGE_DATA, else $XDG_DATA_HOME/iot-bridge."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True, slots=True)
class Desk:
    """Where an operator's order is given."""

    lifecycle: Lifecycle
    settings: Settings
    registry: Registry
    actor: str
    """Who gives it."""
    server_runs: bool
    """Whether a server works on this registry (known for SQLite; assumed for PostgreSQL)."""

    def now(self) -> datetime:
        """Return the present moment."""
        return SystemClock().now()

    def device(self, text: str) -> DeviceId:
        """Parse an id as the server would.

        :raises bridge.errors.BadDeviceId: it breaks the naming rule or names a server.
        """
        return NamingRule(self.settings.reserved_hosts).parse(text)


def settings_for(data: Path | None) -> Settings:
    """Return the settings of this environment, with the data folder of the command line.

    :raises bridge.errors.Misconfigured: a variable cannot be read.
    """
    return load(os.environ, bridge_data=data)


@asynccontextmanager
async def open_desk(data: Path | None) -> AsyncIterator[Desk]:
    """Open the registry for orders. Without a server it is made, or brought to this version, first.

    :raises bridge.errors.Misconfigured: the registry belongs to another version of the bridge.
    """
    settings = settings_for(data)
    private_folder(settings.data)
    url = settings.bridge_database_url
    async with AsyncExitStack() as stack:
        ours = url is None and _lock(stack, settings.data)
        registry = await open_registry(
            url.get_secret_value() if url is not None else settings.data / "registry.sqlite",
            # Orders flip the links that are there; which systems are on is the server's to know.
            systems=frozenset({System.CA}),
            quarantine=settings.bridge_lease_quarantine,
            migrate=ours,
        )
        stack.push_async_callback(registry.close)
        actor = f"operator:{_user()}"
        # One number for whatever this command does, as each request to the server has one.
        lifecycle = Lifecycle(registry, SystemClock(), actor, request_id=f"cli-{secrets.token_hex(8)}")
        yield Desk(lifecycle, settings, registry, actor, not ours)


def _user() -> str:
    """Return who gives the order; in a container the number may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _lock(stack: AsyncExitStack, folder: Path) -> bool:
    """Hold the folder's lock until the stack ends; False if a server holds it."""
    try:
        stack.enter_context(FolderLock(folder))
    except Misconfigured:
        return False
    return True
