"""Phase 2: one MQTT connection over mutual TLS, to see whether the broker accepts the leaf.

Responsible for a single attempt by paho-mqtt (MQTT 3.1.1, client id = device id): connected, CONNACK read, at
most one message of telemetry, disconnected; and for telling a broker that refuses this device from one that
cannot be reached. Accepted means CONNACK 0 and nothing less. ``stay`` holds a connection, for demonstrations.

Not responsible for trying again, for giving the context the device's key (``enroll.keys``), or for what the
telemetry says (``enroll.inventory``). Runs on paho 2 and on paho 1.6, which Debian 12 has.
"""

from __future__ import annotations

import random
import select
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import paho.mqtt.client as paho

from enroll.backoff import Backoff
from enroll.errors import BrokerError
from enroll.names import HostPort

TELEMETRY_TOPIC: Final = "v1/devices/me/telemetry"
"""Where a device publishes on ThingsBoard (https://thingsboard.io/docs/reference/mqtt-api/#telemetry-upload-api)."""

_KEEPALIVE: Final = 60
_POLL: Final = 0.2
_LEAST: Final = 0.1
_STAY_SECONDS: Final = 20.0
_STEADY_SECONDS: Final = 60.0
_STAY_BACKOFF: Final = Backoff(base=1.0, cap=60.0)

# "Server unavailable": MQTT 3.1.1 §3.2.2.3, and as the reason code of MQTT 5 that paho 2 translates it to.
_UNAVAILABLE: Final = frozenset({3, 136})
# Of the alerts of RFC 8446 §6.2, those by which a server speaks of the client's certificate; OpenSSL's spelling.
_ABOUT_US: Final = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "DECRYPT_ERROR", "HANDSHAKE_FAILURE")


class _Tls:
    """What became of TLS on one connection."""

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self.done = False
        self.failure: ssl.SSLError | None = None

    def socket_class(self) -> type[ssl.SSLSocket]:
        """Return a class of sockets that keep to ``ends`` during the handshake, and report here.

        paho's own time-out is per packet, and it swallows what goes wrong after the handshake: with TLS 1.3
        that is where the server refuses a certificate.
        """
        tls = self

        class Watched(ssl.SSLSocket):
            def do_handshake(self, block: bool = False) -> None:  # noqa: ARG002 - never blocks
                try:
                    self.setblocking(False)
                    while not tls.done:
                        tls.step(self, super().do_handshake)
                except OSError:
                    self.close()  # paho would leave it to the garbage collector
                    raise

            def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
                try:
                    return super().recv(buflen, flags)
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    raise
                except ssl.SSLError as e:
                    tls.failure = e
                    raise

        return Watched

    def step(self, sock: ssl.SSLSocket, handshake: Callable[[], None]) -> None:
        """Go on with a handshake, waiting for the other side if it must."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("the TLS handshake did not end in time")
        try:
            handshake()
            self.done = True
        except ssl.SSLWantReadError:
            select.select([sock], [], [], left)
        except ssl.SSLWantWriteError:
            select.select([], [sock], [], left)


class _Link:
    """One connection to the broker."""

    def __init__(self, broker: HostPort, device_id: str, context: ssl.SSLContext, seconds: float) -> None:
        self._broker, self._seconds = broker, seconds
        self._ends = time.monotonic() + seconds
        self._tls = _Tls(self._ends)
        self._answers: list[Any] = []
        self._client = _client(device_id)
        self._client.on_connect = self._heard
        context.sslsocket_class = self._tls.socket_class()
        self._client.tls_set_context(context)
        self._client.connect_timeout = max(_LEAST, seconds)  # before paho 2 it is not looked at: 5 s

    def _heard(self, _client: Any, _data: Any, _flags: Any, reason: Any, *_properties: Any) -> None:
        self._answers.append(reason)

    def open(self) -> None:
        """Connect and await the CONNACK.

        :raises BrokerError: anything but an acceptance.
        """
        try:
            self._client.connect(self._broker.host, self._broker.port, _KEEPALIVE)
            alive = self._turn_until(lambda: bool(self._answers))
        except (OSError, ValueError) as e:
            raise self._failed(e) from e
        if self._answers:
            reason = self._answers[0]
            code = getattr(reason, "value", reason)
            if code != 0:
                text = f"{self._broker}: the broker does not accept this device yet ({_spelled(reason)})"
                raise BrokerError(text, refused=code not in _UNAVAILABLE)
        elif alive:
            raise BrokerError(f"{self._broker}: the broker said nothing within {self._seconds:.0f} s", refused=False)
        else:
            raise self._hung_up(self._tls.failure)

    def publish(self, telemetry: bytes) -> str:
        """Publish one message and return in words whether the broker acknowledged it."""
        try:
            sent = self._client.publish(TELEMETRY_TOPIC, telemetry, qos=1)
            alive = self._turn_until(sent.is_published)
            if sent.is_published():
                return "telemetry acknowledged"
        except (OSError, ValueError, RuntimeError) as e:  # RuntimeError is paho's for a message it cannot send
            return f"telemetry was not sent ({e})"
        return "telemetry was not acknowledged in time" if alive else "the broker hung up on the telemetry"

    def hold(self, stop: threading.Event) -> None:
        """Keep the connection until ``stop`` is set or it breaks."""
        while not stop.is_set() and self._turn():
            pass

    def close(self) -> None:
        """Say goodbye where somebody listens, and close the socket whatever happened."""
        sock = self._client.socket()
        try:
            if sock is not None and self._client.disconnect() == paho.MQTT_ERR_SUCCESS:
                self._turn()
        except (OSError, ValueError):
            pass  # it was leaving anyway
        finally:
            if sock is not None:
                sock.close()

    def _turn(self) -> bool:
        return bool(self._client.loop(_POLL) == paho.MQTT_ERR_SUCCESS)

    def _turn_until(self, there: Callable[[], bool]) -> bool:
        """Serve the connection until ``there`` or the end of the time; false if it broke."""
        while not there() and time.monotonic() < self._ends:
            if not self._turn():
                return there()
        return True

    def _hung_up(self, error: Exception | None) -> BrokerError:
        why = f" ({_reason(error)})" if error else ""
        text = f"{self._broker}: the broker closed the connection right after the TLS handshake{why}"
        return BrokerError(f"{text}; it may not know this certificate yet", refused=True)

    def _failed(self, error: Exception) -> BrokerError:
        if self._tls.done:
            return self._hung_up(error)  # it was gone before CONNECT could be written
        if isinstance(error, ssl.SSLCertVerificationError):
            text = "its certificate does not hold against the pinned root"
            return BrokerError(f"{self._broker}: {text} ({error}); check name and clock", refused=False)
        said = getattr(error, "reason", None) or ""
        if isinstance(error, ssl.SSLError) and "ALERT" in said and any(word in said for word in _ABOUT_US):
            text = f"the broker refuses this device's certificate ({_reason(error)})"
            return BrokerError(f"{self._broker}: {text}", refused=True)
        return BrokerError(f"{self._broker}: {str(error) or type(error).__name__}", refused=False)


def connect_once(
    broker: HostPort, device_id: str, context: ssl.SSLContext, seconds: float, telemetry: bytes | None = None
) -> str:
    """Connect, wait for the CONNACK, publish the telemetry if there is any, and leave again.

    :param context: verifies the broker, and holds the device's key and chain already.
    :param seconds: total time for TLS, CONNACK and telemetry; looking up the name and each TCP connect keep to
        their own (paho's and the resolver's).
    :param telemetry: JSON, published with QoS 1. That it fails is told in the sentence and is no error.
    :returns: a sentence that says what was accepted.
    :raises BrokerError: ``refused`` if the broker answered, or ended TLS, in a way that speaks of this device
        (with TLS 1.3 a refused certificate shows only as an end right after the handshake); else not reachable,
        not answering, or not the broker that the pinned root vouches for.
    """
    link = _Link(broker, device_id, context, seconds)
    try:
        link.open()
        told = "the broker accepted this device's certificate"
        return told if telemetry is None else f"{told}; {link.publish(telemetry)}"
    finally:
        link.close()


def stay(
    broker: HostPort,
    device_id: str,
    context: ssl.SSLContext,
    telemetry: bytes | None,
    stop: threading.Event,
    *,
    report: Callable[[str], None] = lambda _sentence: None,
    uniform: Callable[[float, float], float] = random.uniform,
) -> None:
    """Keep a connection until ``stop`` is set, and make another one (full-jitter backoff) when it breaks.

    For demonstrations: a renewed certificate is not taken up. Never raises; what happens goes to ``report``.
    """
    failures = 0
    while not stop.is_set():
        began = time.monotonic()
        link = _Link(broker, device_id, context, _STAY_SECONDS)
        try:
            link.open()
            report("connected" if telemetry is None else f"connected; {link.publish(telemetry)}")
            link.hold(stop)
            why = f"{broker}: the connection was lost"
        except BrokerError as e:
            why = str(e)
        finally:
            link.close()
        if stop.is_set():
            return
        failures = 1 if time.monotonic() - began > _STEADY_SECONDS else failures + 1
        wait = _STAY_BACKOFF.delay(failures, None, uniform)
        report(f"{why} (again in {wait:.1f} s)")
        stop.wait(wait)


def _client(device_id: str) -> paho.Client:
    versions: Any = getattr(paho, "CallbackAPIVersion", None)
    if versions is None:  # paho 1.6
        old: Callable[..., paho.Client] = paho.Client
        return old(client_id=device_id, protocol=paho.MQTTv311, reconnect_on_failure=False)
    return paho.Client(versions.VERSION2, client_id=device_id, protocol=paho.MQTTv311, reconnect_on_failure=False)


def _spelled(reason: Any) -> str:
    return str(paho.connack_string(reason)) if isinstance(reason, int) else str(reason)


def _reason(error: Exception) -> str:
    words = getattr(error, "reason", None) or str(error) or type(error).__name__
    return str(words).lower().replace("_", " ")
