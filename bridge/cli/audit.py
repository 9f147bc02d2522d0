"""``iot-bridge audit …``: check the trail, take it away, look at it, trust another signing key."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bridge.adapters.signing import FileSigner
from bridge.app.signing import recorded, signer_in, trust
from bridge.audit.trail import Against, Verdict, export, verify_lines, verify_registry
from bridge.cli.evidence import heads_in, keys_in, opened
from bridge.cli.exits import FAILED
from bridge.cli.opening import DataOption, Desk, JsonOption, open_desk
from bridge.cli.rendering import console, print_json
from bridge.errors import BadRequest, Misconfigured
from bridge.model.identity import Fingerprint
from bridge.model.signing import VerifyKey
from bridge.ports.trail import Line, Wanted

app = typer.Typer(help="The audit trail.", no_args_is_help=True)

_1970: Final = datetime(1970, 1, 1, tzinfo=UTC)

KeyOption = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="FILE|SHA256", help="Public key in PEM, or its fingerprint; believe no other."),
]


@app.command()
def verify(
    file: Annotated[Path | None, typer.Option("--file", help="Check this export instead, without a registry.")] = None,
    key: KeyOption = None,
    head: Annotated[
        list[str] | None,
        typer.Option("--head", metavar="JWS|FILE", help="A signed head kept elsewhere, or a log of it."),
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every entry, chain value and signature; exit 1 and name the first that is wrong."""
    keys, pins = keys_in(key or [])
    heads = tuple(jws for one in head or [] for jws in heads_in(one))
    if file is not None:
        with opened(file) as lines:
            verdict = verify_lines(lines, Against(keys, pins, heads))
    else:
        verdict = asyncio.run(_verify(data, keys, pins, heads))
    _show_verdict(verdict, as_json=as_json, believed=file is not None and not keys and not pins)
    if not verdict.good:
        raise SystemExit(FAILED)


async def _verify(
    data: Path | None, keys: tuple[VerifyKey, ...], pins: tuple[Fingerprint, ...], heads: tuple[str, ...]
) -> Verdict:
    async with open_desk(data) as desk:
        path = desk.settings.signing_key_file
        own = FileSigner.read(path).public_key if os.access(path, os.R_OK) else None
        return await verify_registry(desk.registry, Against(keys, pins, heads, own))


def _show_verdict(verdict: Verdict, *, as_json: bool, believed: bool) -> None:
    fault = verdict.fault
    if as_json:
        print_json(
            {
                "ok": verdict.good,
                "installation": verdict.installation,
                "keys": [key.hex for key in verdict.keys],
                "entries": verdict.entries,
                "heads": verdict.heads,
                "unsealed": verdict.unsealed,
                "last_head": verdict.last_head,
                "first_bad": None if fault is None else {"sequence": fault.sequence, "text": str(fault)},
            }
        )
        return
    waiting = "" if verdict.unsealed is None else f", {verdict.unsealed} not sealed yet"
    console.print(f"{verdict.entries} entries good, {verdict.heads} signed heads{waiting}", markup=False)
    if believed:
        shown = ", ".join(map(str, verdict.keys)) or "none"
        console.print(
            f"checked with the key that the file itself names ({shown}): compare it, or give --key", markup=False
        )
    if fault is not None:
        sys.stderr.write(f"iot-bridge: {fault}\n")
    elif verdict.last_head is not None:
        console.print(f"keep this head elsewhere, it shows later whether anything was cut:\n{verdict.last_head}")


@app.command("export")
def export_command(
    out: Annotated[Path | None, typer.Option("--out", help="File; default: standard output.")] = None,
    data: DataOption = None,
) -> None:
    """Write the sealed trail as JSON Lines: entries, chain values, signed heads, public keys."""
    with ExitStack() as stack:
        write: Callable[[str], object] = sys.stdout.write
        if out is not None:
            try:
                out.touch(mode=0o600, exist_ok=False)
                write = stack.enter_context(out.open("w", encoding="utf-8")).write
            except OSError as e:
                raise BadRequest(f"--out {out}: {e.strerror}") from e

        async def work() -> int:
            async with open_desk(data) as desk:
                return await export(desk.registry, write)

        count = asyncio.run(work())
    if out is not None:
        console.print(f"{count} entries written to {out}", markup=False)


@app.command("list")
def list_entries(
    device: Annotated[str | None, typer.Option(help="Only of this device.")] = None,
    action: Annotated[
        str | None, typer.Option(help="Only this action; with a dot at its end: all that begin so.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="From this moment on (ISO 8601; UTC unless it says otherwise).")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Before this moment.")] = None,
    limit: Annotated[int, typer.Option(help="So many, the newest.", min=1, max=100_000)] = 50,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the newest entries, oldest of them first. Nothing is checked: that is `audit verify`."""

    async def work() -> tuple[Line, ...]:
        async with open_desk(data) as desk:
            named = None if device is None else desk.device(device)
            wanted = Wanted(named, action, _moment("--since", since), _moment("--until", until))
            return await desk.registry.read(lambda tx: tx.entries(wanted, limit))

    lines = [_shown(line) for line in reversed(asyncio.run(work()))]
    if as_json:
        print_json(lines)
        return
    for one in lines:
        number = "unsealed" if one["sequence"] is None else one["sequence"]
        who = f"{one['actor']}{' ' + one['request_id'] if one['request_id'] else ''}"
        console.print(
            f"{number}  {one['at']}  {one['action']}  {one['device'] or '-'}  {who}  {one['detail']}", markup=False
        )


@app.command("key")
def show_key(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Print the public key that heads and receipts are signed with, for `verify --key` elsewhere."""

    async def work() -> tuple[VerifyKey, ...]:
        async with open_desk(data) as desk:
            return await recorded(desk.registry)

    keys = asyncio.run(work())
    if not keys:
        raise Misconfigured("this registry has no signing key yet; the first start of iot-bridge serve makes one")
    if as_json:
        print_json([{"sha256": key.fingerprint.hex, "public_key": key.pem} for key in keys])
        return
    sys.stderr.write(f"{keys[-1].fingerprint}\n")
    sys.stdout.write(keys[-1].pem)


@app.command()
def trust_key(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Let the server start with the key that is in its file now; a missing one in the data folder is made.

    What was signed with the earlier key stays good.
    """

    async def work() -> tuple[VerifyKey, bool]:
        async with open_desk(data) as desk:
            return await _trust(desk)

    key, added = asyncio.run(work())
    if as_json:
        print_json({"sha256": key.fingerprint.hex, "added": added})
    elif added:
        console.print(f"signing key {key.fingerprint} is trusted from the server's next start on", markup=False)
    else:
        console.print(f"signing key {key.fingerprint} is the one in use already", markup=False)


async def _trust(desk: Desk) -> tuple[VerifyKey, bool]:
    key = signer_in(desk.settings, may_make=True).public_key
    now = desk.now()
    return key, await desk.registry.write(lambda tx: trust(tx, key, desk.actor, now))


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as e:
        raise BadRequest(f"{option}: write it as 2026-05-01 or 2026-05-01T12:00:00+02:00") from e
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _shown(line: Line) -> dict[str, Any]:
    at = line["at"]
    moment = (_1970 + timedelta(microseconds=at)).isoformat() if type(at) is int else at
    return {**line, "at": moment}
