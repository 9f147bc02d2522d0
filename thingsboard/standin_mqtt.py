"""The MQTT door: TLS, admission by the leaf's hash at CONNECT, one session a device, then amqtt's protocol.

Runs in a thread and event loop of its own, so that a fleet's handshakes do not hold up the bridge. Admits as
ThingsBoard does: what counts is the stored hash and the leaf's dates, not issuer, subject or revocation. Two
differences are OpenSSL's and cannot be put off from Python: a certificate that does not hang on `client_ca`
fails in the handshake, not at CONNACK; and of MQTT only 3.1.1 is spoken. Profiles with chain provisioning
are stored and listed, but open no door here: their traps are not simulated.
"""

import asyncio
import itertools
import logging
import socket
import threading
from collections.abc import Callable
from datetime import datetime

from amqtt.adapters import StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.plugins.base import BaseTopicPlugin
from amqtt.session import Session
from cryptography import x509
from cryptography.x509.oid import NameOID

from thingsboard.standin_connect import FirstPacket, NotMqttError, ReplayedReader, first_packet
from thingsboard.standin_records import DeviceRecord, Json
from thingsboard.standin_sockets import DoorTls, closed, loopback_listener, tls_streams
from thingsboard.standin_state import TenantState

CONNECT_TIMEOUT = 10.0
"""Seconds a client has for its CONNECT once TLS stands."""

_OWN_TOPICS = "v1/devices/me/"
_LISTENER = "default"

log = logging.getLogger(__name__)


class OwnTopicsPlugin(BaseTopicPlugin):  # type: ignore[misc]  # amqtt ships no types
    """Keeps devices from each other: telemetry goes to ThingsBoard alone, never to another subscriber."""

    async def topic_filtering(
        self,
        *,
        session: Session | None = None,  # noqa: ARG002 - amqtt's signature
        topic: str | None = None,
        action: Action | None = None,
    ) -> bool:
        """Let a device subscribe to its own topics; what it publishes reaches nobody."""
        return action is Action.SUBSCRIBE and (topic or "").startswith(_OWN_TOPICS)


class MqttDoor:
    """The listener on loopback. `start`, `stop` and `end_session` may be called from any other thread."""

    def __init__(
        self,
        state: TenantState,
        tls: DoorTls,
        *,
        port: int,
        clock: Callable[[], datetime],
        on_connect: Callable[[Json], None],
    ) -> None:
        self._state = state
        self._tls = tls
        self._port = port
        self._clock = clock
        self._on_connect = on_connect
        self._context = tls.context()
        self._loop = asyncio.SelectorEventLoop()  # asyncio's own, whatever the program's policy says
        self._thread = threading.Thread(target=self._loop.run_forever, name="mqtt-door", daemon=True)
        self._sessions: dict[str, asyncio.StreamWriter] = {}
        self._open: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)
        self._broker: Broker | None = None
        self._listener: socket.socket | None = None

    @property
    def port(self) -> int:
        """The port, known after `start`."""
        return self._port

    async def start(self) -> None:
        """Listen. Raises OSError where the port is taken."""
        self._thread.start()
        try:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._listen(), self._loop))
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the port and every session, and end the thread."""
        if not self._thread.is_alive():
            return
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._close(), self._loop))
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()

    def end_session(self, device_id: str) -> None:
        """Close a device's live session, if there is one."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end, device_id)

    def reload_certificate(self) -> None:
        """Read certificate and key again; the next handshake shows them."""
        self._context.load_cert_chain(self._tls.certificate, self._tls.key)

    async def _listen(self) -> None:
        plugins = {
            "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True},
            f"{__name__}.{OwnTopicsPlugin.__name__}": {},
        }
        listeners = {_LISTENER: {"type": "external"}}  # the sockets are ours
        self._broker = Broker({"listeners": listeners, "plugins": plugins}, loop=self._loop)
        await self._broker.start()
        self._listener = loopback_listener(self._port)
        self._port = self._listener.getsockname()[1]
        self._wait_for_connections()

    async def _close(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for device_id in list(self._sessions):
            self._end(device_id)
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        if self._broker is not None:
            await self._broker.shutdown()
        await self._loop.shutdown_default_executor()

    def _end(self, device_id: str) -> None:
        if (writer := self._sessions.pop(device_id, None)) is not None:
            writer.transport.abort()

    def _wait_for_connections(self) -> None:
        if self._listener is not None:
            self._loop.add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _address = listener.accept()
        except BlockingIOError:
            return
        except OSError as e:  # out of descriptors: wait for some to come free
            log.warning("cannot accept a connection: %s", e)
            self._loop.remove_reader(listener)
            self._loop.call_later(0.1, self._wait_for_connections)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._serve(connection))
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        # also where the door closes before the task, or its handshake, began
        task.add_done_callback(lambda _task: connection.close())

    async def _serve(self, connection: socket.socket) -> None:
        writer = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                reader, writer = await tls_streams(connection, self._context, CONNECT_TIMEOUT)
                packet = await first_packet(reader)
            await self._enter(packet, reader, writer)
        except (NotMqttError, asyncio.IncompleteReadError, TimeoutError, OSError) as e:
            log.debug("connection closed: %s", e)
        except asyncio.CancelledError:
            if writer is not None:
                writer.transport.abort()  # the door closes: no farewell from the other side is waited for
            raise
        finally:
            await closed(writer)

    async def _enter(self, packet: FirstPacket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        leaf_der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        record = self._admitted(packet, leaf_der)
        if record is None or not packet.spoken:
            writer.write(packet.not_authorized() if record is None else packet.not_spoken())
            await writer.drain()
            return
        # No await between admission and registration: a credential that changes meanwhile ends this session.
        device_id = record.id
        self._end(device_id)
        self._sessions[device_id] = writer
        event = self._state.connected(device_id, self._seen(packet, leaf_der))
        if event is not None:
            self._on_connect(event)
        try:
            await self._speak(packet, device_id, reader, writer)
        finally:
            if self._sessions.get(device_id) is writer:
                del self._sessions[device_id]
            if device_id not in self._sessions:
                self._state.disconnected(device_id)

    async def _speak(
        self,
        packet: FirstPacket,
        device_id: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        assert self._broker is not None  # noqa: S101 - for the type checker: listening
        opening = packet.handed_over(f"{device_id}/{next(self._numbers)}")
        await self._broker.external_connected(ReplayedReader(opening, reader), StreamWriterAdapter(writer), _LISTENER)

    def _admitted(self, packet: FirstPacket, leaf_der: bytes | None) -> DeviceRecord | None:
        if leaf_der is None:
            return self._state.admitted_by_token(packet.username) if packet.username else None
        leaf = x509.load_der_x509_certificate(leaf_der)
        if not leaf.not_valid_before_utc <= self._clock() <= leaf.not_valid_after_utc:
            return None
        return self._state.admitted(leaf_der)

    def _seen(self, packet: FirstPacket, leaf_der: bytes | None) -> Json:
        leaf = x509.load_der_x509_certificate(leaf_der) if leaf_der else None
        return {
            "clientId": packet.client_id,
            "protocol": packet.protocol,
            "subjectCn": _common_name(leaf.subject) if leaf else "",
            "issuerCn": _common_name(leaf.issuer) if leaf else "",
            "at": self._clock().isoformat(),
        }


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""
