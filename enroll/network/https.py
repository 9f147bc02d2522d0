"""One HTTPS request over one connection: bounded in time and size, whoever answers.

Responsible for proxies, TLS and HTTP/1.1 under one deadline for all of them together, and for an upper bound of
what is read. Every failure becomes one of the agent's errors, and no error's text holds a body or a password.

Not responsible for what an answer means (``enroll.network.transport``), nor for whom a TLS context trusts.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import urlsplit

from enroll.errors import ForeignAnswerError, UnreachableError
from enroll.names import HostPort
from enroll.network import dial
from enroll.network.proxy import Proxy, ProxyVariableError, proxy_for

MAX_ANSWER: Final = 1024 * 1024
"""Largest body that is read, in bytes."""

_MAX_RECEIVED: Final = MAX_ANSWER + 256 * 1024
"""Most bytes taken from one connection: head, body and framing together, also where they never end."""

_PIECE: Final = 64 * 1024
_HTTPS_PORT: Final = 443
_OK: Final = range(200, 300)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Names of headers are in lower case; of one that came twice the last counts."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    server_chain: tuple[bytes, ...]
    """DER, leaf first: the verified chain from Python 3.13 on, else the leaf alone."""


def exchange(
    method: str,
    url: str,
    context: ssl.SSLContext,
    seconds: float,
    *,
    environment: Mapping[str, str],
    body: bytes | None = None,
) -> Answer:
    """Send one request and return the whole answer, of any status; nothing is followed and nothing is repeated.

    :param url: ``https://``, printable ASCII.
    :param seconds: for everything together: name, proxy, TLS, request and answer.
    :param environment: where the proxy variables are.
    :param body: JSON.
    :raises UnreachableError: no connection, no whole answer in time, TLS refused.
    :raises ForeignAnswerError: something answers that is not HTTP, too large, compressed, or a proxy's refusal.
    """
    target, path = _split(url)
    deadline = dial.Deadline(seconds)
    with _told(url, deadline, seconds), contextlib.ExitStack() as stack:
        tls = _encrypted(url, target, context, deadline, environment, stack)
        server_chain = _server_chain(tls)  # now: after an end without close_notify OpenSSL tells it no more
        deadline.stage = "the answer"
        dial.send(tls, _request(method, path, target, body), deadline)
        status, headers, content = _receive(url, tls, method, deadline, stack)
    return Answer(status, headers, content, server_chain)


def introduce(
    url: str, context: ssl.SSLContext, seconds: float, *, environment: Mapping[str, str]
) -> tuple[bytes, ...]:
    """Shake hands, say nothing, and return the chain that the server showed (as ``Answer.server_chain``).

    :raises UnreachableError: no connection in time, TLS refused.
    :raises ForeignAnswerError: a proxy's refusal.
    """
    target, _ = _split(url)
    deadline = dial.Deadline(seconds)
    with _told(url, deadline, seconds), contextlib.ExitStack() as stack:
        return _server_chain(_encrypted(url, target, context, deadline, environment, stack))


@contextlib.contextmanager
def _told(url: str, deadline: dial.Deadline, seconds: float) -> Iterator[None]:
    """Make the agent's errors of whatever goes wrong on a connection."""
    try:
        yield
    except dial.TooLargeError as e:
        raise ForeignAnswerError(f"{url}: the answer is larger than {MAX_ANSWER} bytes") from e
    except TimeoutError as e:
        raise UnreachableError(f"{url}: no whole answer within {seconds:.0f} s (waited for {deadline.stage})") from e
    except (http.client.RemoteDisconnected, http.client.IncompleteRead) as e:
        raise UnreachableError(f"{url}: the connection ended before the whole answer was there") from e
    except http.client.HTTPException as e:
        raise ForeignAnswerError(f"{url}: what answers is not HTTP ({type(e).__name__})") from e
    except ssl.SSLCertVerificationError as e:
        raise UnreachableError(f"{url}: {_refused(e)}", untrusted=True) from e
    except ProxyVariableError as e:
        raise UnreachableError(f"{url}: {e}") from e
    except OSError as e:
        raise UnreachableError(f"{url}: {_why(e)}") from e
    except (ValueError, OverflowError) as e:  # http.client on numbers that are none
        raise ForeignAnswerError(f"{url}: what answers is not HTTP ({type(e).__name__})") from e


def _encrypted(
    url: str,
    target: HostPort,
    context: ssl.SSLContext,
    deadline: dial.Deadline,
    environment: Mapping[str, str],
    stack: contextlib.ExitStack,
) -> ssl.SSLSocket:
    connection = _open(url, target, deadline, environment, stack)
    deadline.stage = "the TLS handshake"
    connection.settimeout(deadline.left())  # a handshake's time-out holds for all of it, not for each packet
    name = target.host.rstrip(".").encode("ascii")  # as text it would go through IDNA, whose tables are slow to load
    return stack.enter_context(context.wrap_socket(connection, server_hostname=name))


def _split(url: str) -> tuple[HostPort, str]:
    try:
        parts = urlsplit(url)
        target = HostPort(parts.hostname or "", _HTTPS_PORT if parts.port is None else parts.port)
    except ValueError as e:
        raise UnreachableError(f"{url!r} is no address of a server") from e
    if parts.scheme != "https" or not url.isascii() or not url.isprintable() or " " in url:
        raise UnreachableError(f"{url!r} must begin with https://; the agent never speaks plain HTTP")
    return target, parts.path or "/"


def _open(
    url: str, target: HostPort, deadline: dial.Deadline, environment: Mapping[str, str], stack: contextlib.ExitStack
) -> socket.socket:
    proxy = proxy_for(target, environment)
    next_hop = proxy.server if proxy else target
    addresses = dial.addresses(next_hop, deadline)
    deadline.stage = f"a connection to {next_hop}"
    connection = stack.enter_context(dial.connect(addresses, deadline))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if proxy is not None:
        deadline.stage = f"the proxy {next_hop}"
        _tunnel(url, connection, target, proxy, deadline)
    return connection


def _tunnel(url: str, connection: socket.socket, target: HostPort, proxy: Proxy, deadline: dial.Deadline) -> None:
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", "User-Agent: iot-enroll"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    dial.send(connection, _head(lines), deadline)
    response = http.client.HTTPResponse(
        cast("socket.socket", dial.Incoming(connection, deadline, _MAX_RECEIVED)), method="CONNECT"
    )
    try:
        response.begin()
    finally:
        response.close()
    if response.status not in _OK:
        said = f"{url}: the proxy {proxy.server} answers {response.status} and lets nothing through"
        advice = "; check its user and password" if response.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED else ""
        raise ForeignAnswerError(said + advice)


def _request(method: str, path: str, target: HostPort, body: bytes | None) -> bytes:
    authority = str(target).removesuffix(f":{_HTTPS_PORT}")
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {authority}",
        "User-Agent: iot-enroll",
        "Accept: application/json",
        "Accept-Encoding: identity",
        "Connection: close",
    ]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return _head(lines) + (body or b"")


def _head(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii")


def _receive(
    url: str, tls: ssl.SSLSocket, method: str, deadline: dial.Deadline, stack: contextlib.ExitStack
) -> tuple[int, Mapping[str, str], bytes]:
    response = http.client.HTTPResponse(
        cast("socket.socket", dial.Incoming(tls, deadline, _MAX_RECEIVED)), method=method
    )
    stack.callback(response.close)
    response.begin()
    headers = {name.lower(): value for name, value in response.headers.items()}
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise ForeignAnswerError(f"{url}: a compressed answer was not asked for")
    content = bytearray()
    while piece := response.read(_PIECE):
        content += piece
        if len(content) > MAX_ANSWER:
            raise dial.TooLargeError
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return response.status, headers, bytes(content)


def _server_chain(tls: ssl.SSLSocket) -> tuple[bytes, ...]:
    if hasattr(tls, "get_verified_chain") and tls.context.verify_mode is ssl.CERT_REQUIRED:
        return tuple(tls.get_verified_chain())
    leaf = tls.getpeercert(binary_form=True)
    return () if leaf is None else (leaf,)


_ADVICE: Final = {
    9: "check the clock",  # X509_V_ERR_CERT_NOT_YET_VALID
    10: "check the clock",  # X509_V_ERR_CERT_HAS_EXPIRED
    62: "check the name in the address",  # X509_V_ERR_HOSTNAME_MISMATCH
    64: "check the name in the address",  # X509_V_ERR_IP_ADDRESS_MISMATCH
}


def _refused(error: ssl.SSLCertVerificationError) -> str:
    advice = _ADVICE.get(error.verify_code, "check the fingerprint, and that nobody answers in the bridge's place")
    return f"its certificate does not hold against the pinned root ({error.verify_message}); {advice}"


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error.strerror or type(error).__name__})"
    return error.strerror or str(error) or type(error).__name__
