"""The first packet of an MQTT connection: read within bounds, answered where it is refused, rewritten for amqtt.

Formats: MQTT 3.1.1, sections 2.2.3, 3.1 and 3.2; MQTT 5, section 3.2. Not responsible for who may enter.
"""

import asyncio
from dataclasses import dataclass

from amqtt.adapters import BufferReader, ReaderAdapter, StreamReaderAdapter
from amqtt.errors import AMQTTError
from amqtt.mqtt.connect import ConnectPacket

MAX_CONNECT = 64 * 1024
"""Bytes of a CONNECT that is read, as ThingsBoard's default for any packet."""

_CONNECT = 0x10
_PROTOCOLS = {3: "MQTT 3.1", 4: "MQTT 3.1.1", 5: "MQTT 5"}
_SPOKEN = 4
_MORE = 0x80
_LENGTH_BYTES = 4


class NotMqttError(Exception):
    """What came first is no CONNECT; MQTT 3.1.1 section 3.1 wants the connection closed without an answer."""


@dataclass(frozen=True, slots=True)
class FirstPacket:
    """A CONNECT as it was sent."""

    level: int
    client_id: str
    username: str | None
    raw: bytes

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
        return b"\x20\x03\x00\x87\x00" if self.level == 5 else b"\x20\x02\x00\x05"  # noqa: PLR2004 - MQTT 5

    def not_spoken(self) -> bytes:
        """Return the CONNACK for a version that is not spoken: 1, or 0x84 in MQTT 5."""
        return b"\x20\x03\x00\x84\x00" if self.level == 5 else b"\x20\x02\x00\x01"  # noqa: PLR2004 - MQTT 5

    async def handed_over(self, session_name: str) -> bytes:
        """Return the CONNECT that amqtt gets: under a name of our own, without will, as a clean session.

        amqtt knows sessions by client id alone, a device could throw another one out by naming its id; and it
        sends a will to everyone. ThingsBoard does neither: what counts there is the device.
        """
        packet = await ConnectPacket.from_stream(BufferReader(self.raw))
        assert packet.variable_header is not None  # noqa: S101 - for the type checker: just parsed
        assert packet.payload is not None  # noqa: S101 - for the type checker: just parsed
        header = packet.variable_header
        header.will_flag = header.will_retain_flag = header.username_flag = header.password_flag = False
        header.will_qos = 0
        header.clean_session_flag = True
        packet.payload.client_id = session_name
        return bytes(packet.to_bytes())


async def first_packet(reader: asyncio.StreamReader) -> FirstPacket:
    """Read the first packet. Raises `NotMqttError`, `asyncio.IncompleteReadError` where it breaks off."""
    if (await reader.readexactly(1))[0] != _CONNECT:
        raise NotMqttError("the first packet is not CONNECT")
    length, header = 0, bytearray([_CONNECT])
    for position in range(_LENGTH_BYTES):
        byte = (await reader.readexactly(1))[0]
        header.append(byte)
        length |= (byte & ~_MORE) << (7 * position)
        if not byte & _MORE:
            break
    if header[-1] & _MORE or length > MAX_CONNECT:
        raise NotMqttError(f"a CONNECT of more than {MAX_CONNECT} bytes")
    return await _parsed(bytes(header) + await reader.readexactly(length), len(header))


async def _parsed(raw: bytes, body: int) -> FirstPacket:
    name_end = body + 2 + int.from_bytes(raw[body : body + 2])
    if name_end >= len(raw) or raw[body + 2 : name_end] not in {b"MQTT", b"MQIsdp"}:
        raise NotMqttError("the first packet names another protocol")
    level = raw[name_end]
    if level != _SPOKEN:  # laid out otherwise; refused in any case, so no more of it is read
        return FirstPacket(level, "", None, raw)
    try:
        packet = await ConnectPacket.from_stream(BufferReader(raw))
    except (AMQTTError, ValueError) as e:
        raise NotMqttError("the first packet is a broken CONNECT") from e
    if packet.payload is None or packet.reserved_flag:
        raise NotMqttError("the first packet is a broken CONNECT")
    return FirstPacket(level, packet.payload.client_id or "", packet.payload.username, raw)


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
