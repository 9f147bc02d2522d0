"""A TCP connection to a server by name, each step of it under one deadline.

Responsible for looking a name up, for connecting to the first of its addresses that answers (RFC 8305: a network
with a dead IPv6 costs a moment and not the request), and for sending and receiving within time and bounds.

Not responsible for what is said over the connection (``enroll.network.https``).
"""

from __future__ import annotations

import errno
import io
import os
import select
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from enroll.names import HostPort, is_ip

_STAGGER: Final = 0.3
"""Seconds after which the next address is tried beside the one before."""


class TooLargeError(Exception):
    """More was sent than an answer of the bridge can have."""


class Deadline:
    """The end of the whole exchange on the monotonic clock, and what is waited for."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds
        self.stage = "the name"

    def left(self) -> float:
        """Return the seconds left.

        :raises TimeoutError: none.
        """
        seconds = self._ends - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds


class Incoming(io.RawIOBase):
    """The receiving side of a socket: every read within the deadline, all reads within the bound."""

    def __init__(self, connection: socket.socket, deadline: Deadline, most: int) -> None:
        self._connection = connection
        self._most = most
        self._deadline = deadline
        self._received = 0

    def readable(self) -> bool:
        """Return true."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Receive what is there, at least one byte unless the other side has ended.

        :raises TimeoutError: nothing came before the deadline.
        :raises TooLargeError: the bound is passed.
        """
        self._connection.settimeout(self._deadline.left())
        count = self._connection.recv_into(buffer)
        self._received += count
        if self._received > self._most:
            raise TooLargeError
        return count

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Stand for the socket that ``HTTPResponse`` wants: this is all it asks of one."""
        return io.BufferedReader(self)


def addresses(server: HostPort, deadline: Deadline) -> Sequence[Any]:
    """Return what ``getaddrinfo`` says, asked in a thread of its own: it knows no time-out and may take a minute.

    :raises OSError: no such name.
    """
    if is_ip(server.host):
        host = server.host.encode("ascii")
        return socket.getaddrinfo(host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    found: list[Sequence[Any] | OSError] = []

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(server.host.encode("ascii"), server.port, type=socket.SOCK_STREAM))
        except OSError as e:
            found.append(e)

    thread = threading.Thread(target=look_up, name="look up", daemon=True)
    thread.start()
    thread.join(deadline.left())
    if not found:
        raise TimeoutError
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]


def connect(addresses: Sequence[Any], deadline: Deadline) -> socket.socket:
    """Return the first connection that comes up; addresses are begun one after another and waited for together.

    :raises OSError: why the last one did not.
    """
    untried, opening = list(addresses), dict[int, socket.socket]()
    failure = OSError("the name has no address")
    poll = select.poll()
    try:
        while untried or opening:
            if untried:
                family, kind, protocol, _, address = untried.pop(0)
                try:
                    connection = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
                except OSError as e:  # a kernel without IPv6
                    failure = e
                    continue
                code = connection.connect_ex(address)
                if code not in {0, errno.EINPROGRESS}:
                    connection.close()
                    failure = OSError(code, os.strerror(code))
                    continue
                opening[connection.fileno()] = connection
                poll.register(connection, select.POLLOUT)
            wait = min(_STAGGER, deadline.left()) if untried else deadline.left()
            for descriptor, _ in poll.poll(wait * 1000):
                connection = opening[descriptor]
                poll.unregister(descriptor)
                code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code == 0:
                    return opening.pop(descriptor)
                failure = OSError(code, os.strerror(code))
                opening.pop(descriptor).close()
    finally:
        for connection in opening.values():
            connection.close()
    raise failure


def send(connection: socket.socket, data: bytes, deadline: Deadline) -> None:
    """Send all of it, in as few packets as the network takes."""
    unsent = memoryview(data)
    while unsent:
        connection.settimeout(deadline.left())
        unsent = unsent[connection.send(unsent) :]
