"""What stands before a bridge: lets connections through, or answers itself that there is too much of everything."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import ssl
from collections import Counter
from pathlib import Path
from typing import Any, Self

from enroll.wire import PROBLEM_TYPE_PREFIX


def _answer(status: int, kind: str, body: str, *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status} Overload", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "Connection: close", "", body]).encode()


def _problem(status: int, code: str, *headers: str) -> bytes:
    document = {"type": PROBLEM_TYPE_PREFIX + code, "title": code, "status": status, "code": code, "detail": "later"}
    return _answer(status, "application/problem+json", json.dumps(document), *headers)


ANSWERS = {
    "429 of a proxy": _answer(429, "text/html", "<html>Too many requests</html>", "Retry-After: 1"),
    "429 of the bridge": _problem(429, "too_many", "Retry-After: 2"),
    "503 of a proxy": _answer(503, "text/html", "<html>Service unavailable</html>"),
    "503 of the bridge": _problem(503, "store_unavailable", "Retry-After: 1"),
    "503 of the bridge, without a time": _problem(503, "ca_unreachable"),
}


class Overload:
    """A door on loopback; ``busy`` says whether it lets anybody through. It ends TLS itself while it is."""

    def __init__(self, bridge_port: int, certificate: Path) -> None:
        self.busy = True
        self.port = 0
        self.answered: Counter[str] = Counter()
        self.passed = 0
        self._bridge_port = bridge_port
        self._refuser_port = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._next = itertools.cycle(ANSWERS.items())
        self._servers: list[asyncio.Server] = []
        self._open: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        refuser = await asyncio.start_server(self._refuse, "127.0.0.1", 0, ssl=self._context, backlog=512)
        door = await asyncio.start_server(self._pass, "127.0.0.1", 0, backlog=512)
        self._refuser_port = refuser.sockets[0].getsockname()[1]
        self.port = door.sockets[0].getsockname()[1]
        self._servers = [door, refuser]
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length or 0))
            name, answer = next(self._next)
            self.answered[name] += 1
            writer.write(answer)
            await writer.drain()
        writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        self.passed += not self.busy
        try:
            far = await asyncio.open_connection("127.0.0.1", self._refuser_port if self.busy else self._bridge_port)
            await asyncio.gather(self._pump(reader, far[1]), self._pump(far[0], writer))
        except OSError:  # nobody there: a restart
            pass
        finally:
            writer.close()

    @staticmethod
    async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()
