"""``iot-bridge``: the operators' command.

Orders are committed to the registry before the command exits; the server's reconciler carries them out. Exit codes are
made in :mod:`bridge.cli.exits` alone.
"""

from __future__ import annotations

import typer

from bridge.cli import audit, authority, configuration, devices, orders, server, wireguard
from bridge.cli.exits import exit_code

app = typer.Typer(
    name="iot-bridge",
    help="Zero-touch enrollment bridge: serve, register, re-enroll, decommission.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
server.add_to(app)
orders.add_to(app)
app.add_typer(devices.app, name="device")
app.add_typer(authority.app, name="ca")
app.add_typer(audit.app, name="audit")
app.add_typer(configuration.app, name="config")
app.add_typer(wireguard.app, name="wireguard")


def run() -> None:
    """Run the command line and exit with its code."""
    with exit_code():
        app()


__all__ = ["app", "run"]
