"""The connect event: what the stand-in posts is what ThingsBoard was recorded to post, with its losses."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from thingsboard.client import ThingsBoardClient
from thingsboard.models import ConnectEvent
from thingsboard.standin import EmbeddedThingsBoard, Webhook
from thingsboard.standin_rest_node import CONNECTIONS, WAITING, RestNode
from thingsboard.webhook import parse_event

RECORDED = Path(__file__).parents[2] / "data" / "thingsboard" / "webhook_connect_envelope.json"
URL = "https://bridge.example.com/webhooks/thingsboard"


class Bridge:
    """A webhook that keeps what it gets and answers as told."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[httpx.Request] = asyncio.Queue()
        self.status = 202
        self.held = asyncio.Event()
        self.held.set()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await self.got.put(request)
        await self.held.wait()
        return httpx.Response(self.status)

    async def next(self) -> httpx.Request:
        return await asyncio.wait_for(self.got.get(), 10)


@pytest.fixture
async def bridge(board: EmbeddedThingsBoard) -> AsyncIterator[Bridge]:
    made = Bridge()
    async with httpx.AsyncClient(transport=httpx.MockTransport(made)) as http:
        board.point_webhook(Webhook(URL, "hook secret", http))
        yield made


async def test_event_has_the_recorded_form(
    board: EmbeddedThingsBoard, bridge: Bridge, client: ThingsBoardClient, tls: Any, device: Callable[..., Any]
) -> None:
    files = tls.leaf("gw-0001")
    made = await client.create_device("gw-0001", files.leaf)
    began = datetime.now(UTC)
    assert await device(files).connect(board.mqtt_port) == 0
    request = await bridge.next()

    told = json.loads(RECORDED.read_text())["request"]["body"]
    sent = json.loads(request.content)
    connected = sent["state"].pop("lastConnectTime")
    told["state"].pop("lastConnectTime")
    assert sent == told
    assert list(sent) == list(told)
    assert str(request.url) == URL
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-bridge-webhook-secret"] == "hook secret"
    event = parse_event(request.content, request.headers)
    assert isinstance(event, ConnectEvent)
    assert event.device_name == "gw-0001"
    assert event.last_connect is not None
    assert event.last_connect.timestamp() >= began.timestamp() - 1
    assert connected == (await client.attributes(made.id)).values["lastConnectTime"]
    assert b" " not in request.content, "compact, as recorded"


async def test_event_reaches_an_https_webhook_under_the_same_root(
    board: EmbeddedThingsBoard, client: ThingsBoardClient, tls: Any, device: Callable[..., Any]
) -> None:
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def accept(request: Request) -> Response:
        got.put_nowait(await request.body())
        return Response(status_code=202)

    config = uvicorn.Config(
        Starlette(routes=[Route("/hook", accept, methods=["POST"])]),
        port=0,
        log_config=None,
        lifespan="off",
        ws="none",
        ssl_certfile=tls.server_cert,
        ssl_keyfile=tls.server_key,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"https://localhost:{listener.getsockname()[1]}/hook"
    serving = asyncio.create_task(server._serve([listener]))
    context = ssl.create_default_context(cafile=str(tls.root_file))
    files = tls.leaf("gw-1")
    await client.create_device("gw-1", files.leaf)
    async with httpx.AsyncClient(verify=context) as http:
        board.point_webhook(Webhook(url, "s", http))
        assert await device(files).connect(board.mqtt_port) == 0
        event = parse_event(await asyncio.wait_for(got.get(), 10), {})
    assert isinstance(event, ConnectEvent)
    assert event.device_name == "gw-1"
    async with httpx.AsyncClient(verify=ssl.create_default_context()) as stranger:
        board.point_webhook(Webhook(url, "s", stranger))
        assert await device(files).connect(board.mqtt_port) == 0
        async with asyncio.timeout(10):
            while not board.events_lost:  # noqa: ASYNC110 - a counter
                await asyncio.sleep(0)
    assert got.empty()
    server.should_exit = True
    await serving


async def test_every_connect_is_one_event(
    board: EmbeddedThingsBoard, bridge: Bridge, client: ThingsBoardClient, tls: Any, device: Callable[..., Any]
) -> None:
    files = tls.leaf("gw-1")
    await client.create_device("gw-1", files.leaf)
    first, second = device(files), device(files)
    await first.connect(board.mqtt_port)
    await second.connect(board.mqtt_port)
    await second.stop()
    await device(files).connect(board.mqtt_port)
    for _ in range(3):
        await bridge.next()
    assert await device(tls.leaf("unknown")).connect(board.mqtt_port) == 135
    assert bridge.got.empty()


async def test_an_event_that_fails_is_lost(
    board: EmbeddedThingsBoard, bridge: Bridge, client: ThingsBoardClient, tls: Any, device: Callable[..., Any]
) -> None:
    bridge.status = 500
    files = tls.leaf("gw-1")
    await client.create_device("gw-1", files.leaf)
    assert await device(files).connect(board.mqtt_port) == 0
    await bridge.next()
    assert await device(files).connect(board.mqtt_port) == 0
    await bridge.next()
    async with asyncio.timeout(10):
        while board.events_lost < 2:  # noqa: ASYNC110 - a counter
            await asyncio.sleep(0)
    assert bridge.got.empty()
    assert board.events_delivered == 0


async def test_a_slow_endpoint_loses_what_does_not_fit() -> None:
    bridge = Bridge()
    bridge.held.clear()
    async with httpx.AsyncClient(transport=httpx.MockTransport(bridge)) as http:
        node = RestNode(Webhook(URL, "s", http))
        for number in range(CONNECTIONS + WAITING + 5):
            node.offer({"number": number})
        for _ in range(CONNECTIONS):
            await bridge.next()
        assert bridge.got.empty()
        assert node.lost == 5
        bridge.held.set()
        for _ in range(WAITING):
            await bridge.next()
        await node.stop()


async def test_a_closed_client_is_a_lost_event_not_a_crash() -> None:
    http = httpx.AsyncClient()
    await http.aclose()
    node = RestNode(Webhook("http://127.0.0.1:9/", "s", http))
    node.offer({})
    async with asyncio.timeout(10):
        while not node.lost:  # noqa: ASYNC110 - a counter
            await asyncio.sleep(0)
    await node.stop()
