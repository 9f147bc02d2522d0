"""One request from the moment it comes in: its id, and what its log line will say.

Responsible for the request id, for the one log line of a request, and for turning whatever a handler raises into an
answer. Neither headers nor bodies are ever logged.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridge.errors import BridgeError
from bridge.routes.problems import internal, problem

REQUEST_ID_HEADER: Final = "X-Request-Id"
_HEADER: Final = REQUEST_ID_HEADER.lower().encode()
_SANE: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SCOPE_KEY: Final = "bridge.visit"
_CLIENT_GONE: Final = 499
_SERVER_ERROR: Final = 500

_log = structlog.get_logger("bridge.routes")


class ClientGone(Exception):
    """The client hung up before its request was complete. No error of ours: nobody is left to be answered."""


@dataclass(slots=True)
class Visit:
    """What is known of the request that is being answered."""

    request_id: str
    door: str = "none"
    """The handler's name: a few fixed words, for the log."""
    device: str | None = None
    """The device id, once it has passed the naming rule."""
    outcome: str | None = None
    """``created``, ``stored``, or the code of the problem."""
    quiet: bool = False
    """True for probes: logged at level debug only."""
    status: int = 0
    """Of the answer; 0 until it has begun."""


def visit_of(request: Request) -> Visit:
    """Return the visit that this request is."""
    visit: Visit = request.scope[_SCOPE_KEY]
    return visit


class Reception:
    """ASGI middleware around everything: gives each request its id, its log line, and an answer to whatever is raised.

    ``X-Request-Id`` of the caller is kept if it is 1 to 64 letters, digits, dots, dashes and underscores; it comes back
    in the answer, in every problem document, and in the audit trail.
    """

    def __init__(
        self,
        app: ASGIApp,
        new_request_id: Callable[[], str],
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app = app
        self._new_request_id = new_request_id
        self._timer = timer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = self._timer()
        visit = scope[_SCOPE_KEY] = Visit(_sane_id(scope) or self._new_request_id())
        own_header = (_HEADER, visit.request_id.encode())

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                message["headers"] = [*message.get("headers", ()), own_header]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=visit.request_id):
            try:
                await self._app(scope, receive, answer)
            except ClientGone:
                visit.status = _CLIENT_GONE
            except Exception as error:
                if visit.status:  # half an answer is out; only the server can break it off
                    raise
                await self._answer_error(error, visit, scope, receive, answer)
            finally:
                self._log_line(visit, scope["method"], self._timer() - begun)

    async def _answer_error(self, error: Exception, visit: Visit, scope: Scope, receive: Receive, answer: Send) -> None:
        if isinstance(error, BridgeError):
            visit.outcome = error.code
            response = problem(error, visit.request_id)
        else:
            visit.outcome = BridgeError.code
            response = internal(visit.request_id)
        if response.status_code == _SERVER_ERROR:
            _log.error("request failed", door=visit.door, exc_info=error)
        await response(scope, receive, answer)

    def _log_line(self, visit: Visit, method: str, seconds: float) -> None:
        say = _log.debug if visit.quiet else _log.info
        say(
            "request",
            door=visit.door,
            method=method,
            status=visit.status,
            outcome=visit.outcome,
            device=visit.device,
            ms=round(seconds * 1000, 1),
        )


def _sane_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == _HEADER:
            return value.decode("ascii") if _SANE.fullmatch(value) else None
    return None
