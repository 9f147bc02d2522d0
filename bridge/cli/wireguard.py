"""``iot-bridge wireguard sync``: runs beside the WireGuard server, in its network namespace."""

from __future__ import annotations

import asyncio
import signal
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated

import typer

from bridge.adapters.interface import InterfaceSync
from bridge.cli.opening import DataOption, settings_for
from bridge.cli.rendering import console
from bridge.errors import BadRequest

app = typer.Typer(help="The process beside the WireGuard server.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keep ``sync`` a command of its own, so that others can join it."""


@app.command()
def sync(
    interface: Annotated[str, typer.Option(help="The WireGuard interface.")] = "wg0",
    folder: Annotated[Path | None, typer.Option(help="Folder of peers.json; default WG_DATA_DIR.")] = None,
    once: Annotated[bool, typer.Option("--once", help="One pass, then exit.")] = False,
    keep_outside: Annotated[
        str | None, typer.Option(metavar="SUBNET", help="Leave peers alone whose addresses all lie outside of it.")
    ] = None,
    data: DataOption = None,
) -> None:
    """Bring the interface to peers.json and report what it then holds in applied.json.

    Peers that are not in the file are removed: a retired device must be gone, whoever added it.
    """
    settings = settings_for(data)
    shared = folder or settings.tunnel_folder
    try:
        owned = IPv4Network(keep_outside) if keep_outside else None
    except ValueError as e:
        raise BadRequest(f"--keep-outside: {e}") from e
    worker = InterfaceSync(shared, interface, owned)
    if once:
        console.print(asyncio.run(worker.once()), markup=False)
    else:
        asyncio.run(_run(worker))


async def _run(worker: InterfaceSync) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    said = ""

    def report(line: str) -> None:
        nonlocal said
        if line != said:
            said = line
            console.print(line, markup=False)

    await worker.run(stop, report)
