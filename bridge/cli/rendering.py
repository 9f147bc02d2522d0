"""How devices are shown: JSON with stable names for scripts, tables for people."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from bridge.lifecycle.view import DeviceView
from bridge.model.records import Device, Issuance, Link

console = Console(soft_wrap=True)


def print_json(value: Any) -> None:
    """Write one JSON document to standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def view_json(view: DeviceView, now: datetime) -> dict[str, Any]:
    """Return a device with everything that hangs on it."""
    device = view.device
    return {
        "device_id": device.id.value,
        "state": view.state(now).value,
        "generation": device.generation,
        "epoch": device.epoch,
        "proven": device.proven,
        "name": device.name,
        "type": device.type,
        "address": str(view.lease.address) if view.lease else None,
        "wg_public_key": view.lease.wg_key.text if view.lease and view.lease.wg_key else None,
        "first_connected_at": _time(device.first_connected_at),
        "window_expires_at": _time(view.window.expires_at) if view.window else None,
        "outstanding": list(view.outstanding()),
        "issuances": [_issuance(one) for one in view.issuances],
        "links": [_link(one) for one in view.links],
    }


def device_json(device: Device) -> dict[str, Any]:
    """Return one line of the list."""
    return {
        "device_id": device.id.value,
        "state": device.state.value,
        "generation": device.generation,
        "epoch": device.epoch,
        "proven": device.proven,
        "created_at": _time(device.created_at),
    }


def show_view(view: DeviceView, now: datetime) -> None:
    """Print a device for people."""
    data = view_json(view, now)
    proof = "" if data["proven"] else "  [yellow]unproven[/]"
    console.print(f"[bold]{data['device_id']}[/]  {data['state']}  generation {data['generation']}{proof}")
    console.print(f"address {data['address'] or 'none'}, first connected {data['first_connected_at'] or 'never'}")
    certificates = Table("serial", "state", "generation", "until", title="certificates", title_justify="left")
    for one in data["issuances"]:
        certificates.add_row(one["serial"], one["state"], str(one["generation"]), one["not_after"] or "")
    links = Table("system", "wanted", "state", "attempts", "last error", title="systems", title_justify="left")
    for one in data["links"]:
        links.add_row(one["system"], one["wanted"], one["state"], str(one["attempts"]), one["last_error"] or "")
    console.print(certificates, links)


def _issuance(one: Issuance) -> dict[str, Any]:
    return {
        "serial": str(one.serial),
        "state": one.state.value,
        "generation": one.generation,
        "kind": one.kind.value,
        "spki_sha256": one.spki.hex,
        "leaf_sha256": one.leaf_sha256.hex if one.leaf_sha256 else None,
        "not_after": _time(one.not_after),
    }


def _link(one: Link) -> dict[str, Any]:
    state = "foreign" if one.foreign else "agreed" if one.settled_at else "failing" if one.last_error else "waiting"
    return {
        "system": one.system.value,
        "wanted": one.wanted.value,
        "state": state,
        "settled_at": _time(one.settled_at),
        "next_at": _time(one.next_at),
        "attempts": one.attempts,
        "last_error": one.last_error,
    }


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
