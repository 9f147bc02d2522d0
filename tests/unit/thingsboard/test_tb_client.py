"""The client when things go wrong: every failure of the wire becomes one of this package's errors."""

import asyncio
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from thingsboard import errors, rule_chain, transport
from thingsboard.client import ThingsBoardClient
from thingsboard.login import REFUSED_HOLD
from thingsboard.models import Leaf

DATA = Path(__file__).parents[2] / "data" / "thingsboard"
ID = "e0158320-e5ba-11f1-9d06-e99a25b22322"
Handler = Callable[[httpx.Request], httpx.Response]


def recorded(name: str) -> Any:
    return json.loads((DATA / f"{name}.json").read_text())


def leaf() -> Leaf:
    return Leaf.from_pem(
        recorded("device_with_credentials_create")["request"]["body"]["credentials"]["credentialsValue"]
    )


class Server:
    """Answers log-ins itself and everything else by a handler; counts what it is asked."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.asked: list[str] = []
        self.now = 0.0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path}")
        if request.url.path == "/api/auth/login":
            return httpx.Response(200, json={"token": "abc", "refreshToken": "def"})
        return self.handler(request)

    def client(self, **more: Any) -> ThingsBoardClient:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return ThingsBoardClient(http, "http://tb.example.com/", "user", "password", clock=lambda: self.now, **more)


def failing(error: type[Exception], times: int = 99) -> Server:
    def handle(request: httpx.Request) -> httpx.Response:
        if server.asked.count(f"{request.method} {request.url.path}") <= times:
            raise error("down")
        return httpx.Response(404, json={"status": 404, "errorCode": 32, "message": "not here"})

    server = Server(handle)
    return server


def answering(status: int, content: bytes | object = b"", **headers: str) -> Server:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Server(lambda _request: httpx.Response(status, content=body, headers=headers))


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (answering(403, {"errorCode": 20, "message": "You don't have permission"}), errors.PlatformMisconfigured),
        (answering(403, {"errorCode": 41, "message": "limit reached"}), errors.PlatformMisconfigured),
        (answering(429, {"errorCode": 33, "message": "Too many requests"}), errors.PlatformBusy),
        (answering(500, {"errorCode": 2, "message": "boom"}), errors.PlatformUnreachable),
        (answering(502, b"<html>Bad gateway</html>"), errors.PlatformUnreachable),
        (answering(200, b"<html>welcome</html>"), errors.PlatformBadAnswer),
        (answering(200, b""), errors.PlatformBadAnswer),
        (answering(200, b"[" * 100_000), errors.PlatformBadAnswer),
        (answering(200, b" " * (transport.MAX_ANSWER + 1)), errors.PlatformBadAnswer),
        (answering(301, b"", location="http://elsewhere.example.com"), errors.PlatformBadAnswer),
        (answering(400, {"errorCode": 30, "message": "nonsense"}), errors.PlatformRejected),
        (answering(400, "Ung\u00fcltig".encode("iso-8859-1")), errors.PlatformRejected),
        (answering(409, {"errorCode": 35, "message": "changed"}), errors.StaleVersion),
    ],
)
async def test_answers_become_errors(server: Server, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught:
        await server.client().find_device("gw-1")
    assert type(caught.value) is expected


@pytest.mark.parametrize("text", ["utf-8", "iso-8859-1"])
async def test_plain_text_is_read_in_both_charsets(text: str) -> None:
    server = answering(400, "Gerät ungültig".encode(text), **{"content-type": "text/plain;charset=ISO-8859-1"})
    with pytest.raises(errors.PlatformRejected, match="Gerät ungültig"):
        await server.client().find_device("gw-1")


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("soon", None), ("-1", None), ("", None), ("1e9", None)])
async def test_busy_says_how_long_where_it_is_told(header: str, seconds: float | None) -> None:
    server = answering(429, {"errorCode": 33}, **{"retry-after": header})
    with pytest.raises(errors.PlatformBusy) as caught:
        await server.client().find_device("gw-1")
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError, httpx.PoolTimeout])
async def test_a_lost_read_is_repeated(error: type[Exception]) -> None:
    server = failing(error, times=2)
    assert await server.client().find_device("gw-1") is None
    assert server.asked.count("GET /api/tenant/devices") == 3


@pytest.mark.parametrize(
    ("error", "tries", "surely"),
    [(httpx.ConnectError, 3, True), (httpx.ConnectTimeout, 3, True), (httpx.ReadError, 1, False)],
)
async def test_a_create_is_repeated_only_if_it_never_left(error: type[Exception], tries: int, surely: bool) -> None:
    server = failing(error)
    client = server.client()
    client._profile_id = ID
    with pytest.raises(errors.PlatformUnreachable) as caught:
        await client.create_device("gw-1", leaf())
    assert caught.value.surely_not_sent is surely
    assert isinstance(caught.value.__cause__, error)
    assert server.asked.count("POST /api/device-with-credentials") == tries


@pytest.mark.parametrize("error", [httpx.ReadTimeout, httpx.WriteTimeout])
async def test_a_timeout_is_not_repeated(error: type[Exception]) -> None:
    server = failing(error)
    with pytest.raises(errors.PlatformUnreachable, match="THINGSBOARD_URL"):
        await server.client().find_device("gw-1")
    assert server.asked.count("GET /api/tenant/devices") == 1


def test_every_error_of_httpx_is_mapped() -> None:
    for kind in vars(httpx).values():
        if inspect.isclass(kind) and issubclass(kind, Exception) and kind.__module__ == "httpx":
            programming = {httpx.InvalidURL, httpx.CookieConflict}
            assert issubclass(kind, httpx.HTTPError | httpx.StreamError) or kind in programming, kind


async def test_a_call_ends_in_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(transport, "TOTAL_TIMEOUT", 0.05)
    http = httpx.AsyncClient(transport=httpx.MockTransport(never))
    client = ThingsBoardClient(http, "http://tb.example.com", "user", "password")
    with pytest.raises(errors.PlatformUnreachable, match="took more than"):
        await asyncio.gather(client.find_device("a"), client.find_device("b"))


async def test_refused_password_is_held_back_then_tried_again() -> None:
    now, asked = [100.0], []

    def refuse(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(401, json={"errorCode": 10, "message": "Invalid username or password"})

    http = httpx.AsyncClient(transport=httpx.MockTransport(refuse))
    client = ThingsBoardClient(http, "http://tb.example.com", "user", "password", clock=lambda: now[0])

    async def attempts(number: int) -> int:
        asked.clear()
        for _ in range(number):
            with pytest.raises(errors.PlatformRefused, match="THINGSBOARD_PASSWORD"):
                await client.find_device("gw-1")
        return len(asked)

    assert await attempts(5) == 1
    now[0] += REFUSED_HOLD - 0.1
    assert await attempts(5) == 0
    now[0] += 0.1
    assert await attempts(5) == 1


async def test_refused_refresh_falls_back_to_the_password() -> None:
    valid = ["first"]
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if request.url.path == "/api/auth/token":
            told = recorded("auth_refresh_garbage_401")["response"]
            return httpx.Response(told["status"], json=told["body"])
        if request.url.path == "/api/auth/login":
            return httpx.Response(200, json={"token": valid[0], "refreshToken": "refresh"})
        if request.headers["x-authorization"] != f"Bearer {valid[0]}":
            return httpx.Response(401, json={"errorCode": 11, "message": "Token has expired"})
        return httpx.Response(404, json={"errorCode": 32})

    client = ThingsBoardClient(
        httpx.AsyncClient(transport=httpx.MockTransport(handle)), "http://tb.example.com", "user", "password"
    )
    await client.find_device("gw-1")
    valid[0] = "second"
    asked.clear()
    await asyncio.gather(*(client.find_device("gw-1") for _ in range(5)))
    assert asked.count("/api/auth/login") == asked.count("/api/auth/token") == 1


@pytest.mark.parametrize("token", [None, "", 7, "a b", "x\r\nX-Evil: 1", "ü"])
async def test_a_log_in_without_usable_token_is_a_bad_answer(token: object) -> None:
    handler = httpx.MockTransport(lambda _request: httpx.Response(200, json={"token": token}))
    client = ThingsBoardClient(httpx.AsyncClient(transport=handler), "http://tb.example.com", "user", "password")
    with pytest.raises(errors.PlatformBadAnswer, match="token"):
        await client.check()


async def test_other_stored_credentials_than_sent_are_a_mismatch() -> None:
    made = recorded("device_with_credentials_create")["response"]["body"]
    other = {**recorded("device_credentials_get")["response"]["body"], "credentialsId": "0" * 64}

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, json=other if "credentials" in request.url.path[-12:] and request.method == "GET" else made
        )

    client = Server(handle).client()
    client._profile_id = ID
    with pytest.raises(errors.CredentialsMismatch):
        await client.create_device("dev-0001", leaf())
    stored_by_others = Server(lambda _request: httpx.Response(200, json=other)).client()
    stored = await stored_by_others.credentials(ID)
    with pytest.raises(errors.CredentialsMismatch):
        await stored_by_others.replace_by_leaf(stored, leaf())
    with pytest.raises(errors.CredentialsMismatch):
        await stored_by_others.replace_by_tombstone(stored)


async def test_a_409_for_the_name_is_a_duplicate_too() -> None:
    client = answering(409, {"errorCode": 31, "message": "Device with such name already exists!"}).client()
    client._profile_id = ID
    with pytest.raises(errors.DeviceExists):
        await client.create_device("gw-1", leaf())


@pytest.mark.parametrize(
    "content", [{}, [], {"data": [{}]}, {"data": [{"root": True, "id": {}}]}, {"data": [7]}, {"data": []}]
)
async def test_rule_chains_of_unknown_form_are_this_packages_errors(content: object) -> None:
    client = answering(200, content).client()
    with pytest.raises(errors.PlatformError):
        await rule_chain.install(client, rule_chain.Endpoint("https://bridge.example.com", "s"))


@pytest.mark.parametrize(("url", "secret"), [("ftp://x", "s"), ("https://x/${deviceName}", "s"), ("https://x", "$[a]")])
def test_an_endpoint_holds_no_patterns(url: str, secret: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        rule_chain.Endpoint(url, secret)


def test_the_chains_nodes_have_the_recorded_form() -> None:
    told = recorded("rulechain_metadata_post_checkpoint_highpriority")["request"]["body"]
    ours = rule_chain.chain_nodes(rule_chain.Endpoint("http://127.0.0.1:9099/env", "hook-secret"))
    for node in told["nodes"]:
        for field in ("queueName", "singletonMode", "debugSettings"):
            if node.get(field) in (None, False):
                node.pop(field, None)
    told["nodes"][3]["configuration"]["headers"] = {
        "Content-Type": "application/json",
        "X-Bridge-Webhook-Secret": "hook-secret",
    }
    assert ours == told["nodes"]
    assert rule_chain.chain_connections() == told["connections"]


def test_https_needs_the_root_in_the_node() -> None:
    node = rule_chain.chain_nodes(rule_chain.Endpoint("https://bridge.example.com/w", "s", "PEM"))[3]
    assert node["configuration"]["credentials"] == {"type": "cert.PEM", "caCert": "PEM"}
    assert node["configuration"]["readTimeoutMs"] > 0
    assert "'s'" not in repr(rule_chain.Endpoint("https://bridge.example.com/w", "s"))
