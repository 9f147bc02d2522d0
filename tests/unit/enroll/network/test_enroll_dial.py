"""One request against everything that can answer it: within its time and its bounds, whoever it is."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from enroll.errors import ForeignAnswerError, TryAgainError, UnreachableError

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


SLOW: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "no handshake": (lambda peer: peer.deaf, False),
    "handshake drips": (lambda peer: peer.slow_handshake, False),
    "no answer": (lambda peer: peer.silent, True),
    "a request that is not read": (lambda peer: peer.deaf, True),
    "head drips": (lambda peer: peer.endless(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", 0.02), True),
    "one header drips": (lambda peer: peer.endless(b"HTTP/1.1 200 OK\r\nX-A: ", b"b", 0.02), True),
    "body drips": (lambda peer: peer.endless(OK + b"Content-Length: 100000\r\n\r\n", b" ", 0.02), True),
    "chunks drip": (lambda peer: peer.endless(CHUNKED, b"1\r\n \r\n", 0.02), True),
    "trailers drip": (lambda peer: peer.endless(CHUNKED + b"0\r\n", b"X-A: b\r\n", 0.02), True),
    "body never ends": (lambda peer: peer.endless(OK + b"\r\n", b" ", 0.02), True),
    "interim answers drip": (lambda peer: peer.endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.02), True),
}


@pytest.mark.parametrize("case", SLOW)
def test_the_time_out_holds_for_all_together(peer: Any, case: str) -> None:
    script, tls = SLOW[case]
    body = b"x" * 30_000_000 if "not read" in case else peer.body
    words = "waited for the TLS handshake" if "handshake" in case else "waited for the answer"
    peer.runs_out(words, peer.start(script(peer), tls=tls), body=body)


def test_a_name_that_is_looked_up_for_ever_is_given_up(peer: Any, monkeypatch: Any) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(10) and [])
    peer.runs_out("waited for the name", 1, host="bridge.example")
    answered.set()


def test_no_time_is_no_request(peer: Any) -> None:
    for seconds in (0.0, -1.0):
        peer.refused(UnreachableError, "no whole answer", 1, seconds)


@contextlib.contextmanager
def full_house() -> Iterator[int]:
    """A port that answers no SYN: its queue is full, as a network would be that drops everything."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_dead_addresses_cost_a_moment_and_not_the_request(peer: Any, monkeypatch: Any) -> None:
    port = peer.start(peer.answering(OK + b"Content-Length: 2\r\n\r\n{}"))
    with full_house() as dead, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        tcp = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        ports = (dead, closed.getsockname()[1], dead, port, dead)
        found = [(99, *tcp[1:], ("127.0.0.1", 1)), *((*tcp, ("127.0.0.1", each)) for each in ports)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        begun = time.monotonic()
        assert peer.exchange(port, host="localhost").content == b"{}"
        assert time.monotonic() - begun < 5
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found[1:2])
        peer.runs_out("waited for a connection to localhost", dead, host="localhost")


def test_nobody_there_is_said_at_once(peer: Any, monkeypatch: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        peer.refused(UnreachableError, "Connection refused", closed.getsockname()[1])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    peer.refused(UnreachableError, "no address", 1, host="bridge.example")

    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    peer.refused(UnreachableError, "not known", 1, host="bridge.example")


BOMBS: dict[str, Callable[[Any], Any]] = {
    "more than the bound": lambda peer: peer.answering(OK + b"Content-Length: 1048577\r\n\r\n", b"x" * 1_048_577),
    "100 MB": lambda peer: peer.answering(OK + b"Content-Length: 100000000\r\n\r\n", *[b"x" * 65536] * 1526),
    "without end": lambda peer: peer.endless(OK + b"\r\n", b"x" * 65536),
    "chunks without end": lambda peer: peer.endless(CHUNKED, b"ffff\r\n" + b"x" * 65535 + b"\r\n"),
    "tiny chunks without end": lambda peer: peer.endless(CHUNKED, b"1\r\nx\r\n" * 8192),
    "trailers without end": lambda peer: peer.endless(CHUNKED + b"0\r\n", b"X-A: b\r\n" * 8192),
    "a chunk of a terabyte": lambda peer: peer.endless(CHUNKED + b"10000000000\r\n", b"x" * 65536),
    "a chunk of size -1": lambda peer: peer.endless(CHUNKED + b"-1\r\n", b"x" * 65536),
    "interim answers without end": lambda peer: peer.endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2048),
}


@pytest.mark.parametrize("case", BOMBS)
def test_what_is_too_large_is_cut_off(peer: Any, case: str) -> None:
    peer.refused(ForeignAnswerError, "larger than 1048576", peer.start(BOMBS[case](peer)))


NO_HTTP: dict[str, tuple[bytes, type[TryAgainError], str]] = {
    "garbage": (b"\x00\x01\x02\x03\r\n\r\n", ForeignAnswerError, "not HTTP"),
    "another protocol": (b"220 mail.example ESMTP\r\n", ForeignAnswerError, "not HTTP"),
    "a status that is none": (b"HTTP/1.1 2x0 OK\r\n\r\n", ForeignAnswerError, "not HTTP"),
    "a hundred headers": (OK + b"X-A: b\r\n" * 200 + b"\r\n", ForeignAnswerError, "not HTTP"),
    "a line without end": (b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 100_000, ForeignAnswerError, "not HTTP"),
    "a chunk of size -5": (
        CHUNKED + b"-5\r\nxxxxx\r\n",
        ForeignAnswerError,
        "not HTTP",
    ),
    "a chunk of no size": (CHUNKED + b"zz\r\n", UnreachableError, "ended before"),
    "compressed": (OK + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b", ForeignAnswerError, "compressed"),
    "nothing": (b"", UnreachableError, "ended before"),
    "half a body": (OK + b'Content-Length: 80\r\n\r\n{"a": ', UnreachableError, "ended before"),
    "half a chunk": (CHUNKED + b'50\r\n{"a": ', UnreachableError, "ended before"),
    "no last chunk": (CHUNKED + b"2\r\n{}\r\n", UnreachableError, "ended before"),
}


@pytest.mark.parametrize("case", NO_HTTP)
def test_what_is_no_whole_http_answer_is_said(peer: Any, case: str) -> None:
    sent, kind, words = NO_HTTP[case]
    peer.refused(kind, words, peer.start(peer.answering(sent)))
