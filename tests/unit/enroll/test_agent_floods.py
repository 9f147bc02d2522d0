"""A bridge that does not stop, or hardly begins: floods and drips, each ended by a bound of the agent's."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from enroll.errors import ForeignAnswerError, RefusedError, TryAgainError
from enroll.names import BridgeUrl
from tests.unit.enroll.hostility import picture


@pytest.fixture
def waiting(device: Any, problem: Any) -> Any:
    """A device with keys that was not admitted yet."""
    device.bridge.script = [lambda _: problem(403, "not_admitted")]
    with pytest.raises(RefusedError):
        device.run(budget=1.0)
    return device


class Raw:
    """A TLS server with the right certificate that answers ``GET /root`` and then plays a script on each POST."""

    def __init__(self, pki: Any, context: ssl.SSLContext, script: Callable[[Any, threading.Event], None]) -> None:
        body = json.dumps({"ca": pki.pem(pki.root.certificate)}).encode()
        self._root = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        self._script, self._context, self._stop = script, context, threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(10)
            with contextlib.suppress(OSError), self._context.wrap_socket(connection, server_side=True) as tls:
                if tls.recv(65536).startswith(b"GET"):
                    tls.sendall(self._root)
                else:
                    self._script(tls, self._stop)

    def close(self) -> None:
        self._stop.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def play(pki: Any, tmp_path: Path, waiting: Any) -> Iterator[Callable[..., None]]:
    """Have the device refuse what a script sends."""
    servers: list[Raw] = []

    def run(script: Callable[[Any, threading.Event], None], kind: type[TryAgainError], words: str) -> None:
        servers.append(Raw(pki, pki.server_context(tmp_path), script))
        before = picture(waiting.folder)
        with pytest.raises(kind, match=words):
            waiting.run(budget=1.0, bridge=BridgeUrl.parse(servers[-1].url))
        assert picture(waiting.folder) == before

    yield run
    for server in servers:
        server.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
HUNDRED_MB = 100 * 1024 * 1024
FLOODS = {
    "with its length": HEAD + b"Content-Length: %d\r\n\r\n" % HUNDRED_MB,
    "until the end": HEAD + b"Connection: close\r\n\r\n",
    "one endless header": HEAD + b"X: ",
    "one endless chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\n",
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_hundred_megabytes_are_not_read(play: Any, name: str) -> None:
    sent = 0

    def flood(tls: Any, _stop: threading.Event) -> None:
        nonlocal sent
        tls.sendall(FLOODS[name])
        while sent < HUNDRED_MB:
            tls.sendall(b"x" * 65536)
            sent += 65536

    play(flood, ForeignAnswerError, "larger than 1048576 bytes|is not HTTP")
    assert sent < 16 * 1024 * 1024  # what buffers on the way hold


DRIPS = {
    "the status line": (b"", b"H"),
    "headers": (HEAD, b"X-Y: z\r\n"),
    "the body": (HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
}


@pytest.mark.parametrize("name", DRIPS)
def test_a_slow_drip_is_ended_by_the_clock(play: Any, name: str) -> None:
    head, drop = DRIPS[name]

    def drip(tls: Any, stop: threading.Event) -> None:
        tls.sendall(head) if head else None
        while not stop.wait(0.02):
            tls.sendall(drop)

    begun = time.monotonic()
    play(drip, TryAgainError, r"no whole answer within 1 s \(waited for the answer\)|is not HTTP")
    assert time.monotonic() - begun < 5
