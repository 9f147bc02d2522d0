"""``iot-bridge decommission | re-enroll | reinstate``: orders that change a device's fate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from bridge.cli.devices import IdArgument, digest_option, new_voucher
from bridge.cli.exits import not_now
from bridge.cli.opening import DataOption, Desk, JsonOption, open_desk
from bridge.cli.rendering import console, print_json, view_json
from bridge.config.values import parse_duration
from bridge.errors import BadRequest
from bridge.lifecycle.service import WindowTerms
from bridge.lifecycle.view import DeviceView, ShownState
from bridge.model.identity import DeviceId, Fingerprint

_LOOK_EVERY: Final = 0.1


def add_to(app: typer.Typer) -> None:
    """Add the orders as commands of their own."""
    app.command()(decommission)
    app.command("re-enroll")(re_enroll)
    app.command()(reinstate)


def decommission(
    device_id: IdArgument,
    reason: Annotated[str | None, typer.Option(help="Kept in the audit trail.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until every door is seen shut.")] = False,
    timeout: Annotated[int, typer.Option(help="How many seconds --wait waits.", min=1)] = 120,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Retire a device everywhere: from now on it is refused, and every door is ordered shut."""
    view, server_runs, state, shown = asyncio.run(_decommission(device_id, reason, wait, timeout, data, as_json))
    if as_json:
        print_json(shown)
    else:
        console.print(f"{view.device.id} {state.value}", markup=False)
    if state is ShownState.RETIRED:
        return
    left = ", ".join(view.outstanding())
    if not server_runs:
        text = f"no server works on this registry: the order is recorded and waits (outstanding: {left})"
        if wait:
            not_now(f"{text}; start it: iot-bridge serve")
        console.print(text, markup=False) if not as_json else None
    elif wait:
        not_now(f"{view.device.id} is still retiring after {timeout} s (outstanding: {left}); it goes on by itself")


async def _decommission(
    device_id: str, reason: str | None, wait: bool, seconds: int, data: Path | None, quiet: bool
) -> tuple[DeviceView, bool, ShownState, object]:
    async with open_desk(data) as desk:
        device = desk.device(device_id)
        await desk.lifecycle.decommission(device, reason)
        view = await desk.lifecycle.show(device)
        if wait and desk.server_runs:
            async for view in _watch(desk, device, seconds):
                if not quiet:
                    console.print(f"outstanding: {', '.join(view.outstanding()) or 'nothing'}", markup=False)
        now = desk.now()
        return view, desk.server_runs, view.state(now), view_json(view, now)


async def _watch(desk: Desk, device: DeviceId, seconds: int) -> AsyncIterator[DeviceView]:
    """Yield the device whenever what is outstanding changed, until nothing is or the time is over."""
    end = time.monotonic() + seconds
    shown: tuple[str, ...] | None = None
    while True:
        view = await desk.lifecycle.show(device)
        left = view.outstanding()
        if left != shown:
            shown = left
            yield view
        if not left or time.monotonic() >= end:
            return
        await asyncio.sleep(_LOOK_EVERY)


def re_enroll(
    device_id: IdArgument,
    ttl: Annotated[str, typer.Option(help="How long the window is open.")] = "1h",
    voucher: Annotated[bool, typer.Option("--voucher", help="Make a one-time code the device must show.")] = False,
    key_sha256: Annotated[str | None, typer.Option(help="SHA-256 of the SPKI the device must come with.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open a window in which an active device may come once with a new key; it keeps id and address."""
    try:
        lasts: timedelta = parse_duration(ttl)
    except ValueError as e:
        raise BadRequest(f"--ttl: {e}") from e
    code = new_voucher() if voucher else None
    terms = WindowTerms(
        lasts=lasts,
        voucher_hash=Fingerprint.of(code.encode()) if code else None,
        key_digest=digest_option(key_sha256),
    )

    async def work() -> str:
        async with open_desk(data) as desk:
            window = await desk.lifecycle.open_window(desk.device(device_id), terms)
            return window.expires_at.isoformat(timespec="seconds")

    until = asyncio.run(work())
    if as_json:
        print_json({"device_id": device_id, "window_expires_at": until, "voucher": code})
        return
    console.print(f"{device_id} may enroll with a new key until {until}", markup=False)
    if code:
        console.print(f"voucher (shown only now): {code}", markup=False)


def reinstate(device_id: IdArgument, data: DataOption = None, as_json: JsonOption = False) -> None:
    """End a retired device's tombstone: it may enroll again, as a new generation."""

    async def work() -> None:
        async with open_desk(data) as desk:
            await desk.lifecycle.reinstate(desk.device(device_id))

    asyncio.run(work())
    if as_json:
        print_json({"device_id": device_id, "state": "registered"})
    else:
        console.print(f"{device_id} may enroll again", markup=False)
