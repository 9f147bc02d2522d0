"""A load generator that costs little: kept-alive HTTPS connections, raw requests, nothing parsed that is not needed.

Sends only to loopback, a bounded number of requests. Used by the benchmarks for step-ca and for the bridge alike, so
that a ratio of two rates says nothing about the generator.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

Request = tuple[str, bytes]
"""Path and JSON body."""
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class Round:
    """What one round of load saw."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, part: float) -> float:
        """Latency in milliseconds that this part of the answers did not exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] * 1000


class Load:
    """``connections`` kept-alive connections to one server, opened before each round's time begins."""

    def __init__(
        self, url: str, trust: ssl.SSLContext, connections: int, headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        parts = urlsplit(url)
        if parts.hostname not in {"localhost", "127.0.0.1"}:
            raise ValueError("load goes to loopback only")
        self._host, self._port = parts.hostname, parts.port or 443
        self._trust = trust
        self._connections = connections
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers)
        self._open: list[Pair] = []

    async def connect(self) -> None:
        """Open every connection, so that no round pays for it."""
        for _ in range(self._connections):
            self._open.append(
                await asyncio.open_connection(
                    "127.0.0.1", self._port, ssl=self._trust, server_hostname=self._host, limit=1 << 20
                )
            )

    async def close(self) -> None:
        """Close every connection."""
        for _, writer in self._open:
            writer.close()
        self._open.clear()

    async def run(self, requests: Sequence[Request], statuses: frozenset[int]) -> Round:
        """Send every request once, at most ``connections`` at a time; any other status ends the benchmark."""
        await self.close()
        await self.connect()
        waiting = iter(requests)
        seen = Round()
        begun = time.perf_counter()
        await asyncio.gather(*(self._lane(pair, waiting, statuses, seen) for pair in self._open))
        seen.seconds = time.perf_counter() - begun
        return seen

    async def _lane(self, pair: Pair, waiting: Iterator[Request], statuses: frozenset[int], seen: Round) -> None:
        reader, writer = pair
        for path, body in waiting:
            sent = time.perf_counter()
            writer.write(
                f"POST {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nContent-Type: application/json\r\n"
                f"{self._headers}Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            status, answer = await _answer(reader)
            seen.latencies.append(time.perf_counter() - sent)
            if status not in statuses:
                raise RuntimeError(f"{path} answered {status}: {answer[:500]!r}")
            seen.bodies.append(answer)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    mark = head.find(b"content-length:")
    if mark >= 0:
        length = int(head[mark + 15 : head.index(b"\r\n", mark)])
        return status, await reader.readexactly(length)
    if b"transfer-encoding: chunked" not in head:
        return status, b""
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return status, b"".join(parts)
