"""A WireGuard interface in memory and the sync beside it, as a process of its own."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from wireguard.interface import InterfaceName
from wireguard.keys import PrivateKey
from wireguard.standin import MemoryInterface
from wireguard.sync import watch


async def _run(folder: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await watch(folder, MemoryInterface(InterfaceName("wg0"), PrivateKey.generate()), stop)


if __name__ == "__main__":
    asyncio.run(_run(Path(sys.argv[1])))
