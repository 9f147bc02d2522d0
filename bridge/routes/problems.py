"""The one place where errors become problem documents (RFC 9457).

``type`` is a URN that ends in the code, ``detail`` says what is wrong and what to do next, ``request_id`` is what the
operator finds in the log. An error without a code of the protocol, and every exception that is not ours, is a bare
500: nothing of it reaches the caller.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import Response

from bridge.errors import (
    AttemptOpen,
    BadInput,
    BadRequest,
    BridgeError,
    Conflict,
    NotAdmitted,
    NotFound,
    Retired,
    TooLarge,
    TooMany,
    Unauthorized,
    Unavailable,
    VoucherRequired,
)
from enroll.wire import PROBLEM_JSON, PROBLEM_TYPE_PREFIX, VOUCHER_HEADER, WEBHOOK_SECRET_HEADER, Code

_STATUS: Final[Mapping[type[BridgeError], int]] = {
    BridgeError: 500,
    BadInput: 422,
    TooLarge: 413,
    Unauthorized: 401,
    VoucherRequired: 401,
    NotFound: 404,
    NotAdmitted: 403,
    Retired: 403,
    Conflict: 409,
    Unavailable: 503,
    TooMany: 429,
}
"""A class without a line of its own has its base's."""

TITLES: Final[Mapping[Code, str]] = {
    Code.BAD_CSR: "The CSR cannot be accepted",
    Code.BAD_WG_KEY: "The WireGuard key cannot be accepted",
    Code.BAD_DEVICE_ID: "The device id cannot be accepted",
    Code.BAD_REQUEST: "The request does not have the agreed shape",
    Code.VOUCHER_REQUIRED: "A voucher is needed",
    Code.NOT_ADMITTED: "The device is not admitted",
    Code.RETIRED: "The device was decommissioned",
    Code.ID_SPELLING: "The id is known under another spelling",
    Code.KEY_IN_USE: "The device key is in use",
    Code.WG_KEY_IN_USE: "The WireGuard key is in use",
    Code.WG_KEY_DIFFERS: "The WireGuard key differs from the stored one",
    Code.IDENTITY_EXISTS: "The id is active under another key",
    Code.IN_PROGRESS: "An attempt is under way",
    Code.EXPIRED: "The certificate has expired",
    Code.SUPERSEDED: "The certificate was superseded",
    Code.TOO_LARGE: "The body is too large",
    Code.TOO_MANY: "Too many requests are open",
    Code.CA_UNREACHABLE: "The CA cannot be reached",
    Code.CA_REFUSED: "The CA refused",
    Code.CA_BAD_ANSWER: "The CA answered with something unusable",
    Code.POOL_EMPTY: "No VPN address is free",
    Code.STORE_UNAVAILABLE: "The registry's database is not available",
    Code.UNAUTHORIZED: "The secret is missing or wrong",
    Code.NOT_FOUND: "There is nothing here",
    Code.INTERNAL: "Something went wrong inside the bridge",
}
_METHOD_TITLE: Final = "This address does not take that method"
# RFC 9110, section 11.6.1: a 401 names the challenge. Both are headers of ours, not schemes of HTTP authentication.
_CHALLENGES: Final[Mapping[Code, str]] = {
    Code.VOUCHER_REQUIRED: f'Voucher header="{VOUCHER_HEADER}"',
    Code.UNAUTHORIZED: f'Secret header="{WEBHOOK_SECRET_HEADER}"',
}
_NOT_FOUND: Final = 404
_NOT_ALLOWED: Final = 405
_FRAMEWORK_TEXTS: Final[Mapping[int, str]] = {
    _NOT_FOUND: "there is nothing at this address",
    _NOT_ALLOWED: "this address does not take that method",
}


def status_of(kind: type[BridgeError]) -> int:
    """Return the HTTP status of this kind of error: 500 for one without a code of the protocol."""
    if kind.code == Code.INTERNAL:
        return _STATUS[BridgeError]
    return next(_STATUS[base] for base in kind.__mro__ if base in _STATUS)


def document(kind: type[BridgeError], message: str, request_id: str) -> dict[str, Any]:
    """Return the members of a problem document."""
    code = Code(kind.code)
    detail = f"The operator finds the reason in the bridge's log under the request id {request_id}."
    if code is not Code.INTERNAL:
        detail = f"{message[:1].upper()}{message[1:].removesuffix('.')}. {kind.advice}"
    return {
        "type": PROBLEM_TYPE_PREFIX + code,
        "title": TITLES[code],
        "status": status_of(kind),
        "detail": detail,
        "code": str(code),
        "request_id": request_id,
    }


def problem(error: BridgeError, request_id: str) -> Response:
    """Return the answer for an error of ours. ``Retry-After`` is in whole seconds, rounded up, at least 1."""
    members = document(type(error), str(error), request_id)
    headers = {"Cache-Control": "no-store"}
    if isinstance(error, Unavailable | AttemptOpen):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if members["code"] in _CHALLENGES:
        headers["WWW-Authenticate"] = _CHALLENGES[members["code"]]
    if isinstance(error, TooLarge):
        headers["Connection"] = "close"  # the rest of the body was not read
    return _response(members, headers)


def internal(request_id: str) -> Response:
    """Return the bare 500 for an exception that is not ours."""
    return _response(document(BridgeError, "", request_id), {"Cache-Control": "no-store"})


def framework_problem(error: HTTPException, request_id: str) -> Response:
    """Return the answer for what the framework refused before any route saw it: 404, 405 and their like."""
    status = error.status_code
    if status >= _STATUS[BridgeError]:
        return internal(request_id)
    kind: type[BridgeError] = NotFound if status in {_NOT_FOUND, _NOT_ALLOWED} else BadRequest
    members = document(kind, _FRAMEWORK_TEXTS.get(status, "the request cannot be read"), request_id)
    members["status"] = status
    if status == _NOT_ALLOWED:
        members["title"] = _METHOD_TITLE
    return _response(members, dict(error.headers or {}))


def _response(members: Mapping[str, Any], headers: dict[str, str]) -> Response:
    content = json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(content, members["status"], headers, media_type=PROBLEM_JSON)
