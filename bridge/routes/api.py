"""The application: which address leads to which door.

Responsible for routes, for the order in which they are tried, and for turning the framework's own refusals into
problem documents. The doors are :mod:`~bridge.routes.enrolling`, :mod:`~bridge.routes.activating`,
:mod:`~bridge.routes.webhook`, :mod:`~bridge.routes.trust` and :mod:`~bridge.routes.health`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from bridge.errors import BadRequest
from bridge.routes.activating import ActivateDoor
from bridge.routes.answers import compact
from bridge.routes.documentation import describe
from bridge.routes.documentation.page import render_page
from bridge.routes.enrolling import EnrollDoor
from bridge.routes.health import HealthDoor
from bridge.routes.parts import Parts
from bridge.routes.problems import framework_problem
from bridge.routes.trust import TrustDoor
from bridge.routes.visit import Reception, visit_of
from bridge.routes.webhook import WebhookDoor


class _Anything(Convertor[str]):
    """A path parameter that takes whatever stands there: what is no device id is then refused as one (422, not 404)."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anything", _Anything())


def build_api(parts: Parts) -> FastAPI:
    """Return the application. It starts and stops nothing: what it is given must be running."""
    app = FastAPI(
        title="IoT bridge",
        version=parts.version,
        # The document is written out in bridge.routes.documentation, and served below.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # What is measured is in bridge.routes.meters; the framework's own looks around at every request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    _add_doors(app, parts)
    _add_documentation(app, parts)
    app.add_exception_handler(HTTPException, _refused_by_framework)
    app.add_exception_handler(RequestValidationError, _refused_by_validation)
    app.add_middleware(Reception, new_request_id=parts.new_request_id)
    return app


def _add_doors(app: FastAPI, parts: Parts) -> None:
    enroll, activate, trust = EnrollDoor(parts), ActivateDoor(parts), TrustDoor(parts.trust)
    health, webhook = HealthDoor(parts), WebhookDoor(parts)
    # What a device needs is found under the prefix too, for devices whose base URL has a path.
    for prefix in dict.fromkeys(("", parts.path_prefix)):
        app.add_route(prefix + "/devices/{device_id:anything}/enroll", enroll.by_address, ["POST"])
        app.add_route(prefix + "/devices/{device_id:anything}/activate", activate.activate, ["POST"])
        app.add_route(prefix + "/v1/enroll", enroll.by_body, ["POST"])
        app.add_route(prefix + "/root/{sha256}", trust.root, ["GET"])
        app.add_route(prefix + "/roots.pem", trust.roots_pem, ["GET"])
        app.add_route(prefix + "/intermediates", trust.intermediates, ["GET"])
    app.add_route("/webhooks/thingsboard", webhook.take, ["POST"])
    app.add_route("/healthz", health.healthz, ["GET"])
    app.add_route("/readyz", health.readyz, ["GET"])
    app.add_route("/version", health.version, ["GET"])
    app.add_route("/metrics", health.metrics, ["GET"])


@lru_cache(maxsize=4)
def _documentation(version: str, path_prefix: str) -> tuple[dict[str, Any], bytes, str]:
    document = describe(version, path_prefix)
    return document, compact(document), render_page(document)


def _add_documentation(app: FastAPI, parts: Parts) -> None:
    document, as_json, as_page = _documentation(parts.version, parts.path_prefix)

    async def openapi(request: Request) -> Response:
        visit_of(request).door = "openapi.json"
        return Response(as_json, media_type="application/json")

    async def docs(request: Request) -> Response:
        visit_of(request).door = "docs"
        return HTMLResponse(
            as_page, headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        )

    app.add_route("/openapi.json", openapi, ["GET"])
    app.add_route("/docs", docs, ["GET"])
    app.openapi = lambda: document  # type: ignore[method-assign] # what tools that hold the application ask for


async def _refused_by_framework(request: Request, error: Exception) -> Response:
    visit = visit_of(request)
    refusal = error if isinstance(error, HTTPException) else HTTPException(400)
    response = framework_problem(refusal, visit.request_id)
    visit.outcome = "refused"
    return response


async def _refused_by_validation(_request: Request, error: Exception) -> Response:
    raise BadRequest("the request does not have the agreed shape") from error
