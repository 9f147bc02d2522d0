"""Proxies: which one leads where, and what they can do."""

from __future__ import annotations

import contextlib
import socket
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from enroll.errors import ForeignAnswerError, UnreachableError
from enroll.names import HostPort
from enroll.network.proxy import Proxy, proxy_for

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def forwarding(peer: Any, seen: list[bytes]) -> Callable[[Any, threading.Event], None]:
    """A proxy: it opens the tunnel that CONNECT asks for."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)

    def script(connection: Any, _stop: threading.Event) -> None:
        seen.append(peer.request_of(connection))
        host, port = seen[-1].split()[1].decode().rsplit(":", 1)
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10) as far:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(far, connection))
            back.start()
            pump(connection, far)
            back.join(10)

    return script


def test_a_proxy_opens_a_tunnel_and_sees_nothing_inside(peer: Any) -> None:
    seen: list[bytes] = []
    port = peer.start(peer.answering(OK + b"Content-Length: 2\r\n\r\n{}"))
    proxy = peer.start(forwarding(peer, seen), tls=False)
    plain = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy}"}
    assert peer.exchange(port, environment=plain).content == b"{}"
    known = {"all_proxy": f"http://us%20er:pass%40word@127.0.0.1:{proxy}/"}
    assert peer.exchange(port, environment=known).content == b"{}"
    assert seen[0].startswith(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode())
    assert b"Authorization" not in seen[0]
    assert b"Proxy-Authorization: Basic dXMgZXI6cGFzc0B3b3Jk\r\n" in seen[1]
    assert peer.exchange(port, environment=plain | {"NO_PROXY": "127.0.0.0/8"}).content == b"{}"
    assert len(seen) == 2


@pytest.mark.parametrize("status", [407, 403, 502, 302])
def test_a_proxys_block_page_is_somebody_elses_answer(peer: Any, status: int) -> None:
    page = f"HTTP/1.1 {status} No\r\nContent-Type: text/html\r\n\r\n<html>{peer.secret}</html>".encode()
    proxy = peer.start(peer.answering(page), tls=False)
    environment = {"https_proxy": f"http://user:{peer.secret}@127.0.0.1:{proxy}"}
    words = f"the proxy 127.0.0.1:{proxy} answers {status}"
    error = peer.refused(ForeignAnswerError, words, 1, environment=environment)
    assert ("password" in str(error)) == (status == 407)


@pytest.mark.parametrize("drips", [False, True])
def test_a_proxy_that_does_not_come_to_the_point_is_given_up(peer: Any, drips: bool) -> None:
    script = peer.endless(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", 0.02) if drips else peer.silent
    proxy = peer.start(script, tls=False)
    peer.runs_out("waited for the proxy", 1, environment={"https_proxy": f"http://127.0.0.1:{proxy}"})


def test_a_proxy_that_floods_is_cut_off(peer: Any) -> None:
    proxy = peer.start(peer.endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2048), tls=False)
    peer.refused(ForeignAnswerError, "larger", 1, environment={"https_proxy": f"127.0.0.1:{proxy}"})


def test_a_proxy_that_answers_in_the_bridges_place_proves_nothing(peer: Any) -> None:
    """It opens no tunnel but plays the bridge itself, with a certificate of its own making."""
    stranger = peer.stranger()

    def script(connection: Any, _stop: threading.Event) -> None:
        peer.request_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with stranger.wrap_socket(connection, server_side=True) as tls:
            tls.recv(65536)

    environment = {"https_proxy": f"127.0.0.1:{peer.start(script, tls=False)}"}
    error = peer.refused(UnreachableError, "does not hold against the pinned root", 1, environment=environment)
    assert error.untrusted


@pytest.mark.parametrize("value", ["socks5://u:{}@h:1", "https://u:{}@h", "http://u:{}@h:x", "http://u:{}@", "{}@@:"])
def test_a_proxy_variable_that_makes_no_sense_is_named_without_its_value(peer: Any, value: str) -> None:
    error = peer.refused(
        UnreachableError, "variable ALL_PROXY", 1, environment={"ALL_PROXY": value.format(peer.secret)}
    )
    shown = "".join(traceback.format_exception(error))
    assert peer.secret not in shown


BRIDGE = HostPort("bridge.example", 443)
PROXY = Proxy(HostPort("proxy.example", 3128))


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, None),
        ({"HTTP_PROXY": "http://proxy.example:3128"}, None),
        ({"http_proxy": "http://proxy.example:3128"}, None),
        ({"HTTPS_PROXY": "http://proxy.example:3128"}, PROXY),
        ({"https_proxy": "http://proxy.example:3128/"}, PROXY),
        ({"https_proxy": " HTTP://proxy.example:3128 "}, PROXY),
        ({"https_proxy": "proxy.example:3128"}, PROXY),
        ({"https_proxy": "http://proxy.example"}, Proxy(HostPort("proxy.example", 80))),
        ({"https_proxy": "http://[::1]:3128"}, Proxy(HostPort("::1", 3128))),
        ({"ALL_PROXY": "http://proxy.example:3128"}, PROXY),
        ({"https_proxy": "", "all_proxy": "http://proxy.example:3128"}, PROXY),
        (
            {"https_proxy": "http://proxy.example:3128", "HTTPS_PROXY": "http://other:1", "ALL_PROXY": "http://x:1"},
            PROXY,
        ),
        ({"https_proxy": "http://u:p@proxy.example:3128"}, Proxy(PROXY.server, "Basic dTpw")),
        ({"https_proxy": "http://u@proxy.example:3128"}, Proxy(PROXY.server, "Basic dTo=")),
        ({"https_proxy": "u:p%40%C3%A4@proxy.example:3128"}, Proxy(PROXY.server, "Basic dTpwQMOk")),
    ],
)
def test_the_usual_variables_lead_to_a_proxy(environment: dict[str, str], proxy: Proxy | None) -> None:
    assert proxy_for(BRIDGE, environment) == proxy
    assert "dTpw" not in repr(proxy_for(BRIDGE, environment))


@pytest.mark.parametrize(
    ("exceptions", "host", "straight"),
    [
        ("*", "bridge.example", True),
        ("bridge.example", "bridge.example", True),
        ("BRIDGE.example", "bridge.EXAMPLE.", True),
        (".example", "bridge.example", True),
        ("example", "bridge.example", True),
        ("other, ,localhost bridge.example", "bridge.example", True),
        ("bridge.example:443", "bridge.example", True),
        ("bridge.example:8443", "bridge.example", False),
        ("ridge.example", "bridge.example", False),
        ("bridge.example.org", "bridge.example", False),
        (".", "bridge.example", False),
        ("", "bridge.example", False),
        ("10.0.0.0/8", "10.9.8.7", True),
        ("10.9.8.7", "10.9.8.7", True),
        ("10.9.8.7:443", "10.9.8.7", True),
        ("10.9.8.7:1", "10.9.8.7", False),
        ("9.8.7", "10.9.8.7", False),
        ("fd00::/8", "fd00::7", True),
        ("[fd00::7]:443", "fd00::7", True),
        ("fd00::7", "fd00::7", True),
        ("[fd00::8]", "fd00::7", False),
        ("10.0.0.0/8", "bridge.example", False),
    ],
)
def test_exceptions_mean_what_they_mean_to_curl(exceptions: str, host: str, straight: bool) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        environment = {"https_proxy": "http://proxy.example:3128", name: exceptions}
        assert (proxy_for(HostPort(host, 443), environment) is None) == straight
