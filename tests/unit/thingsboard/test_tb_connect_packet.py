"""The first packet of an MQTT connection: read within bounds, and rewritten so that amqtt is told nothing foreign."""

import asyncio

import pytest
from amqtt.adapters import BufferReader
from amqtt.mqtt.connect import ConnectPacket
from hypothesis import given
from hypothesis import strategies as st

from thingsboard.standin_connect import NotMqttError, ReplayedReader, first_packet


def connect(flags: int = 0x02, level: int = 4, name: bytes = b"MQTT", rest: bytes = b"\x00\x03dev") -> bytes:
    body = len(name).to_bytes(2) + name + bytes([level, flags]) + b"\x00\x3c" + rest
    return bytes([0x10, len(body)]) + body


async def read(raw: bytes) -> object:
    reader = asyncio.StreamReader()
    reader.feed_data(raw)
    reader.feed_eof()
    return await first_packet(reader)


async def test_a_connect_is_read() -> None:
    packet = await read(connect())
    assert (packet.client_id, packet.username, packet.protocol, packet.spoken) == ("dev", None, "MQTT 3.1.1", True)


async def test_what_is_handed_over_has_no_will_no_password_and_our_name() -> None:
    body = b"\x00\x04MQTT\x04\xee\x00\x3c\x00\x03dev\x00\x04v1/x\x00\x02hi\x00\x04user\x00\x04pass"
    packet = await read(bytes([0x10, len(body)]) + body)
    assert packet.username == "user"
    handed = await ConnectPacket.from_stream(BufferReader(packet.handed_over("device/1")))
    assert handed.client_id == "device/1"
    assert handed.clean_session_flag
    assert not any((handed.will_flag, handed.username_flag, handed.password_flag, handed.will_retain_flag))
    assert handed.keep_alive == 60


@pytest.mark.parametrize(
    ("level", "name", "shown", "refusal"),
    [
        (3, b"MQIsdp", "MQTT 3.1", b"\x20\x02\x00\x01"),
        (5, b"MQTT", "MQTT 5", b"\x20\x03\x00\x84\x00"),
        (9, b"MQTT", "MQTT level 9", b"\x20\x02\x00\x01"),
    ],
)
async def test_other_versions_are_named(level: int, name: bytes, shown: str, refusal: bytes) -> None:
    packet = await read(connect(level=level, name=name))
    assert (packet.protocol, packet.spoken, packet.not_spoken()) == (shown, False, refusal)


@pytest.mark.parametrize(
    "junk",
    [
        b"\x20\x02\x00\x00",
        b"\x10\x80\x80\x80\x80\x01",
        b"\x10\xff\xff\xff\x7f",
        b"\x10\x00",
        b"\x10\x01\x00",
        connect(name=b"HTTP"),
        connect(flags=0x03),
        connect(rest=b"\x00\x09dev"),
        connect(flags=0x82),
    ],
)
async def test_what_is_no_connect_is_refused(junk: bytes) -> None:
    with pytest.raises(NotMqttError):
        await read(junk)


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: connect()[:12] + tail))
def test_any_bytes_are_a_connect_or_refused(raw: bytes) -> None:
    async def attempt() -> None:
        try:
            packet = await read(raw)
            if packet.spoken:
                packet.handed_over("x")
        except (NotMqttError, asyncio.IncompleteReadError):
            pass

    asyncio.run(attempt())


@given(st.binary(min_size=1, max_size=40), st.binary(max_size=40), st.lists(st.integers(1, 9), min_size=1))
def test_a_replayed_stream_is_the_packet_then_the_rest(first: bytes, rest: bytes, sizes: list[int]) -> None:
    async def collect() -> bytes:
        stream = asyncio.StreamReader()
        stream.feed_data(rest)
        stream.feed_eof()
        reader, found = ReplayedReader(first, stream), b""
        while len(found) < len(first):
            found += await reader.read(sizes[len(found) % len(sizes)])
        return found + (await reader.read(len(rest)) if rest else b"")

    assert asyncio.run(collect()) == first + rest
