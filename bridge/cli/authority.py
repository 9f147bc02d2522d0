"""``iot-bridge ca trust``: one more issuing CA of the tenant, under the same root."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from bridge.cli.opening import DataOption, JsonOption, open_desk
from bridge.cli.rendering import console, print_json
from bridge.errors import BadRequest
from bridge.model.identity import Fingerprint

app = typer.Typer(help="The tenant's issuing CA.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keep ``trust`` a command of its own, so that others can join it."""


@app.command()
def trust(
    fingerprint: Annotated[str, typer.Argument(help="SHA-256 of the new issuing CA's certificate.")],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Trust a new issuing CA: the server starts with it, leaves of the earlier ones stay current."""
    try:
        issuing = Fingerprint.parse(fingerprint)
    except ValueError as e:
        raise BadRequest(f"FINGERPRINT: {e}") from e

    async def work() -> None:
        async with open_desk(data) as desk:
            await desk.lifecycle.trust_issuer(issuing)

    asyncio.run(work())
    if as_json:
        print_json({"issuing_sha256": issuing.hex, "trusted": True})
    else:
        console.print(f"issuing CA {issuing} is trusted from the server's next start on", markup=False)
