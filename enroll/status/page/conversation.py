"""One HTTP request and its answer, over a connection that may do anything.

Responsible for bounds: a head of 8 KiB, five seconds in all, no body, ``GET`` and ``HEAD`` of one target. Over TCP the
``Host`` must be this machine: a browser that was led here by another name reads nothing.

Not responsible for what is answered.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from enroll.names import HostPort

_MAX_HEAD: Final = 8192
_SECONDS: Final = 5.0
_DRAIN_SECONDS: Final = 0.5
_MAX_DRAIN: Final = 64 * 1024
_LEAST_SECONDS: Final = 0.1
_REQUEST: Final = re.compile(rb"([A-Z]{1,10}) (/[!-~]{0,200}) HTTP/1\.[01]")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered: a status, a body, and its media type."""

    status: HTTPStatus
    body: bytes
    kind: str = "text/plain; charset=utf-8"

    def to_bytes(self, *, head_only: bool) -> bytes:
        """Return it as it goes over the wire."""
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Content-Type: {self.kind}",
            f"Content-Length: {len(self.body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "Connection: close",
            *(["Allow: GET, HEAD"] if self.status is HTTPStatus.METHOD_NOT_ALLOWED else []),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + (b"" if head_only else self.body)


def refusal(status: HTTPStatus) -> Answer:
    """Return an answer that says no more than the status."""
    return Answer(status, f"{status.phrase}\n".encode())


def converse(connection: socket.socket, answer: Callable[[Mapping[str, str]], Answer]) -> None:
    """Serve one connection; whatever the other side does, this returns within seconds and raises nothing of it.

    :param answer: what ``GET /`` is answered, given the request's headers (names in lower case).
    """
    ends = time.monotonic() + _SECONDS
    try:
        head = _head(connection, ends)
        if head is None:
            return
        reply, head_only = _reply(connection, head, answer)
        connection.settimeout(max(_LEAST_SECONDS, ends - time.monotonic()))
        connection.sendall(reply.to_bytes(head_only=head_only))
        connection.shutdown(socket.SHUT_WR)
        _drain(connection)
    except OSError:
        return


def _head(connection: socket.socket, ends: float) -> bytes | None:
    """Return the request up to the blank line, or the beginning of one that is too long; ``None``: it never came."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) <= _MAX_HEAD:
        left = ends - time.monotonic()
        if left <= 0:
            return None
        connection.settimeout(left)
        piece = connection.recv(_MAX_HEAD)
        if not piece:
            return None
        head += piece
    return head


def _drain(connection: socket.socket) -> None:
    """Read on for a moment: closing over unread bytes would take the answer away from the other side."""
    ends, read = time.monotonic() + _DRAIN_SECONDS, 0
    while read < _MAX_DRAIN and (left := ends - time.monotonic()) > 0:
        connection.settimeout(left)
        piece = connection.recv(_MAX_HEAD)
        if not piece:
            return
        read += len(piece)


def _reply(
    connection: socket.socket, head: bytes, answer: Callable[[Mapping[str, str]], Answer]
) -> tuple[Answer, bool]:  # fmt: skip
    first, _, rest = head.partition(b"\r\n")
    request = _REQUEST.fullmatch(first)
    if b"\r\n\r\n" not in head:
        return refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), False
    if request is None:
        return refusal(HTTPStatus.BAD_REQUEST), False
    method, target = request[1], request[2].partition(b"?")[0]
    if method not in {b"GET", b"HEAD"}:
        return refusal(HTTPStatus.METHOD_NOT_ALLOWED), False
    head_only = method == b"HEAD"
    if target != b"/":
        return refusal(HTTPStatus.NOT_FOUND), head_only
    lines = rest.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if connection.family != socket.AF_UNIX and not _names_loopback(headers.get("host", "")):
        return refusal(HTTPStatus.MISDIRECTED_REQUEST), head_only
    return answer(headers), head_only


def _names_loopback(host: str) -> bool:
    """Return whether a browser meant this machine: another name that leads here is a page of a stranger's."""
    try:
        return HostPort.parse(host if re.search(r":\d+$", host) and not host.endswith("]") else f"{host}:80").loopback
    except ValueError:
        return False
