"""One request and its answer over real sockets: what leaves, what is read, who is believed by name."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
from typing import Any

import pytest

from enroll.errors import TryAgainError, UnreachableError
from enroll.network import https

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def test_the_request_is_whole_in_one_record_and_the_answer_tells_who_gave_it(peer: Any) -> None:
    seen: list[bytes] = []
    server = peer.ca.issue_cert("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.configure_cert(context)

    def script(connection: Any, _stop: threading.Event) -> None:
        seen.append(connection.recv(65536))
        connection.sendall(OK + b"Content-Length: 2\r\nX-Twice: 1\r\nx-twice: 2\r\n\r\n{}")

    port = peer.start(script, tls=context)
    answer = peer.exchange(port)
    assert (answer.status, answer.content, answer.headers["x-twice"]) == (200, b"{}", "2")
    assert answer.server_chain[0] == ssl.PEM_cert_to_DER_cert(server.cert_chain_pems[0].bytes().decode())
    head, _, sent = seen[0].partition(b"\r\n\r\n")
    assert sent == peer.body
    first, *lines = head.decode().split("\r\n")
    assert first == "POST /devices/dev-1/enroll HTTP/1.1"
    headers = dict(line.split(": ", 1) for line in lines)
    assert headers == {
        "Host": f"127.0.0.1:{port}",
        "User-Agent": "iot-enroll",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Connection": "close",
        "Content-Type": "application/json",
        "Content-Length": str(len(peer.body)),
    }


@pytest.mark.parametrize(
    "framing",
    [
        [OK + b"Content-Length: 8\r\n\r\n", b'{"a": 1}'],
        [OK + b"Transfer-Encoding: chunked\r\n\r\n", b'3\r\n{"a\r\n5;x=y\r\n": 1}\r\n0\r\nX: y\r\n\r\n'],
        [OK + b"\r\n", b'{"a": 1}'],
        [b"HTTP/1.0 200 OK\n\n", b'{"a": 1}'],
        [b"HTTP/1.1 100 Continue\r\n\r\n", OK + b'Content-Length: 8\r\n\r\n{"a": 1}'],
    ],
)
def test_every_framing_of_http_is_read(peer: Any, framing: list[bytes]) -> None:
    assert peer.exchange(peer.start(peer.answering(*framing))).content == b'{"a": 1}'


def test_a_body_of_exactly_the_bound_is_read(peer: Any) -> None:
    whole = b"x" * https.MAX_ANSWER
    port = peer.start(peer.answering(OK + b"Content-Length: %d\r\n\r\n" % len(whole), whole))
    assert peer.exchange(port).content == whole


def test_the_server_is_checked_by_its_name(peer: Any, monkeypatch: Any) -> None:
    asked: list[str | None] = []
    looked_up: list[bytes] = []
    real = socket.getaddrinfo

    def look_up(name: bytes | str, *how: Any, **also: Any) -> Any:
        looked_up.append(name if isinstance(name, bytes) else name.encode())
        return real("127.0.0.1", *how, **also)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    context = peer.accepting("localhost", "::1")
    context.sni_callback = lambda _tls, name, _context: asked.append(name)
    port = peer.start(peer.answering(OK + b"Content-Length: 2\r\n\r\n{}"), tls=context)
    for host in ("localhost", "localhost."):
        assert peer.exchange(port, host=host).status == 200
    error = peer.refused(UnreachableError, "does not hold against the pinned root.*name in the address", port)
    assert error.untrusted
    assert asked == ["localhost", "localhost", None]
    assert looked_up == [b"localhost", b"localhost.", b"127.0.0.1"]


def test_an_address_of_ipv6_is_dialled_and_checked(peer: Any) -> None:
    seen: list[bytes] = []

    def script(connection: Any, _stop: threading.Event) -> None:
        seen.append(peer.request_of(connection))
        connection.sendall(OK + b"Content-Length: 2\r\n\r\n{}")

    port = peer.start(script, host="::1")
    assert peer.exchange(port, host="[::1]").content == b"{}"
    assert f"Host: [::1]:{port}\r\n".encode() in seen[0]


def test_a_stranger_under_another_root_gets_nothing(peer: Any) -> None:
    seen: list[bytes] = []
    port = peer.start(lambda connection, _: seen.append(peer.request_of(connection)), tls=peer.stranger())
    error = peer.refused(UnreachableError, "does not hold against the pinned root.*check the fingerprint", port)
    assert error.untrusted
    assert seen == []


def test_a_server_without_tls_gets_nothing(peer: Any) -> None:
    seen: list[bytes] = []

    def script(connection: Any, _stop: threading.Event) -> None:
        seen.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    error = peer.refused(UnreachableError, "TLS failed", peer.start(script, tls=False))
    assert not error.untrusted
    assert peer.secret.encode() not in seen[0]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/enroll",
        "ftp://127.0.0.1/enroll",
        "127.0.0.1/enroll",
        "https:///enroll",
        "https://a b/enroll",
        "https://bridge.example/a b",
        "https://bridge.example/a\r\nX-Injected: y",
        "https://bridge.example:99999/",
        "https://[::1/",
        "https://bücke.example/",
    ],
)
def test_other_addresses_are_refused_before_anything_is_dialled(url: str) -> None:
    with pytest.raises(UnreachableError):
        https.exchange("GET", url, ssl.create_default_context(), 5.0, environment={})


def test_sockets_are_closed_however_it_ends(peer: Any) -> None:
    """Descriptors stay as many as they were over every kind of end."""
    ports = [peer.start(peer.answering(sent)) for sent in (b"", b"junk\r\n\r\n", OK + b"Content-Length: 2\r\n\r\n{}")]
    ports.append(peer.start(peer.deaf, tls=False))
    held = []
    for port in itertools.islice(itertools.cycle(ports), 12):
        with contextlib.suppress(TryAgainError):
            peer.exchange(port, 0.2)
        with socket.socket() as probe:
            held.append(probe.fileno())
    assert max(held[4:]) <= max(held[:4])
