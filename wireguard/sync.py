"""Bring an interface to what peers.json says, and report what it then holds."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from wireguard.interface import Interface
from wireguard.peers_file import Applied


def now_utc() -> datetime:
    """Read the clock: aware UTC."""
    return datetime.now(UTC)


def sync_once(
    folder: Path, interface: Interface, *, keep_foreign: bool = False, now: Callable[[], datetime] = now_utc
) -> Applied:
    """One pass."""
    raise NotImplementedError


async def watch(
    folder: Path,
    interface: Interface,
    stop: asyncio.Event,
    *,
    keep_foreign: bool = False,
    now: Callable[[], datetime] = now_utc,
) -> None:
    """Sync until `stop` is set."""
    raise NotImplementedError
