"""Phase 2: one MQTT connect over mutual TLS, to see whether the broker accepts the leaf.

Responsible for a single attempt by paho-mqtt (MQTT 3.1.1, client id = device id): connected, CONNACK read,
disconnected. Accepted means CONNACK 0 and nothing less.

Not responsible for trying again, and not for publishing anything.
"""

from __future__ import annotations

import os
import ssl
import time
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from enroll.errors import BrokerError, StorageError
from enroll.names import HostPort

_KEEPALIVE: Final = 60
_POLL: Final = 0.2


class _TidySocket(ssl.SSLSocket):
    """Closes itself when the handshake fails; paho would leave it to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def load_identity(context: ssl.SSLContext, chain: bytes, key_file: Path) -> None:
    """Give a TLS context the device's leaf, its chain and its key.

    The chain goes through an anonymous file in memory: OpenSSL wants leaf and issuers in one file, and the
    folder keeps them in two.

    :param chain: PEM, leaf first, then its issuers.
    :raises StorageError: OpenSSL cannot read the key, or it does not fit the leaf.
    """
    descriptor = os.memfd_create("chain", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(chain)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", str(key_file))
    except (ssl.SSLError, OSError) as e:
        raise StorageError(f"cannot use {key_file} with device.crt: {e}; check both files") from e
    finally:
        os.close(descriptor)


def connect_once(broker: HostPort, device_id: str, context: ssl.SSLContext, seconds: float) -> None:
    """Connect, wait for the CONNACK and leave again; blocks for at most about ``seconds``.

    :raises BrokerError: unreachable, TLS refused, or the CONNACK says no; the text says which.
    """
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=device_id, protocol=MQTTProtocolVersion.MQTTv311)
    answers: list[ReasonCode] = []

    def on_connect(_client: Any, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        answers.append(reason)

    client.on_connect = on_connect
    context.sslsocket_class = _TidySocket
    client.tls_set_context(context)
    client.connect_timeout = seconds
    ends = time.monotonic() + seconds
    try:
        client.connect(broker.host, broker.port, _KEEPALIVE)
        _await_connack(client, answers, ends)
        if answers:
            _leave(client)
    except (OSError, ValueError) as e:
        raise BrokerError(f"{broker}: {_why(e)}") from e
    finally:
        _close(client)
    if not answers:
        raise BrokerError(f"{broker}: the broker closed the connection or said nothing within {seconds:.0f} s")
    if answers[0].is_failure:
        raise BrokerError(f"{broker}: the broker does not accept this device yet ({answers[0]})")


def _await_connack(client: paho.Client, answers: list[ReasonCode], ends: float) -> None:
    while not answers and time.monotonic() < ends:
        if client.loop(_POLL) != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return


def _leave(client: paho.Client) -> None:
    """Send DISCONNECT; it is written at once or by one more turn of the loop."""
    if client.disconnect() == MQTTErrorCode.MQTT_ERR_SUCCESS:
        client.loop(_POLL)


def _close(client: paho.Client) -> None:
    """Close the socket whatever happened; paho has no public call for a connection that never came up."""
    sock = client.socket()
    if sock is not None:
        sock.close()


def _why(error: Exception) -> str:
    text = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"the broker's certificate does not hold against the pinned root ({text}); check name and clock"
    return text
