"""The reception around every request: what it does where no handler can help any more."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.errors import StoreUnavailable
from bridge.routes.visit import ClientGone, Reception

START = {"type": "http.response.start", "status": 200, "headers": []}


async def visit(handler: Any, kind: str = "http") -> tuple[list[Any], list[Any]]:
    """Return what was sent and what was logged."""
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("nobody reads")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "method": "GET", "path": "/", "headers": []}
    with capture_logs() as logs:
        await Reception(handler, lambda: "r-1", timer=lambda: 0.0)(scope, receive, send)
    return sent, logs


async def test_an_error_of_ours_is_answered_and_logged_in_one_line() -> None:
    async def handler(*_: Any) -> None:
        raise StoreUnavailable("the disk is full")

    sent, logs = await visit(handler)
    assert sent[0]["status"] == 503
    assert (b"x-request-id", b"r-1") in sent[0]["headers"]
    assert [(line["event"], line["outcome"]) for line in logs] == [("request", "store_unavailable")]


async def test_an_error_after_the_answer_has_begun_is_left_to_the_server() -> None:
    async def handler(_scope: Any, _receive: Any, send: Any) -> None:
        await send(dict(START))
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        await visit(handler)


async def test_nobody_is_answered_who_hung_up() -> None:
    async def handler(*_: Any) -> None:
        raise ClientGone

    sent, logs = await visit(handler)
    assert sent == []
    assert [line["status"] for line in logs] == [499]


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_what_is_no_request_passes_through(kind: str) -> None:
    seen = []

    async def handler(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope["type"])

    sent, logs = await visit(handler, kind)
    assert (seen, sent, logs) == ([kind], [], [])
