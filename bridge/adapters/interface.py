"""The process beside a real WireGuard interface: brings it to ``peers.json`` and reports what it then holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

from bridge.errors import Misconfigured, SystemFailed
from wireguard.applied_file import Applied
from wireguard.errors import InvalidValueError, WireGuardError
from wireguard.interface import InterfaceName
from wireguard.sync import sync_once, watch
from wireguard.tool import WireGuardTool

Report = Callable[[str], None]


class InterfaceSync:
    """One interface and the folder that says who its peers are.

    ``owned`` spares peers whose addresses all lie outside that subnet; without it every peer that is not in the file
    is removed, whoever added it: a retired device must be gone.
    """

    def __init__(self, folder: Path, name: str, owned: IPv4Network | None) -> None:
        try:
            self._interface = WireGuardTool(InterfaceName.parse(name))
        except InvalidValueError as e:
            raise Misconfigured(f"--interface: {e}") from e
        self._folder = folder
        self._owned = owned

    async def once(self) -> str:
        """Make one pass and return what was done, in one line.

        :raises SystemFailed: the files or the interface cannot be read or changed.
        """
        try:
            return _line(await asyncio.to_thread(sync_once, self._folder, self._interface, owned=self._owned))
        except WireGuardError as e:
            raise SystemFailed(f"WireGuard: {e}") from e

    async def run(self, stop: asyncio.Event, report: Report) -> None:
        """Make a pass at every change and every few seconds, until stopped; errors are reported, and tried again."""

        def on_pass(outcome: Applied | WireGuardError) -> None:
            report(str(outcome) if isinstance(outcome, WireGuardError) else _line(outcome))

        await watch(self._folder, self._interface, stop, owned=self._owned, on_pass=on_pass)


def _line(applied: Applied) -> str:
    return f"{applied.interface}: revision {applied.revision}, {len(applied.peers)} peers"
