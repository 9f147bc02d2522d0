"""A proxy before a CA that does to the answers of `/1.0/sign` what a test says; everything else passes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jwt
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ca.bootstrap import context_for_root
from ca.standin import StandInCa


@dataclass(frozen=True)
class Signing:
    """A request for a signature, and what the CA behind answered: it has signed by now."""

    claims: Mapping[str, Any]
    csr_pem: str
    status: int
    body: bytes

    @property
    def answer(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


Behaviour = Callable[[Signing], Awaitable[Response]]


class HangUpError(Exception):
    """Cut the connection instead of answering."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class HostileCa:
    """The proxy. `behaviours` by device id; every other device is answered as the CA answers."""

    ca: StandInCa
    certificate: Path
    port: int = 0
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    arrived: list[str] = field(default_factory=list)
    """Device ids whose request for a signature came in, in order."""
    _server: _Server | None = None
    _task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    async def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        made = self.ca.issue_server_certificate()
        self.certificate.write_text(made.chain_pem + made.key_pem)
        app = Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST"])])
        self._server = _Server(
            uvicorn.Config(
                app,
                ssl_certfile=self.certificate,
                ssl_keyfile=self.certificate,
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        await self._server.listening.wait()

    async def stop(self) -> None:
        """Listen no longer, and cut what is open: from now on a connection is refused."""
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        await asyncio.wait({self._task})
        self._server = self._task = None

    async def _answer(self, request: Request) -> Response:
        body = await request.body()
        async with httpx.AsyncClient(verify=context_for_root(self.ca.anchor), trust_env=False) as http:
            path = f"{self.ca.url}{request.url.path}?{request.url.query}"
            answer = await http.request(request.method, path, content=body)
        if request.url.path.endswith("/sign"):
            asked = json.loads(body)
            claims = jwt.decode(asked["ott"], options={"verify_signature": False})
            self.arrived.append(claims["sub"])
            behaviour = self.behaviours.get(claims["sub"])
            if behaviour is not None:
                signing = Signing(claims, asked["csr"], answer.status_code, answer.content)
                try:
                    return await behaviour(signing)
                except HangUpError:
                    self._cut(request)
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))

    def _cut(self, request: Request) -> None:
        assert self._server is not None
        for connection in list(self._server.server_state.connections):
            if connection.client == request.scope["client"]:
                connection.transport.abort()


@asynccontextmanager
async def hostile_ca(ca: StandInCa, folder: Path) -> AsyncIterator[HostileCa]:
    proxy = HostileCa(ca, folder / "proxy.pem")
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
