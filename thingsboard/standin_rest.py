"""ThingsBoard's REST routes that the bridge uses, over the stand-in's state.

Parses and renders; the rules are in `standin_state`, `standin_platform` and `standin_auth`. Statuses, codes,
words and content types are those recorded, odd ones included.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from thingsboard.standin_auth import Accounts
from thingsboard.standin_platform import PlatformRecord
from thingsboard.standin_records import Json
from thingsboard.standin_refusals import Refusal, bad, general, not_found
from thingsboard.standin_state import TenantState

Handler = Callable[[Request], Awaitable[Response]]

_VARY = {"Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"}
_MAX_BODY = 16 * 1024 * 1024


def application(accounts: Accounts, state: TenantState, platform: PlatformRecord) -> Starlette:
    """Build the application."""
    rest = _Rest(accounts, state, platform)
    devices, rules = "/api/device", "/api/ruleChain"
    telemetry = "/api/plugins/telemetry/DEVICE/{id}"
    open_routes = [
        ("POST", "/api/auth/login", rest.login),
        ("POST", "/api/auth/token", rest.refresh),
    ]
    guarded = [
        ("POST", "/api/device-with-credentials", rest.create_with_credentials),
        ("GET", "/api/tenant/devices", rest.find_devices),
        ("POST", devices, rest.save_device),
        ("POST", f"{devices}/credentials", rest.save_credentials),
        ("GET", f"{devices}/{{id}}", rest.get_device),
        ("DELETE", f"{devices}/{{id}}", rest.delete_device),
        ("GET", f"{devices}/{{id}}/credentials", rest.get_credentials),
        ("GET", "/api/deviceProfileInfo/default", rest.default_profile),
        ("GET", "/api/deviceProfiles", rest.list_profiles),
        ("POST", "/api/deviceProfile", rest.save_profile),
        ("GET", "/api/queues", rest.list_queues),
        ("GET", "/api/ruleChains", rest.list_chains),
        ("POST", rules, rest.save_chain),
        ("GET", f"{rules}/{{id}}/metadata", rest.get_metadata),
        ("POST", f"{rules}/metadata", rest.save_metadata),
        ("POST", f"{telemetry}/attributes/{{scope}}", rest.save_attributes),
        ("POST", f"{telemetry}/{{scope}}", rest.save_attributes),
        ("DELETE", f"{telemetry}/{{scope}}", rest.delete_attributes),
        ("GET", f"{telemetry}/values/attributes", rest.get_attributes),
        ("GET", f"{telemetry}/values/attributes/{{scope}}", rest.get_attributes),
    ]
    guard = _Guard(accounts, state.now_ms)
    routes = [Route(path, guard.open(handler), methods=[method]) for method, path, handler in open_routes]
    routes += [Route(path, guard.closed(handler), methods=[method]) for method, path, handler in guarded]
    routes.append(Route("/{path:path}", guard.closed(_no_route)))
    return Starlette(routes=routes)


@dataclass(frozen=True, slots=True)
class _Rest:
    accounts: Accounts
    state: TenantState
    platform: PlatformRecord

    async def login(self, request: Request) -> Response:
        body = await _object(request)
        answer = _json(self.accounts.login(body.get("username"), body.get("password")))
        answer.headers["Content-Type"] = "application/json;charset=ISO-8859-1"
        return answer

    async def refresh(self, request: Request) -> Response:
        return _json(self.accounts.refresh((await _object(request)).get("refreshToken")))

    async def create_with_credentials(self, request: Request) -> Response:
        body = await _object(request)
        device, credentials = body.get("device"), body.get("credentials")
        if not isinstance(device, dict) or not isinstance(credentials, dict):
            raise bad("Device and credentials should be specified!")
        return _json(self.state.create(device, credentials))

    async def save_device(self, request: Request) -> Response:
        body = await _object(request)
        return _json(self.state.update(body) if body.get("id") else self.state.create(body, None))

    async def find_devices(self, request: Request) -> Response:
        name = request.query_params.get("deviceName")
        if name is None:
            return _page(request, self.state.search(request.query_params.get("textSearch", "")))
        record = self.state.by_name(name)
        if record is None:
            raise not_found()
        return _json(record.device)

    async def get_device(self, request: Request) -> Response:
        return _json(self.state.get(_id(request)).device)

    async def delete_device(self, request: Request) -> Response:
        self.state.delete(_id(request))
        return _empty()

    async def get_credentials(self, request: Request) -> Response:
        return _json(self.state.get(_id(request)).credentials)

    async def save_credentials(self, request: Request) -> Response:
        return _json(self.state.replace_credentials(await _object(request)))

    async def default_profile(self, _request: Request) -> Response:
        profile = self.platform.default_profile()
        shown = ("id", "tenantId", "name", "image", "defaultDashboardId", "type", "transportType")
        return _json({field: profile[field] for field in shown})

    async def list_profiles(self, request: Request) -> Response:
        return _page(request, self.platform.profiles())

    async def save_profile(self, request: Request) -> Response:
        return _json(self.platform.create_profile(await _object(request)))

    async def list_queues(self, request: Request) -> Response:
        return _page(request, self.platform.queues())

    async def list_chains(self, request: Request) -> Response:
        return _page(request, self.platform.chains())

    async def save_chain(self, request: Request) -> Response:
        return _json(self.platform.create_chain(await _object(request)))

    async def get_metadata(self, request: Request) -> Response:
        return _json(self.platform.metadata(_id(request)))

    async def save_metadata(self, request: Request) -> Response:
        return _json(self.platform.save_metadata(await _object(request)))

    async def save_attributes(self, request: Request) -> Response:
        try:
            values = json.loads(await request.body())
        except ValueError as e:
            raise Refusal(400, "Invalid JSON") from e
        self.state.write_attributes(_id(request), request.path_params["scope"], values)
        return _empty()

    async def delete_attributes(self, request: Request) -> Response:
        keys = _keys(request) or frozenset()
        self.state.delete_attributes(_id(request), request.path_params["scope"], keys)
        return _empty()

    async def get_attributes(self, request: Request) -> Response:
        return _json(self.state.attributes(_id(request), request.path_params.get("scope"), _keys(request)))


@dataclass(frozen=True, slots=True)
class _Guard:
    """Checks the token where one is needed, and renders refusals."""

    accounts: Accounts
    now_ms: Callable[[], int]

    def open(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except Refusal as refusal:
                return _refused(refusal, self.now_ms())
            except (AttributeError, KeyError, TypeError):  # JSON of another shape than the route reads
                return _refused(general("JSON parse error: Cannot deserialize value"), self.now_ms())

        return answer

    def closed(self, handler: Handler) -> Handler:
        async def checked(request: Request) -> Response:
            self.accounts.check(request.headers.get("x-authorization") or request.headers.get("authorization"))
            return await handler(request)

        return self.open(checked)


async def _no_route(request: Request) -> Response:
    raise not_found(f"No static resource {request.url.path.strip('/')}.")


def _refused(refusal: Refusal, now_ms: int) -> Response:
    if refusal.code is None:
        content, kind = refusal.message, "text/plain;charset=UTF-8"
    else:
        body = {
            "status": refusal.status,
            "message": refusal.message,
            "errorCode": refusal.code,
            "timestamp": now_ms,
        }
        content, kind = json.dumps(body, separators=(",", ":")), "application/json;charset=ISO-8859-1"
    return Response(content, refusal.status, {**_VARY, "Content-Type": kind})


def _json(content: Any) -> Response:
    rendered = json.dumps(content, separators=(",", ":"))
    return Response(rendered, 200, {**_VARY, "Content-Type": "application/json"})


def _empty() -> Response:
    return Response(None, 200, _VARY)


def _page(request: Request, found: list[Json]) -> Response:
    try:
        size, page = int(request.query_params["pageSize"]), int(request.query_params["page"])
    except (KeyError, ValueError) as e:
        raise bad("Required request parameters 'pageSize' and 'page' are numbers") from e
    if size < 1 or page < 0:
        raise bad("Incorrect page link page size or page")
    total = -(-len(found) // size)
    data = found[page * size : (page + 1) * size]
    more = page + 1 < total
    return _json({"data": data, "totalPages": total, "totalElements": len(found), "hasNext": more})


async def _object(request: Request) -> Json:
    body = await request.body()
    try:
        content = json.loads(body) if len(body) <= _MAX_BODY else None
    except (ValueError, RecursionError) as e:
        reason = "Unexpected end-of-input within/between Object entries" if body else "No content"
        raise general(f"JSON parse error: {reason}") from e
    if not isinstance(content, dict):
        raise general("JSON parse error: Cannot deserialize value from Array value")
    return content


def _id(request: Request) -> str:
    text = str(request.path_params["id"])
    try:
        return str(UUID(text))
    except ValueError as e:
        raise bad(f"Invalid UUID string: {text}") from e


def _keys(request: Request) -> frozenset[str] | None:
    text = request.query_params.get("keys")
    return frozenset(text.split(",")) if text else None
