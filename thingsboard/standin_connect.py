"""The first packet of an MQTT connection: read within bounds, answered where it is refused, rewritten for amqtt.

Formats: MQTT 3.1.1, sections 2.2.3, 3.1 and 3.2; MQTT 5, section 3.2. Not responsible for who may enter.
"""

import asyncio
from dataclasses import dataclass

from amqtt.adapters import BufferReader, ReaderAdapter, StreamReaderAdapter

MAX_CONNECT = 64 * 1024
"""Bytes of a CONNECT that is read, as ThingsBoard's default for any packet."""

_CONNECT = 0x10
_PROTOCOLS = {3: "MQTT 3.1", 4: "MQTT 3.1.1", 5: "MQTT 5"}
_SPOKEN, _FIVE = 4, 5
_MORE = 0x80
_LENGTH_BYTES = 4
_RESERVED, _CLEAN, _WILL, _USERNAME, _PASSWORD = 0x01, 0x02, 0x04, 0x80, 0x40


class NotMqttError(Exception):
    """What came first is no CONNECT; MQTT 3.1.1 section 3.1 wants the connection closed without an answer."""


@dataclass(frozen=True, slots=True)
class FirstPacket:
    """A CONNECT as it was sent. Of versions that are not spoken only `level` is read."""

    level: int
    client_id: str = ""
    username: str | None = None
    keep_alive: int = 0
    """Seconds; 0 is none."""

    @property
    def protocol(self) -> str:
        """The protocol's name for people."""
        return _PROTOCOLS.get(self.level, f"MQTT level {self.level}")

    @property
    def spoken(self) -> bool:
        """Whether the broker behind the door speaks it: amqtt knows 3.1.1 only."""
        return self.level == _SPOKEN

    def not_authorized(self) -> bytes:
        """Return the CONNACK that refuses: 5, or 0x87 in MQTT 5."""
        return b"\x20\x03\x00\x87\x00" if self.level == _FIVE else b"\x20\x02\x00\x05"

    def not_spoken(self) -> bytes:
        """Return the CONNACK for a version that is not spoken: 1, or 0x84 in MQTT 5."""
        return b"\x20\x03\x00\x84\x00" if self.level == _FIVE else b"\x20\x02\x00\x01"

    def handed_over(self, session_name: str) -> bytes:
        """Return the CONNECT that amqtt gets: under a name of our own, without will, as a clean session.

        amqtt knows sessions by client id alone, a device could throw another one out by naming its id; and it
        sends a will to everyone. ThingsBoard does neither: what counts there is the device. `session_name`
        has at most 100 bytes.
        """
        name = session_name.encode()
        body = b"\x00\x04MQTT" + bytes([_SPOKEN, _CLEAN]) + self.keep_alive.to_bytes(2)
        body += len(name).to_bytes(2) + name
        return bytes([_CONNECT, len(body)]) + body


async def first_packet(reader: asyncio.StreamReader) -> FirstPacket:
    """Read the first packet. Raises `NotMqttError`, `asyncio.IncompleteReadError` where it breaks off."""
    if (await reader.readexactly(1))[0] != _CONNECT:
        raise NotMqttError("the first packet is not CONNECT")
    length, byte = 0, _MORE
    for position in range(_LENGTH_BYTES):
        byte = (await reader.readexactly(1))[0]
        length |= (byte & ~_MORE) << (7 * position)
        if not byte & _MORE:
            break
    if byte & _MORE or length > MAX_CONNECT:
        raise NotMqttError(f"a CONNECT of more than {MAX_CONNECT} bytes")
    return _parsed(await reader.readexactly(length))


def _parsed(body: bytes) -> FirstPacket:
    fields = _Fields(body)
    if fields.text() not in {"MQTT", "MQIsdp"}:
        raise NotMqttError("the first packet names another protocol")
    level = fields.take(1)[0]
    if level != _SPOKEN:  # laid out otherwise; refused in any case, so no more of it is read
        return FirstPacket(level)
    flags = fields.take(1)[0]
    keep_alive = int.from_bytes(fields.take(2))
    client_id = fields.text()
    if flags & _WILL:
        fields.text()
        fields.blob()
    username = fields.text() if flags & _USERNAME else None
    if flags & _PASSWORD:
        fields.blob()
    if flags & _RESERVED or not fields.done:
        raise NotMqttError("the first packet is a broken CONNECT")
    return FirstPacket(level, client_id, username, keep_alive)


class _Fields:
    """Walks the fields of a packet, MQTT 3.1.1 section 1.5."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._body)

    def take(self, size: int) -> bytes:
        part = self._body[self._at : self._at + size]
        if len(part) < size:
            raise NotMqttError("the first packet is a broken CONNECT")
        self._at += size
        return part

    def blob(self) -> bytes:
        return self.take(int.from_bytes(self.take(2)))

    def text(self) -> str:
        try:
            return self.blob().decode()
        except UnicodeDecodeError as e:
            raise NotMqttError("the first packet is a broken CONNECT") from e


class ReplayedReader(ReaderAdapter):  # type: ignore[misc]  # amqtt ships no types
    """Hands amqtt a first packet, then the rest of the stream."""

    def __init__(self, first: bytes, stream: asyncio.StreamReader) -> None:
        self._first = BufferReader(first)
        self._left = len(first)
        self._stream = StreamReaderAdapter(stream)

    async def read(self, n: int = -1) -> bytes:
        """Read `n` bytes; a read never crosses the first packet's end."""
        if self._left:
            part = bytes(await self._first.read(n))
            self._left -= len(part)
            return part
        return bytes(await self._stream.read(n))

    def feed_eof(self) -> None:
        """Pass the end on."""
        self._stream.feed_eof()
