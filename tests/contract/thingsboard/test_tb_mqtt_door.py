"""The MQTT door, with paho and real certificates: who gets in, who is thrown out, and what is remembered."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import paho.mqtt.client as mqtt
import pytest
import trustme

from thingsboard.client import ThingsBoardClient
from thingsboard.standin import EmbeddedThingsBoard

NOT_AUTHORIZED = 135
Make = Callable[..., Any]


async def test_a_registered_leaf_is_admitted_and_seen(
    board: EmbeddedThingsBoard, client: ThingsBoardClient, tls: Any, device: Make
) -> None:
    files = tls.leaf("gw-1")
    made = await client.create_device("gw-1", files.leaf)
    assert not (await client.attributes(made.id)).active

    assert await device(files, client_id="any name").connect(board.mqtt_port) == 0

    seen = board.last_connect("gw-1")
    assert seen is not None
    assert (seen.client_id, seen.protocol, seen.subject_cn) == ("any name", "MQTT 3.1.1", "gw-1")
    kept = await client.attributes(made.id)
    assert kept.active
    assert kept.last_connect is not None
    assert abs(kept.last_connect - seen.at) < timedelta(seconds=1)
    assert kept.values["lastConnectSeen"]["subjectCn"] == "gw-1"


async def test_the_leaf_counts_not_its_name(
    board: EmbeddedThingsBoard, client: ThingsBoardClient, tls: Any, device: Make
) -> None:
    files = tls.leaf("another name")
    await client.create_device("gw-1", files.leaf)
    assert await device(files).connect(board.mqtt_port) == 0
    assert board.last_connect("gw-1") is not None


@pytest.mark.parametrize("protocol", [mqtt.MQTTv311, mqtt.MQTTv5])
async def test_unknown_leaf_is_refused_at_connack(
    board: EmbeddedThingsBoard, client: ThingsBoardClient, tls: Any, device: Make, protocol: int
) -> None:
    await client.create_device("gw-1", tls.leaf("gw-1").leaf)
    impostor = device(tls.leaf("gw-1"), protocol=protocol)
    assert await impostor.connect(board.mqtt_port) == NOT_AUTHORIZED
    await impostor.wait_closed()
    assert board.last_connect("gw-1") is None


@pytest.mark.parametrize(("begins", "ends"), [(-48, -1), (1, 48)], ids=["expired", "not yet valid"])
async def test_leaf_out_of_its_dates_is_refused_at_connack(
    board: EmbeddedThingsBoard, client: ThingsBoardClient, tls: Any, device: Make, begins: int, ends: int
) -> None:
    now = datetime.now(UTC)
    files = tls.leaf("gw-1", not_before=now + timedelta(hours=begins), not_after=now + timedelta(hours=ends))
    await client.create_device("gw-1", files.leaf)
    assert await device(files).connect(board.mqtt_port) == NOT_AUTHORIZED


async def test_no_certificate_is_refused_at_connack(board: EmbeddedThingsBoard, tls: Any, device: Make) -> None:
    files = tls.leaf("gw-1")
    files.context = lambda: ssl.create_default_context(cafile=str(tls.root_file))
    assert await device(files).connect(board.mqtt_port) == NOT_AUTHORIZED


async def test_certificate_of_another_root_does_not_get_through_tls(
    board: EmbeddedThingsBoard, client: ThingsBoardClient, tls: Any, device: Make
) -> None:
    files = tls.leaf("gw-1", ca=trustme.CA())
    await client.create_device("gw-1", files.leaf)
    stranger = device(files)
    connecting = asyncio.create_task(stranger.connect(board.mqtt_port))
    await asyncio.wait([connecting, stranger.closed], return_when=asyncio.FIRST_COMPLETED)
    assert not stranger.connack.done()
    connecting.cancel()
    with pytest.raises((asyncio.CancelledError, OSError)):
        await connecting
    assert board.last_connect("gw-1") is None


async def test_a_leaf_without_its_chain_enters_where_the_issuing_ca_is_given(
    build: Callable[..., EmbeddedThingsBoard], http: httpx.AsyncClient, tls: Any, device: Make
) -> None:
    files = tls.leaf("gw-1")
    files.cert_file.write_text(files.leaf.pem)
    async with build(client_ca=tls.root_pem + tls.issuing.cert_pem.bytes().decode()) as board:
        client = ThingsBoardClient(http, board.rest_url, "tenant@thingsboard.org", "right password")
        await client.create_device("gw-1", files.leaf)
        assert await device(files).connect(board.mqtt_port) == 0


async def test_mqtt_5_is_answered_with_unsupported_version(
    board: EmbeddedThingsBoard, client: ThingsBoardClient, tls: Any, device: Make
) -> None:
    files = tls.leaf("gw-1")
    await client.create_device("gw-1", files.leaf)
    assert await device(files, protocol=mqtt.MQTTv5).connect(board.mqtt_port) == 0x84


async def test_second_connect_closes_the_first_whatever_the_client_ids(
    board: EmbeddedThingsBoard, client: ThingsBoardClient, tls: Any, device: Make
) -> None:
    files = tls.leaf("gw-1")
    await client.create_device("gw-1", files.leaf)
    first, second = device(files, client_id="a"), device(files, client_id="b")
    assert await first.connect(board.mqtt_port) == 0
    assert await second.connect(board.mqtt_port) == 0
    await first.wait_closed()
    assert not second.closed.done()


async def test_naming_another_devices_client_id_does_not_disturb_it(
    board: EmbeddedThingsBoard, client: ThingsBoardClient, tls: Any, device: Make
) -> None:
    good, evil = tls.leaf("good"), tls.leaf("evil")
    await client.create_device("good", good.leaf)
    await client.create_device("evil", evil.leaf)
    victim = device(good, client_id="same")
    assert await victim.connect(board.mqtt_port) == 0
    assert await device(evil, client_id="same").connect(board.mqtt_port) == 0
    assert await device(tls.leaf("unknown"), client_id="same").connect(board.mqtt_port) == NOT_AUTHORIZED
    victim.client.subscribe("v1/devices/me/attributes", 1)
    assert await asyncio.wait_for(victim.subscribed, 10) == [1]
    assert not victim.closed.done()


async def test_devices_do_not_hear_each_other(
    board: EmbeddedThingsBoard, client: ThingsBoardClient, tls: Any, device: Make
) -> None:
    good, evil = tls.leaf("good"), tls.leaf("evil")
    await client.create_device("good", good.leaf)
    await client.create_device("evil", evil.leaf)
    listener, talker = device(good), device(evil)
    await listener.connect(board.mqtt_port)
    listener.client.subscribe([("v1/devices/me/telemetry", 1), ("#", 1), ("other/topic", 1)])
    assert await asyncio.wait_for(listener.subscribed, 10) == [1, 128, 128]
    talker.client.will_set("v1/devices/me/telemetry", b"my last words", 1)
    await talker.connect(board.mqtt_port)
    await asyncio.to_thread(talker.client.publish("v1/devices/me/telemetry", b"{}", 1).wait_for_publish, 10)
    found = await client.find_device("evil")
    assert found is not None
    await client.delete_device(found.id)
    await talker.wait_closed()
    assert not listener.messages


@pytest.mark.parametrize("act", ["same leaf", "new leaf", "tombstone", "delete"])
async def test_whatever_touches_the_credential_closes_the_session(
    board: EmbeddedThingsBoard, client: ThingsBoardClient, tls: Any, device: Make, act: str
) -> None:
    old, new = tls.leaf("gw-1"), tls.leaf("gw-1")
    made = await client.create_device("gw-1", old.leaf)
    stored = await client.credentials(made.id)
    live = device(old)
    assert await live.connect(board.mqtt_port) == 0
    match act:
        case "same leaf":
            await client.replace_by_leaf(stored, old.leaf)
        case "new leaf":
            await client.replace_by_leaf(stored, new.leaf)
        case "tombstone":
            await client.replace_by_tombstone(stored)
        case _:
            await client.delete_device(made.id)
    await live.wait_closed()
    again = await device(old).connect(board.mqtt_port)
    assert again == (0 if act == "same leaf" else NOT_AUTHORIZED)
    if act == "new leaf":
        assert await device(new).connect(board.mqtt_port) == 0


async def test_attributes_and_label_do_not_disturb_the_session(
    board: EmbeddedThingsBoard, client: ThingsBoardClient, tls: Any, device: Make
) -> None:
    files = tls.leaf("gw-1")
    made = await client.create_device("gw-1", files.leaf)
    live = device(files)
    assert await live.connect(board.mqtt_port) == 0
    await client.write_attributes(made.id, {"vpn_address": "10.8.0.2"})
    await client.request("POST", "/api/device", {"id": {"id": made.id}, "name": "gw-1", "label": "new"})
    live.client.subscribe("v1/devices/me/attributes")
    await asyncio.wait_for(live.subscribed, 10)
    assert not live.closed.done()


async def test_disconnect_is_noted(
    board: EmbeddedThingsBoard, client: ThingsBoardClient, tls: Any, device: Make
) -> None:
    files = tls.leaf("gw-1")
    made = await client.create_device("gw-1", files.leaf)
    live = device(files)
    await live.connect(board.mqtt_port)
    assert (await client.attributes(made.id)).last_disconnect is None
    await live.stop()
    async with asyncio.timeout(10):
        while (kept := await client.attributes(made.id)).last_disconnect is None:  # noqa: ASYNC110 - read as the bridge reads it
            await asyncio.sleep(0.01)
    assert kept.active, "ThingsBoard calls a device inactive only after its time-out"


async def test_renewed_server_certificate_is_shown_to_the_next_handshake(
    board: EmbeddedThingsBoard, client: ThingsBoardClient, tls: Any, device: Make
) -> None:
    files = tls.leaf("gw-1")
    await client.create_device("gw-1", files.leaf)
    live = device(files)
    await live.connect(board.mqtt_port)
    before = await asyncio.to_thread(_shown, board.mqtt_port)
    tls.new_server_certificate()
    board.reload_certificate()
    assert await asyncio.to_thread(_shown, board.mqtt_port) != before
    assert not live.closed.done()


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close and wait until it is closed: a connection left to the garbage collector fails some later test."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x10\xff\xff\xff\xff\xff",
        b"\x10\xff\xff\xff\x7f",
        b"\x10\x02\x00\x09",
        b"",
        b"\x10",
    ],
)
async def test_what_is_not_mqtt_is_closed_without_an_answer(board: EmbeddedThingsBoard, tls: Any, junk: bytes) -> None:
    context = ssl.create_default_context(cafile=str(tls.root_file))
    reader, writer = await asyncio.open_connection("localhost", board.mqtt_port, ssl=context)
    writer.write(junk)
    if len(junk) < 2:
        writer.transport.abort()
    else:
        assert await asyncio.wait_for(reader.read(), 10) == b""
    await hang_up(writer)


async def test_junk_after_connect_ends_that_session_alone(
    board: EmbeddedThingsBoard,
    client: ThingsBoardClient,
    tls: Any,
    device: Make,
    caplog: pytest.LogCaptureFixture,
) -> None:
    good, evil = tls.leaf("good"), tls.leaf("evil")
    await client.create_device("good", good.leaf)
    await client.create_device("evil", evil.leaf)
    live = device(good)
    assert await live.connect(board.mqtt_port) == 0
    for junk in (
        b"\x00\x00",
        b"\xff" * 64,
        b"\x30\x05\x00\xffab",
        b"\x82\x02\x00\x01",
        b"\x10\x00",
        b"\x32\x03\x00\x01#",
    ):
        reader, writer = await asyncio.open_connection("localhost", board.mqtt_port, ssl=evil.context())
        writer.write(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04evil")
        assert await asyncio.wait_for(reader.readexactly(4), 10) == b"\x20\x02\x00\x00"
        writer.write(junk)
        writer.write_eof() if writer.can_write_eof() else writer.close()
        with contextlib.suppress(OSError):  # what was on its way when we hung up
            await asyncio.wait_for(reader.read(), 10)
        await hang_up(writer)
    live.client.subscribe("v1/devices/me/attributes")
    await asyncio.wait_for(live.subscribed, 10)
    assert not live.closed.done()
    assert "never retrieved" not in caplog.text


async def test_stop_does_not_wait_for_silent_clients(build: Callable[..., EmbeddedThingsBoard], tls: Any) -> None:
    board = build()
    await board.start()
    context = ssl.create_default_context(cafile=str(tls.root_file))
    reader, writer = await asyncio.open_connection("localhost", board.mqtt_port, ssl=context)
    await asyncio.wait_for(board.stop(), 5)
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 5) == b""
    await hang_up(writer)


async def test_an_access_token_is_a_user_name(
    board: EmbeddedThingsBoard, client: ThingsBoardClient, tls: Any, device: Make
) -> None:
    made = await client.request("POST", "/api/device", {"name": "old"})
    token = (await client.credentials(made["id"]["id"])).credentials_id
    files = tls.leaf("old")
    files.context = lambda: ssl.create_default_context(cafile=str(tls.root_file))
    for name, expected in ((token, 0), (token[:-1], NOT_AUTHORIZED)):
        one = device(files)
        one.client.username_pw_set(name)
        assert await one.connect(board.mqtt_port) == expected


def _shown(port: int) -> str:
    return ssl.get_server_certificate(("localhost", port))
