"""A peer on loopback that plays a script on each connection, and requests to it."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import trustme

from enroll.errors import TryAgainError, UnreachableError
from enroll.network import https

Script = Callable[[Any, threading.Event], None]


class Peer:
    """Servers that answer as they are told, all certified by one CA; and what the agent's side of it sees."""

    secret = "PROV-TOPS-ECRT"
    body = json.dumps({"voucher": secret}).encode()
    patience = 0.4
    """Time-out of requests that must run into it."""

    def __init__(self) -> None:
        self.ca = trustme.CA()
        self.trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ca.configure_trust(self.trusting)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listeners: list[socket.socket] = []

    @staticmethod
    def stranger() -> ssl.SSLContext:
        """Return a server's context by another CA for the same address."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        return context

    def accepting(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*(names or ("127.0.0.1", "localhost", "::1"))).configure_cert(context)
        return context

    def start(self, script: Script, *, host: str = "127.0.0.1", tls: ssl.SSLContext | bool = True) -> int:
        """Start a server that plays the script on each connection; return its port."""
        context = self.accepting() if tls is True else tls or None
        listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._listeners.append(listener)
        self._threads.append(threading.Thread(target=self._run, args=(script, context, listener)))
        self._threads[-1].start()
        return int(listener.getsockname()[1])

    def _run(self, script: Script, context: ssl.SSLContext | None, listener: socket.socket) -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            raw.settimeout(10)
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                stack.enter_context(raw)
                script(stack.enter_context(context.wrap_socket(raw, server_side=True)) if context else raw, self._stop)

    def close(self) -> None:
        self._stop.set()
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    @staticmethod
    def request_of(connection: Any) -> bytes:
        received = b""
        while b"\r\n\r\n" not in received:
            piece = connection.recv(65536)
            if not piece:
                return received
            received += piece
        return received

    def answering(self, *pieces: bytes) -> Script:
        def script(connection: Any, _stop: threading.Event) -> None:
            self.request_of(connection)
            for piece in pieces:
                connection.sendall(piece)

        return script

    def endless(self, head: bytes, piece: bytes, pause: float = 0.0) -> Script:
        def script(connection: Any, stop: threading.Event) -> None:
            self.request_of(connection)
            connection.sendall(head)
            while not stop.wait(pause):
                connection.sendall(piece)

        return script

    def silent(self, connection: Any, stop: threading.Event) -> None:
        self.request_of(connection)
        stop.wait(10)

    def slow_handshake(self, connection: Any, stop: threading.Event) -> None:
        """Answer a TLS handshake byte by byte, in time for each of them."""
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.accepting().wrap_bio(there, back, server_side=True)
        there.write(connection.recv(65536))
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        for byte in back.read():
            if stop.wait(0.01):
                return
            connection.sendall(bytes([byte]))

    @staticmethod
    def deaf(_connection: Any, stop: threading.Event) -> None:
        stop.wait(10)

    def exchange(
        self,
        port: int,
        seconds: float = 10.0,
        *,
        host: str = "127.0.0.1",
        body: bytes = body,
        environment: Mapping[str, str] | None = None,
    ) -> https.Answer:
        url = f"https://{host}:{port}/devices/dev-1/enroll"
        return https.exchange("POST", url, self.trusting, seconds, environment=environment or {}, body=body)

    def refused(self, kind: type[TryAgainError], words: str, *given: Any, **how: Any) -> Any:
        """Return the error of an exchange that must fail so; no secret is in its text."""
        with pytest.raises(kind, match=words) as caught:
            self.exchange(*given, **how)
        assert self.secret not in str(caught.value)
        assert caught.value.__cause__ is None or self.secret not in str(caught.value.__cause__)
        return caught.value

    def runs_out(self, words: str, port: int, **how: Any) -> None:
        """See an exchange end by its time-out, neither before nor long after."""
        begun = time.monotonic()
        self.refused(UnreachableError, f"no whole answer within.*{words}", port, self.patience, **how)
        assert self.patience * 0.9 < time.monotonic() - begun < self.patience + 2.0


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()
