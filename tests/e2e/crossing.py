"""Loopback ports of this machine, reachable as the same ports of a network namespace's loopback."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

CLONE_NEWNET = 0x40000000


@contextlib.asynccontextmanager
async def crossing(namespace: str, ports: Iterable[int]) -> AsyncIterator[None]:
    """Carry bytes from `127.0.0.1:port` in the namespace to the same port here, for each port, until left."""
    async with contextlib.AsyncExitStack() as stack:
        for port in ports:
            server = await asyncio.start_server(_Carrier(port), sock=listening(namespace, port))
            stack.push_async_callback(server.wait_closed)
            stack.callback(server.close)
        yield


def listening(namespace: str, port: int) -> socket.socket:
    """Return a socket that listens in the namespace: it stays where it was made, whoever uses it."""
    made: list[socket.socket] = []

    def enter_and_listen() -> None:  # in a thread of its own, for entering is for good
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open(Path("/run/netns", namespace), os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(descriptor, CLONE_NEWNET) != 0:
                return
        finally:
            os.close(descriptor)
        made.append(socket.create_server(("127.0.0.1", port)))

    thread = threading.Thread(target=enter_and_listen)
    thread.start()
    thread.join()
    assert made, f"cannot listen in {namespace}; are we root?"
    return made[0]


class _Carrier:
    def __init__(self, port: int) -> None:
        self._port = port

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
        await writer.wait_closed()
