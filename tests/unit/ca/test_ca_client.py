"""The client against hostile servers on real sockets: what it says, what it repeats, and what it never does."""

import asyncio
import socket
from datetime import timedelta
from typing import Any

import httpx
import pytest
from httpx_aiohttp import AiohttpTransport

from ca.bootstrap import context_for_root
from ca.client import StepCaClient, checked_url
from ca.errors import CaBadAnswer, CaError, CaMisconfigured, CaRefused, CaUnreachable

DAY = timedelta(days=1)


@pytest.fixture(params=["httpx", "aiohttp"])
async def either(request: pytest.FixtureRequest, hierarchy: Any) -> Any:
    """The client's two transports: httpx's own, and aiohttp's, which the hot path uses."""
    tls = context_for_root(hierarchy.anchor)
    transport = AiohttpTransport(verify=tls) if request.param == "aiohttp" else None
    async with httpx.AsyncClient(verify=tls, transport=transport) as client:
        yield client


async def sign(client: StepCaClient) -> Any:
    return await client.sign("csr", "ott", DAY)


@pytest.mark.parametrize(
    ("status", "body", "kind", "failed"),
    [
        (500, {"status": 500, "message": "x"}, "application/json", "status"),
        (500, "<html>broken</html>", "text/html", "status"),
        (502, "<html>bad gateway</html>", "text/html", "status"),
        (302, "", "text/html", "status"),
        (200, "<html>hello</html>", "text/html", "json"),
        (201, "<html>hello</html>", "text/html", "json"),
        (404, "<html>not here</html>", "text/html", "json"),
        (403, {"no": "message"}, "application/json", "json"),
        (201, [], "application/json", "json"),
        (201, {}, "application/json", "json"),
        (201, {"certChain": "x"}, "application/json", "json"),
        (201, {"certChain": []}, "application/json", "json"),
        (201, {"certChain": ["leaf alone"]}, "application/json", "json"),
        (201, {"certChain": ["leaf", 5]}, "application/json", "pem"),
        (201, {"certChain": ["x"] * 100}, "application/json", "json"),
        (201, "[" * 100_000, "application/json", "json"),
        (201, b"\xff\xfe\x00", "application/json", "json"),
        (201, "x" * (2 << 20), "application/json", "size"),
    ],
)
async def test_attack_nonsense_instead_of_a_certificate(
    hostile: Any, answer_with: Any, either: Any, status: int, body: Any, kind: str, failed: str
) -> None:
    async with hostile(lambda _m, _p: answer_with(status, body, kind, location="https://localhost:1/")) as server:
        with pytest.raises(CaBadAnswer) as caught:
            await sign(StepCaClient(either, server.url))
    assert caught.value.failed == failed
    assert "STEP_CA_URL" in caught.value.check
    assert server.asked == ["POST /1.0/sign"]


async def test_attack_compressed_answer(hostile: Any, answer_with: Any, either: Any) -> None:
    packed = answer_with(201, b"\x1f\x8b", **{"content-encoding": "gzip"})
    async with hostile(lambda _m, _p: packed) as server:
        with pytest.raises(CaBadAnswer, match="encoded"):
            await sign(StepCaClient(either, server.url))


async def test_attack_no_http_at_all(hostile: Any, either: Any) -> None:
    async with hostile(lambda _m, _p: b"SSH-2.0-OpenSSH_9.2\r\n\r\n") as server:
        with pytest.raises((CaBadAnswer, CaUnreachable)) as caught:
            await sign(StepCaClient(either, server.url))
    assert not getattr(caught.value, "surely_not_sent", False)


async def test_sign_is_not_repeated_when_the_answer_is_lost(hostile: Any, either: Any) -> None:
    async with hostile(lambda _m, _p: None) as server:
        with pytest.raises(CaUnreachable) as caught:
            await sign(StepCaClient(either, server.url))
        assert server.asked == ["POST /1.0/sign"]
    assert caught.value.surely_not_sent is False


async def test_an_answer_cut_short_is_an_unknown_outcome(hostile: Any, either: Any) -> None:
    async with hostile(lambda _m, _p: b"HTTP/1.1 201 X\r\ncontent-length: 500\r\n\r\n{") as server:
        with pytest.raises(CaUnreachable) as caught:
            await sign(StepCaClient(either, server.url))
        assert server.asked == ["POST /1.0/sign"]
    assert caught.value.surely_not_sent is False


async def test_a_kept_connection_that_breaks_is_an_unknown_outcome(hostile: Any, answer_with: Any, either: Any) -> None:
    """The trap of the aiohttp transport: it calls a connection that broke after the request a ConnectTimeout."""

    def answer(method: str, _path: str) -> bytes | None:
        return answer_with(200, {"status": "ok"}) if method == "GET" else None

    async with hostile(answer) as server:
        client = StepCaClient(either, server.url)
        await client.health()
        with pytest.raises(CaUnreachable) as caught:
            await sign(client)
        assert server.asked == ["GET /health", "POST /1.0/sign"]
    assert caught.value.surely_not_sent is False


async def test_nobody_listens_is_surely_not_sent(either: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"https://localhost:{probe.getsockname()[1]}"
        with pytest.raises(CaUnreachable) as caught:
            await sign(StepCaClient(either, url))
    assert caught.value.surely_not_sent is True
    assert "STEP_CA_URL" in caught.value.check


async def test_attack_server_of_another_root_is_not_sent_a_token(
    hostile: Any, answer_with: Any, either: Any, now: Any
) -> None:
    from ca.standin.hierarchy import make_hierarchy  # noqa: PLC0415 - only this test needs a second PKI

    async with hostile(lambda _m, _p: answer_with(201, {}), pki=make_hierarchy(now)) as server:
        with pytest.raises(CaUnreachable) as caught:
            await sign(StepCaClient(either, server.url))
        assert server.asked == []
    assert caught.value.surely_not_sent is True
    assert "STEP_CA_FINGERPRINT" in caught.value.check


async def test_the_total_time_is_bounded_also_for_a_slow_trickle(hostile: Any, either: Any) -> None:
    async def never(_method: str, _path: str) -> bytes:
        await asyncio.Event().wait()
        return b""

    def silent(method: str, path: str) -> Any:
        return asyncio.ensure_future(never(method, path))

    async with hostile(silent) as server:
        with pytest.raises(CaUnreachable, match=r"within 0\.2 s") as caught:
            await sign(StepCaClient(either, server.url, timeout=0.2))
        assert server.asked == ["POST /1.0/sign"]
    assert caught.value.surely_not_sent is False


class _Flaky(httpx.AsyncBaseTransport):
    """Fails as told, then answers."""

    def __init__(self, *failures: Exception, status: int = 200, body: Any = None) -> None:
        self.failures = list(failures)
        self.calls = 0
        self.status, self.body = status, body or {"status": "ok"}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return httpx.Response(self.status, json=self.body, request=request)


@pytest.mark.parametrize(
    ("failure", "calls", "good"),
    [
        (httpx.ConnectError("refused"), 2, True),
        (httpx.ConnectTimeout("slow"), 2, True),
        (httpx.PoolTimeout("full"), 2, True),
        (httpx.ReadError("reset"), 1, False),
        (httpx.ReadTimeout("slow"), 1, False),
        (httpx.WriteError("reset"), 1, False),
        (httpx.RemoteProtocolError("gone"), 1, False),
    ],
)
async def test_sign_is_repeated_only_if_it_surely_never_left(failure: Exception, calls: int, good: bool) -> None:
    transport = _Flaky(failure, status=201, body={"certChain": ["leaf", "issuer"]})
    async with httpx.AsyncClient(transport=transport) as http:
        client = StepCaClient(http, "https://ca.example")
        if good:
            assert (await sign(client)).leaf_pem == "leaf"
        else:
            with pytest.raises(CaUnreachable) as caught:
                await sign(client)
            assert caught.value.surely_not_sent is False
    assert transport.calls == calls


async def test_attempts_are_bounded() -> None:
    transport = _Flaky(*[httpx.ConnectError("refused")] * 9)
    async with httpx.AsyncClient(transport=transport) as http:
        client = StepCaClient(http, "https://ca.example")
        with pytest.raises(CaUnreachable):
            await client.roots()
        assert transport.calls == 3
        with pytest.raises(CaUnreachable):
            await sign(client)
        assert transport.calls == 7


async def test_reads_are_repeated_after_any_lost_answer_but_health_is_not() -> None:
    page = {"provisioners": [], "nextCursor": ""}
    transport = _Flaky(httpx.ReadError("reset"), httpx.ReadError("reset"), body=page)
    async with httpx.AsyncClient(transport=transport) as http:
        client = StepCaClient(http, "https://ca.example")
        with pytest.raises(CaMisconfigured):
            await client.provisioner("x")
        assert transport.calls == 3
        transport.failures = [httpx.ReadError("reset")]
        with pytest.raises(CaUnreachable):
            await client.health()
        assert transport.calls == 4


async def test_attack_pages_that_never_end() -> None:
    transport = _Flaky(body={"provisioners": [], "nextCursor": "again"})
    async with httpx.AsyncClient(transport=transport) as http:
        with pytest.raises(CaBadAnswer, match="never end"):
            await StepCaClient(http, "https://ca.example").provisioner("x")
    assert transport.calls == 2


@pytest.mark.parametrize(
    ("status", "message", "done"),
    [
        (400, "The request could not be completed: certificate with serial number '5' is already revoked.", True),
        (400, "something else", False),
        (403, "already revoked", False),
    ],
)
async def test_already_revoked_is_done(status: int, message: str, done: bool) -> None:
    transport = _Flaky(status=status, body={"status": status, "message": message})
    async with httpx.AsyncClient(transport=transport) as http:
        client = StepCaClient(http, "https://ca.example")
        if done:
            await client.revoke(5, "ott")
        else:
            with pytest.raises(CaRefused) as caught:
                await client.revoke(5, "ott")
            assert caught.value.upstream == message


async def test_crl_switched_off_names_the_lines(hierarchy: Any) -> None:
    transport = _Flaky(status=404, body={"status": 404, "message": "x"})
    async with httpx.AsyncClient(transport=transport) as http:
        with pytest.raises(CaMisconfigured) as caught:
            await StepCaClient(http, "https://ca.example").crl(hierarchy.issuing.certificate)
    assert '"generateOnRevoke": true' in caught.value.check


async def test_a_root_that_issues_by_itself_has_no_intermediates() -> None:
    transport = _Flaky(status=501, body={"status": 501, "message": "x"})
    async with httpx.AsyncClient(transport=transport) as http:
        assert await StepCaClient(http, "https://ca.example").intermediates() == ()


async def test_secrets_are_in_no_error() -> None:
    transport = _Flaky(status=401, body={"status": 401, "message": "m" * 5000})
    async with httpx.AsyncClient(transport=transport) as http:
        with pytest.raises(CaRefused) as caught:
            await StepCaClient(http, "https://ca.example").sign("the-csr", "the-token", DAY)
    error = caught.value
    assert len(error.upstream) == 500
    assert "dnsNames" in error.check
    assert not {"the-csr", "the-token"} & set(f"{error} {error.check} {error.upstream} {error!r}".split())


@pytest.mark.parametrize(
    "url",
    [
        "http://ca.example",
        "ca.example",
        "",
        "https://",
        "https://u:p@ca.example",
        "https://ca.example?x",
        "https://a:b",
    ],
)
async def test_a_url_that_is_no_cas(url: str) -> None:
    with pytest.raises(CaMisconfigured) as caught:
        checked_url(url)
    assert "STEP_CA_URL" in caught.value.check


def test_every_error_says_what_to_check() -> None:
    assert {c.__name__ for c in CaError.__subclasses__()} == {
        "CaRefused",
        "CaUnreachable",
        "CaMisconfigured",
        "CaBadAnswer",
    }
