"""Every way a server can be wrong, slow, or not there; over real sockets where the socket matters."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trustme

import hawkbit.errors
from hawkbit.client import HawkbitClient
from hawkbit.errors import (
    ConcurrentChange,
    HawkbitBadAnswer,
    HawkbitBusy,
    HawkbitError,
    HawkbitForbidden,
    HawkbitMisconfigured,
    HawkbitRefused,
    HawkbitUnreachable,
    TargetExists,
)
from hawkbit.transport import Limits, Reply, judge

TARGET = {"controllerId": "d", "name": "d", "createdBy": "u", "createdAt": 1, "updateStatus": "unknown"}
QUICK = Limits(attempt=0.2, total=0.3)


class Waits:
    """Stands in for sleeping; remembers how long it would have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


class Script:
    """Answers requests in turn; the last answer again and again."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, content=answer.content, headers=answer.headers)


@asynccontextmanager
async def talking_to(script: Script, limits: Limits | None = None) -> AsyncIterator[tuple[HawkbitClient, Waits]]:
    waits = Waits()
    async with httpx.AsyncClient(transport=httpx.MockTransport(script)) as http:
        yield HawkbitClient(http, "http://hawkbit/prefix/", "user", "pass", limits=limits, sleep=waits), waits


def refusal(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"errorCode": f"hawkbit.server.error.{code}", "message": "private"})


async def test_a_passing_trouble_passes_unseen_by_the_caller() -> None:
    script = Script(
        httpx.ConnectError("no"), httpx.Response(429), httpx.Response(503), httpx.Response(200, json=TARGET)
    )
    async with talking_to(script) as (client, waits):
        assert await client.find_target("d") is not None
    assert len(script.requests) == 4
    assert waits.seconds == sorted(waits.seconds)
    assert all(0 < seconds <= 2.25 for seconds in waits.seconds)


async def test_patience_ends() -> None:
    script = Script(httpx.Response(429))
    async with talking_to(script) as (client, waits):
        with pytest.raises(HawkbitBusy, match="flood filter") as busy:
            await client.find_target("d")
    assert busy.value.nothing_done
    assert (len(script.requests), len(waits.seconds)) == (4, 3)


@pytest.mark.parametrize("trouble", [httpx.ReadTimeout("slow"), httpx.ReadError("cut"), httpx.Response(502)])
async def test_a_create_that_may_have_arrived_is_not_repeated(trouble: httpx.Response | Exception) -> None:
    script = Script(trouble)
    async with talking_to(script) as (client, _):
        with pytest.raises(HawkbitUnreachable) as unknown:
            await client.create_target("d")
    assert not unknown.value.nothing_done
    assert len(script.requests) == 1


@pytest.mark.parametrize("trouble", [httpx.ConnectError("no"), httpx.ConnectTimeout("no"), httpx.Response(429)])
async def test_a_create_that_surely_did_not_arrive_is_repeated(trouble: httpx.Response | Exception) -> None:
    script = Script(trouble, httpx.Response(201, json=[TARGET]))
    async with talking_to(script) as (client, _):
        assert (await client.create_target("d")).controller_id == "d"
    assert len(script.requests) == 2


async def test_a_change_lost_to_another_writer_is_repeated() -> None:
    script = Script(refusal(409, "repo.concurrentModification"), httpx.Response(200, json=TARGET))
    async with talking_to(script) as (client, _):
        await client.update_target("d", name="n")
    assert len(script.requests) == 2
    with pytest.raises(ConcurrentChange):
        judge(Reply(409, json.dumps({"errorCode": "x.repo.concurrentModification"}).encode()), "PUT")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(404, text="<html>not found</html>"), HawkbitMisconfigured),
        (httpx.Response(404, json={"status": 404}), HawkbitMisconfigured),
        (httpx.Response(404, json=[]), HawkbitMisconfigured),
        (httpx.Response(404, json={"errorCode": 7}), HawkbitMisconfigured),
        (httpx.Response(302, headers={"Location": "http://elsewhere/"}), HawkbitMisconfigured),
        (httpx.Response(415, json={"status": 415}), HawkbitMisconfigured),
        (httpx.Response(403, text="proxy says no"), HawkbitForbidden),
        (httpx.Response(400), HawkbitRefused),
        (httpx.Response(200, text="<html>welcome</html>"), HawkbitBadAnswer),
        (httpx.Response(200, text="[" * 100_000), HawkbitBadAnswer),
        (httpx.Response(200, json=[]), HawkbitBadAnswer),
        (httpx.Response(200, json={**TARGET, "controllerId": "D"}), HawkbitBadAnswer),
        (httpx.Response(200), HawkbitBadAnswer),
        (httpx.Response(500), HawkbitUnreachable),
    ],
)
async def test_a_wrong_answer_is_never_a_missing_target(answer: httpx.Response, error: type[HawkbitError]) -> None:
    async with talking_to(Script(answer)) as (client, _):
        with pytest.raises(HawkbitError) as raised:
            await client.find_target("d")
    assert type(raised.value) is error


async def test_only_hawkbits_own_404_counts_as_deleted() -> None:
    async with talking_to(Script(httpx.Response(404, text="nginx"))) as (client, _):
        with pytest.raises(HawkbitMisconfigured):
            await client.delete_target("d")
    for code in ("repo.entitiyNotFound", "repo.entityNotFound"):
        async with talking_to(Script(refusal(404, code))) as (client, _):
            assert await client.delete_target("d") is False


@pytest.mark.parametrize("code", ["repo.entitiyAlreayExists", "repo.entityAlreadyExists"])
async def test_both_spellings_of_a_conflict(code: str) -> None:
    async with talking_to(Script(refusal(409, code))) as (client, _):
        with pytest.raises(TargetExists) as conflict:
            await client.create_target("d")
    assert conflict.value.code == f"hawkbit.server.error.{code}"
    assert "private" not in str(conflict.value)


async def test_what_is_sent() -> None:
    script = Script(httpx.Response(201, json=[TARGET]))
    async with talking_to(script) as (client, _):
        await client.create_target("d", description="iot-bridge:1")
    (request,) = script.requests
    assert str(request.url) == "http://hawkbit/prefix/rest/v1/targets"
    assert json.loads(request.content) == [{"controllerId": "d", "name": "d", "description": "iot-bridge:1"}]
    assert request.headers["Accept"] == request.headers["Content-Type"] == "application/json"
    assert request.headers["Authorization"].startswith("Basic ")


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_an_empty_success_is_read_back(status: int) -> None:
    found = httpx.Response(200, json=TARGET)
    async with talking_to(Script(httpx.Response(status), found)) as (client, _):
        assert (await client.create_target("d")).controller_id == "d"
    async with talking_to(Script(httpx.Response(status), found)) as (client, _):
        assert (await client.update_target("d", name="d")).controller_id == "d"
    gone = refusal(404, "repo.entityNotFound")
    async with talking_to(Script(httpx.Response(status), gone)) as (client, _):
        with pytest.raises(HawkbitBadAnswer):
            await client.create_target("d")


async def test_metadata_falls_back_in_the_order_that_works_everywhere() -> None:
    missing, conflict = refusal(404, "repo.entitiyNotFound"), refusal(409, "repo.entitiyAlreayExists")
    script = Script(missing, conflict, httpx.Response(200, json={}))
    async with talking_to(script) as (client, _):
        await client.set_metadata("d", "k", "v")
    assert [request.method for request in script.requests] == ["PUT", "POST", "PUT"]
    assert json.loads(script.requests[1].content) == [{"key": "k", "value": "v"}]


async def test_pages_end_even_if_the_total_lies() -> None:
    pages = [httpx.Response(200, json={"content": [TARGET], "total": 10**6})] * 2
    async with talking_to(Script(*pages, httpx.Response(200, json={"content": [], "total": 10**6}))) as (client, _):
        assert [target.controller_id async for target in client.list_targets(page_size=1)] == ["d"]


@pytest.mark.parametrize("size", [0, 501])
async def test_a_page_size_that_hawkbit_would_change_is_refused(size: int) -> None:
    async with talking_to(Script(httpx.Response(500))) as (client, _):
        with pytest.raises(ValueError, match="1 to 500"):
            await anext(client.list_targets(page_size=size))


@pytest.mark.parametrize(
    "url", ["", "hawkbit:8080", "ftp://h", "http://", "http://u:p@h", "http://h?q=1", "http://h#f"]
)
def test_what_cannot_be_a_base_url(url: str) -> None:
    with pytest.raises(HawkbitMisconfigured, match="HAWKBIT_URL"):
        HawkbitClient(httpx.AsyncClient(), url, "u", "p")


@pytest.mark.parametrize(
    "wrong", [{"attempt": 0}, {"attempt": 9, "total": 8}, {"attempts": 0}, {"body": 0}, {"first_wait": 3}]
)
def test_limits_that_limit_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="limits"):
        Limits(**wrong)


def test_every_error_of_the_package_is_of_the_family() -> None:
    kinds = [kind for kind in vars(hawkbit.errors).values() if isinstance(kind, type)]
    assert len(kinds) > 10
    assert all(issubclass(kind, HawkbitError) for kind in kinds)


# --- over real sockets -----------------------------------------------------------------------------------

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@asynccontextmanager
async def server(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def ask(port: int, limits: Limits, scheme: str = "http", verify: ssl.SSLContext | bool = True) -> None:
    async with httpx.AsyncClient(verify=verify) as http:
        client = HawkbitClient(http, f"{scheme}://127.0.0.1:{port}", "u", "p", limits=limits, sleep=Waits())
        await client.find_target("d")


async def test_an_endless_answer_is_cut_at_the_limit() -> None:
    async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while True:
            writer.write(b"[" * 65536)
            await writer.drain()

    async with server(endless) as port:
        with pytest.raises(HawkbitBadAnswer, match="larger than"):
            await ask(port, Limits(body=100_000))


async def test_a_drop_at_a_time_does_not_outlast_the_total() -> None:
    async def dripping(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with server(dripping) as port:
        started = asyncio.get_running_loop().time()
        with pytest.raises(HawkbitUnreachable):
            await ask(port, QUICK)
        assert asyncio.get_running_loop().time() - started < 2


async def test_a_server_that_only_hangs_up_is_unreachable() -> None:
    async def rude(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readline()

    async with server(rude) as port:
        with pytest.raises(HawkbitUnreachable):
            await ask(port, Limits())
    with pytest.raises(HawkbitUnreachable, match="is it running") as refused:
        await ask(port, Limits())
    assert refused.value.nothing_done


async def test_an_untrusted_certificate_is_for_the_operator() -> None:
    async def never(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        raise AssertionError("nothing may be sent")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    trusting_another = ssl.create_default_context()
    trustme.CA().configure_trust(trusting_another)
    async with server(never, context) as port:
        with pytest.raises(HawkbitMisconfigured, match="certificate"):
            await ask(port, Limits(), "https", trusting_another)
