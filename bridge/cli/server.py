"""``iot-bridge serve``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.opening import DataOption, settings_for


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve")(serve_command)


def serve_command(
    data: DataOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8443,
    ready_file: Annotated[Path | None, typer.Option(help="Written once everything listens.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log more.")] = False,
) -> None:
    """Run the bridge. Without any variable of an outside system: the embedded stack."""
    import uvloop  # noqa: PLC0415 - the server's parts are heavy; the other commands start without them

    from bridge.app import logs  # noqa: PLC0415
    from bridge.app.serving import Serving, serve  # noqa: PLC0415

    logs.configure(verbose=verbose)
    settings = settings_for(data)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, Serving(host, port, ready_file)))
