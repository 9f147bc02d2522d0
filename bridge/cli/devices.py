"""``iot-bridge device …``: register, list, show, abandon."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bridge.cli.opening import DataOption, JsonOption, open_desk
from bridge.cli.rendering import console, device_json, print_json, show_view, view_json
from bridge.config.values import parse_duration
from bridge.errors import BadRequest
from bridge.model.identity import Fingerprint
from bridge.model.records import DeviceState

app = typer.Typer(help="Register, list, show and abandon devices.", no_args_is_help=True)

_PAGE: Final = 500
_ALPHABET: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""No letter that is mistaken for a digit: people type vouchers."""

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The device id.")]


@app.command()
def register(
    device_id: IdArgument,
    voucher: Annotated[bool, typer.Option("--voucher", help="Make a one-time code the device must show.")] = False,
    key_sha256: Annotated[str | None, typer.Option(help="SHA-256 of the SPKI the device must come with.")] = None,
    ttl: Annotated[str | None, typer.Option(help="How long the registration waits (30d); default: for ever.")] = None,
    name: Annotated[str | None, typer.Option(help="Label shown in the outside systems.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Kind of device.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a device in at its next request."""
    code = new_voucher() if voucher else None
    asyncio.run(_register(device_id, code, key_sha256, ttl, name, type_, data))
    if as_json:
        print_json({"device_id": device_id, "state": "registered", "voucher": code})
        return
    console.print(f"{device_id} registered")
    if code:
        console.print(f"voucher (shown only now): [bold]{code}[/]")


async def _register(
    device_id: str,
    code: str | None,
    key_sha256: str | None,
    ttl: str | None,
    name: str | None,
    type_: str | None,
    data: Path | None,
) -> None:
    key_digest = digest_option(key_sha256)
    lasts = _duration(ttl) if ttl else None
    async with open_desk(data) as desk:
        await desk.lifecycle.register(
            desk.device(device_id),
            key_digest=key_digest,
            voucher_hash=Fingerprint.of(code.encode()) if code else None,
            lasts=lasts,
            name=name,
            type=type_,
        )


@app.command("list")
def list_devices(
    state: Annotated[DeviceState | None, typer.Option(help="Only devices in this stored state.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List all devices, in order of their ids."""
    lines = asyncio.run(_list(state, data))
    if as_json:
        print_json(lines)
        return
    for line in lines:
        proof = "" if line["proven"] else "  unproven"
        console.print(f"{line['device_id']}  {line['state']}  generation {line['generation']}{proof}", markup=False)


async def _list(state: DeviceState | None, data: Path | None) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    async with open_desk(data) as desk:
        after: str | None = None
        while True:
            page = await desk.lifecycle.page(after, _PAGE, state)
            lines += [device_json(device) for device in page.devices]
            after = page.next_after
            if after is None:
                return lines


@app.command()
def show(device_id: IdArgument, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show a device, its certificates, and where it stands in each system."""
    asyncio.run(_show(device_id, data, as_json=as_json))


async def _show(device_id: str, data: Path | None, *, as_json: bool) -> None:
    async with open_desk(data) as desk:
        view = await desk.lifecycle.show(desk.device(device_id))
        now = desk.now()
    if as_json:
        print_json(view_json(view, now))
    else:
        show_view(view, now)


@app.command()
def abandon(device_id: IdArgument, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Forget an id that never got a certificate."""

    async def work() -> None:
        async with open_desk(data) as desk:
            await desk.lifecycle.abandon(desk.device(device_id))

    asyncio.run(work())
    if as_json:
        print_json({"device_id": device_id, "state": "abandoned"})
    else:
        console.print(f"{device_id} abandoned")


def new_voucher() -> str:
    """Return a one-time code, ``PROV-XXXX-XXXX``: 40 random bits."""
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    return f"PROV-{letters[:4]}-{letters[4:]}"


def digest_option(text: str | None) -> Fingerprint | None:
    """Read ``--key-sha256``.

    :raises BadRequest: it is not a SHA-256 digest.
    """
    if text is None:
        return None
    try:
        return Fingerprint.parse(text)
    except ValueError as e:
        raise BadRequest(f"--key-sha256: {e}") from e


def _duration(text: str) -> Any:
    try:
        return parse_duration(text)
    except ValueError as e:
        raise BadRequest(f"--ttl: {e}") from e
