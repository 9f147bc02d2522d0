"""The stand-in's sockets: loopback listeners, the MQTT door's TLS context, streams over an accepted socket.

Not responsible for what is said over them.
"""

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME: ThingsBoard looks at the leaf's dates at CONNECT, not in the handshake."""


@dataclass(frozen=True, slots=True)
class DoorTls:
    """The door's own certificate (files) and the PEM of the CAs under which client certificates are accepted."""

    certificate: Path
    key: Path
    client_ca: str

    def context(self) -> ssl.SSLContext:
        """Build the door's TLS context: a client certificate is asked for, not required."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        context.load_verify_locations(cadata=self.client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VerifyFlags(ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME)
        return context


async def tls_streams(
    connection: socket.socket, context: ssl.SSLContext, seconds: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Do the server's side of a handshake, in `seconds`, and return the streams. Raises OSError.

    Not `asyncio.start_server`: that one loses sight of a connection until its handshake is over, and the door
    could not close while one is under way.
    """
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _protocol = await loop.connect_accepted_socket(
        lambda: protocol, connection, ssl=context, ssl_handshake_timeout=seconds, ssl_shutdown_timeout=1.0
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def loopback_listener(port: int) -> socket.socket:
    """Listen on loopback; 0 takes a free port. Raises OSError where the port is taken.

    Accepted sockets inherit TCP_NODELAY. asyncio sets it only on sockets that say their protocol number,
    which these do not, and answers would wait 40 ms for the other side's acknowledgement.
    """
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setblocking(False)
    return listener


async def closed(writer: asyncio.StreamWriter | None) -> None:
    """Close a connection and wait until it is; one that broke is closed."""
    with contextlib.suppress(OSError):
        if writer is not None:
            writer.close()
            await writer.wait_closed()
