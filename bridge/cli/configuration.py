"""``iot-bridge config check``: tries each connection and says which variable or server is wrong, and what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from bridge.adapters.runtime import SystemClock, SystemRandomness
from bridge.cli.exits import FAILED
from bridge.cli.opening import DataOption, JsonOption, open_desk, settings_for
from bridge.cli.rendering import console, print_json
from bridge.config import Mode, Settings, mode_of
from bridge.errors import BridgeError
from bridge.ports.tunnels import TunnelServer

_NOT_APPLIED: Final = "nothing applied yet; beside the interface runs: iot-bridge wireguard sync"

app = typer.Typer(help="Look at the configuration.", no_args_is_help=True)


@dataclass(frozen=True, slots=True)
class Finding:
    """How one part of the configuration stands."""

    part: str
    fine: bool
    text: str


@app.callback()
def group() -> None:
    """Keep ``check`` a command of its own, so that others can join it."""


@app.command()
def check(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Try every connection; exit 1 if one does not work."""
    findings = asyncio.run(_check(data))
    if as_json:
        print_json([{"part": one.part, "ok": one.fine, "text": one.text} for one in findings])
    else:
        for one in findings:
            console.print(f"{'ok  ' if one.fine else 'FAIL'} {one.part}: {one.text}", markup=False)
    if not all(one.fine for one in findings):
        raise SystemExit(FAILED)


async def _check(data: Path | None) -> list[Finding]:
    settings = settings_for(data)
    mode = mode_of(settings)
    findings = [
        Finding("settings", fine=True, text=f"mode {mode.value}; {len(settings.reserved_hosts)} reserved host names")
    ]
    findings.append(await _tried("registry", lambda: _registry(data)))
    if mode is Mode.REAL:
        findings += await _systems(settings)
    return findings


async def _registry(data: Path | None) -> str:
    async with open_desk(data) as desk:
        await desk.lifecycle.page(None, 1, None)
        return f"{desk.settings.data} readable, " + ("a server works on it" if desk.server_runs else "no server runs")


async def _systems(settings: Settings) -> list[Finding]:
    from bridge.adapters.connecting import connected  # noqa: PLC0415 - heavy; the other commands start without it
    from bridge.app.http_clients import connect  # noqa: PLC0415

    findings: list[Finding] = []
    try:
        async with connected(settings, connect, SystemClock(), SystemRandomness()) as systems:
            authority = systems.authority
            pins = f"devices pin root {authority.root_sha256}; issuing CA {authority.issuing_sha256}"
            findings.append(await _tried("ca", lambda: _said(authority.port.check(), pins)))
            for part, system in (("thingsboard", systems.platform), ("hawkbit", systems.updates)):
                if system is None:
                    findings.append(Finding(part, fine=True, text="off"))
                else:
                    findings.append(await _tried(part, lambda check=system.check: _said(check(), "answers us")))  # type: ignore[misc]
            if systems.tunnels is None:
                findings.append(Finding("wireguard", fine=True, text="off"))
            else:
                tunnels = systems.tunnels
                findings.append(await _tried("wireguard", lambda: _applied(tunnels)))
    except BridgeError as e:
        findings.append(Finding("connecting", fine=False, text=str(e)))
    return findings


async def _applied(tunnels: TunnelServer) -> str:
    applied = await tunnels.applied()
    return f"revision {applied.revision} applied" if applied else _NOT_APPLIED


async def _said(work: Awaitable[None], text: str) -> str:
    await work
    return text


async def _tried(part: str, work: Callable[[], Awaitable[str]]) -> Finding:
    try:
        return Finding(part, fine=True, text=await work())
    except BridgeError as e:
        return Finding(part, fine=False, text=str(e))
