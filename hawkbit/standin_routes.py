"""Which path of the embedded hawkBit leads to which handler, and what every request passes before it.

Order, as on the real one: flood filter, firewall, then the device's or the user's credentials, then the path:
an unknown path under /rest is 404 only for somebody who is known.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from hawkbit.standin_access import FloodFilter, User, Users, check_path
from hawkbit.standin_answers import Refusal
from hawkbit.standin_context import Context
from hawkbit.standin_ddi import Devices
from hawkbit.standin_metadata import Metadata
from hawkbit.standin_state import StateFolderUnusable
from hawkbit.standin_system import System
from hawkbit.standin_targets import Targets

Managed = Callable[[Request, User], Awaitable[Response]]
Open = Callable[[Request], Awaitable[Response]]


def build_app(context: Context, users: Users, flood: FloodFilter) -> ASGIApp:
    """Return the ASGI application."""
    targets, metadata, system, devices = Targets(context), Metadata(context), System(context), Devices(context)
    dialect = context.answers.dialect
    managed: list[tuple[str, str, Managed]] = [
        ("/rest/v1/targets", "GET POST", targets.collection),
        ("/rest/v1/targets/{id}", "DELETE GET PUT", targets.single),
        ("/rest/v1/targets/{id}/attributes", "GET", targets.attributes),
        ("/rest/v1/targets/{id}/metadata", "GET POST", metadata.collection),
        ("/rest/v1/targets/{id}/metadata/{key}", "DELETE GET PUT", metadata.single),
        ("/rest/v1/system/configs", "GET PUT" if dialect.config_batch else "GET", system.configurations),
        ("/rest/v1/system/configs/{key}", "DELETE GET PUT", system.configuration),
    ]
    if dialect.has_userinfo:
        managed.append(("/rest/v1/userinfo", "GET", system.user_info))
    ddi: list[tuple[str, str, Open]] = [
        ("/{tenant}/controller/v1/{id}", "GET", devices.poll),
        ("/{tenant}/controller/v1/{id}/configData", "PUT", devices.config_data),
    ]
    if dialect.has_userinfo:

        async def health(_: Request) -> Response:
            return context.answers.body({"status": "UP"})

        ddi.append(("/actuator/health", "GET", health))
    return _Application(context, users, flood, managed, ddi)


class _Application:
    def __init__(
        self,
        context: Context,
        users: Users,
        flood: FloodFilter,
        managed: list[tuple[str, str, Managed]],
        ddi: list[tuple[str, str, Open]],
    ) -> None:
        self._answers = context.answers
        self._users = users
        self._flood = flood
        self._managed = [(_route(path), methods.split(), handler) for path, methods, handler in managed]
        self._open = [(_route(path), methods.split(), handler) for path, methods, handler in ddi]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except Refusal as refusal:
            response = self._answers.render(refusal)
        except (StateFolderUnusable, HTTPException):
            response = self._answers.render(self._answers.bare(request, 500))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        self._flood.admit(request)
        check_path(request, self._answers)
        for route, methods, serve in self._open:
            if _matches(route, request):
                self._check_method(request, methods)
                return await serve(request)
        if not request.url.path.startswith("/rest/"):
            raise self._answers.bare(request, 404)
        user = self._users.authenticate(request)
        for route, methods, handle in self._managed:
            if _matches(route, request):
                self._check_method(request, methods)
                return await handle(request, user)
        raise self._answers.bare(request, 404)

    def _check_method(self, request: Request, methods: list[str]) -> None:
        if request.method not in methods:
            raise self._answers.bare(request, 405, {"Allow": ", ".join(methods)})


def _route(path: str) -> BaseRoute:
    return Route(path, lambda _: None)


def _matches(route: BaseRoute, request: Request) -> bool:
    match, scope = route.matches(request.scope)
    if match is Match.NONE:
        return False
    request.scope["path_params"] = scope["path_params"]
    return True
