"""Addresses, methods and every answer they can give."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Final

from bridge import errors
from bridge.routes.documentation import schemas
from bridge.routes.documentation.schemas import ref
from bridge.routes.problems import document
from enroll.wire import PROBLEM_JSON, Code

Operation = dict[str, Any]

ENROLL_ERRORS: Final[tuple[type[errors.BridgeError], ...]] = (
    errors.BadCsr,
    errors.BadWireGuardKey,
    errors.BadDeviceId,
    errors.BadRequest,
    errors.VoucherRequired,
    errors.NotAdmitted,
    errors.Retired,
    errors.IdSpelling,
    errors.KeyInUse,
    errors.WireGuardKeyInUse,
    errors.WireGuardKeyDiffers,
    errors.IdentityExists,
    errors.AttemptOpen,
    errors.Expired,
    errors.TooLarge,
    errors.TooMany,
    errors.InProgress,
    errors.CaUnreachable,
    errors.CaRefused,
    errors.CaBadAnswer,
    errors.PoolEmpty,
    errors.StoreUnavailable,
    errors.BridgeError,
)
"""Everything that an enrollment can be answered with, beside a certificate."""

ACTIVATE_ERRORS: Final[tuple[type[errors.BridgeError], ...]] = (
    errors.BadDeviceId,
    errors.BadProof,
    errors.Retired,
    errors.AttemptOpen,
    errors.Superseded,
    errors.TooLarge,
    errors.TooMany,
    errors.StoreUnavailable,
    errors.BridgeError,
)
"""Everything that an activation can be answered with, beside a certificate."""

_JSON: Final = "application/json"
_REQUEST_ID: Final = "5f0c1f0a9b3e4d77"
_STATUS_TEXT: Final = {
    401: "A secret is missing or wrong.",
    403: "The device may not come in.",
    404: "There is nothing here.",
    409: "The request collides with what the registry knows. Nothing was changed.",
    413: "The body is over 32 KiB.",
    422: "The request itself is wrong; repeating it unchanged cannot help.",
    429: "Too many requests are open.",
    500: "A fault of the bridge.",
    503: "Something that the bridge needs does not answer now. Nothing was lost; repeat the same request.",
}
_DEVICE_ID: Final[Operation] = {
    "name": "device_id",
    "in": "path",
    "required": True,
    "description": "1 to 64 letters, digits, dots, dashes and underscores; first and last a letter or digit. Unique"
    " without regard to case, but always spelled as first registered. Never an IP address or a server's name.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$"},
    "example": "pump-7",
}


def paths() -> dict[str, dict[str, Operation]]:
    """Return every operation by address and method."""
    return {
        "/devices/{device_id}/enroll": {"post": _enroll()},
        "/devices/{device_id}/activate": {"post": _activate()},
        "/v1/enroll": {"post": _enroll_by_body()},
        "/root/{sha256}": {"get": _root()},
        "/roots.pem": {"get": _roots_pem()},
        "/intermediates": {"get": _intermediates()},
        "/webhooks/thingsboard": {"post": _webhook()},
        "/healthz": {"get": _probe("healthz", "Is the process alive?", {"status": "ok"})},
        "/readyz": {"get": _readyz()},
        "/version": {"get": _probe("version", "Which version is this?", {"version": "0.1.0"})},
        "/metrics": {"get": _metrics()},
    }


def under_prefix(plain: dict[str, dict[str, Operation]], prefix: str) -> dict[str, dict[str, Operation]]:
    """Return what devices call once more, under the prefix."""
    again: dict[str, dict[str, Operation]] = {}
    for address, methods in plain.items():
        for method, operation in methods.items():
            if operation["tags"][0] in {"Enrollment", "Trust"}:
                twin = copy.deepcopy(operation) | {"deprecated": True}
                twin["operationId"] += "UnderPrefix"
                again.setdefault(prefix + address, {})[method] = twin
    return again


def problems(kinds: Iterable[type[errors.BridgeError]]) -> Operation:
    """Return the error answers by status, an example for each code."""
    answers: Operation = {}
    for kind in kinds:
        example = document(kind, _sentence(kind), _REQUEST_ID)
        status = example["status"]
        answer = answers.setdefault(
            str(status),
            {
                "description": _STATUS_TEXT[status],
                "content": {PROBLEM_JSON: {"schema": ref("Problem"), "examples": {}}},
            },
        )
        answer["content"][PROBLEM_JSON]["examples"][str(Code(kind.code))] = {
            "summary": example["title"],
            "value": example,
        }
        if issubclass(kind, errors.Unavailable | errors.AttemptOpen):
            answer["headers"] = {
                "Retry-After": {"description": "Seconds to wait before the next try.", "schema": {"type": "integer"}}
            }
    return dict(sorted(answers.items()))


def _sentence(kind: type[errors.BridgeError]) -> str:
    return (kind.__doc__ or "").split("\n", 1)[0]


def _body(shape: Operation, examples: Operation) -> Operation:
    named = {name: {"value": value} for name, value in examples.items()}
    return {"required": True, "content": {_JSON: {"schema": shape, "examples": named}}}


def _answer(description: str, shape: Operation, examples: Operation | None = None) -> Operation:
    content: Operation = {"schema": shape}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"description": description, "content": {_JSON: content}}


def _enroll() -> Operation:
    shapes = {"anyOf": [ref("EnrollmentRequest"), ref("OldEnrollmentRequest")]}
    answers = {"anyOf": [ref("OldEnrollmentAnswer"), ref("EnrollmentAnswer")]}
    examples = {
        "answer": schemas.NEW_ANSWER,
        "renewal": schemas.PENDING_ANSWER,
        "older client": schemas.OLD_ANSWER,
    }
    return {
        "tags": ["Enrollment"],
        "operationId": "enroll",
        "summary": "Enroll a device, or get the certificate of its key again",
        "description": "Answers 201 when a new certificate was issued, 200 when the stored one is answered again. The"
        " same request is the same id and the same public key, whatever the CSR's bytes: a device that lost power may"
        " make another CSR for its key.\n\nA renewal brings a new key, and a `proof` by the key of the current"
        " certificate. Its certificate is `pending` until it is activated; the current one stays in use until then. A"
        " proof that does not hold counts as none.\n\nA request with `csr` instead of `csr_pem` comes from an older"
        " client (deprecated): its answer also carries `certificate`, `wireguard_ip` and `wireguard_config`, and"
        " `ca_chain` ends with the root.",
        "parameters": [_DEVICE_ID],
        "security": [{}, {"voucher": []}],
        "requestBody": _body(
            shapes,
            {
                "request": schemas.NEW_REQUEST,
                "renewal": schemas.RENEWAL_REQUEST,
                "older client": schemas.OLD_REQUEST,
            },
        ),
        "responses": {
            "200": _answer("The stored certificate of this key.", answers, examples),
            "201": _answer("A new certificate.", answers, examples),
        }
        | problems(ENROLL_ERRORS),
    }


def _activate() -> Operation:
    return {
        "tags": ["Enrollment"],
        "operationId": "activate",
        "summary": "Put a renewed certificate into use",
        "description": "A renewal (an enrollment with a new key and a `proof`) is answered with a certificate in state"
        " `pending`. The device stores it beside the current one and then calls this, with a proof by the new key: from"
        " the answer on the new certificate is the current one. ThingsBoard is told, and only then the old one is"
        " revoked. Repeating it is always safe: 200 also if the certificate is current already.",
        "parameters": [_DEVICE_ID],
        "requestBody": _body(ref("ActivationRequest"), {"request": schemas.ACTIVATION_REQUEST}),
        "responses": {
            "200": _answer(
                "The certificate, now the current one.", ref("EnrollmentAnswer"), {"answer": schemas.NEW_ANSWER}
            )
        }
        | problems(ACTIVATE_ERRORS),
    }


def _enroll_by_body() -> Operation:
    return {
        "tags": ["Enrollment"],
        "operationId": "enrollById",
        "deprecated": True,
        "summary": "Enroll, for older clients that send their id in the body",
        "description": "The same as `POST /devices/{device_id}/enroll`, always in the older form, and always answered"
        " with 200: these clients take nothing else for success.",
        "security": [{}, {"voucher": []}],
        "requestBody": _body(ref("OldEnrollmentRequestWithId"), {"request": schemas.BODY_REQUEST}),
        "responses": {
            "200": _answer(
                "A new certificate, or the stored one.", ref("OldEnrollmentAnswer"), {"answer": schemas.OLD_ANSWER}
            )
        }
        | problems(ENROLL_ERRORS),
    }


def _root() -> Operation:
    return {
        "tags": ["Trust"],
        "operationId": "root",
        "summary": "The root with this fingerprint",
        "description": "As step-ca answers it, so that `step ca bootstrap` works. Ask over a connection that is used"
        " for nothing else, and compare the SHA-256 of the certificate's DER with the pinned one before using it.",
        "parameters": [
            {
                "name": "sha256",
                "in": "path",
                "required": True,
                "description": "SHA-256 of the root's DER, 64 hex digits.",
                "schema": {"type": "string", "pattern": "^[0-9A-Fa-f]{64}$"},
            }
        ],
        "responses": {
            "200": _answer(
                "The root, PEM.",
                {"type": "object", "properties": {"ca": {"type": "string"}}, "required": ["ca"]},
                {"answer": {"ca": schemas.ROOT_EXAMPLE}},
            )
        }
        | problems([errors.NotFound]),
    }


def _roots_pem() -> Operation:
    return {
        "tags": ["Trust"],
        "operationId": "rootsPem",
        "summary": "The root as PEM, for people",
        "description": "Compare its fingerprint with the one that the operator gave you.",
        "responses": {
            "200": {
                "description": "PEM.",
                "content": {"application/x-pem-file": {"schema": {"type": "string"}, "example": schemas.ROOT_EXAMPLE}},
            }
        },
    }


def _intermediates() -> Operation:
    shape = {
        "type": "object",
        "properties": {"crts": {"type": "array", "items": {"type": "string"}}},
        "required": ["crts"],
    }
    return {
        "tags": ["Trust"],
        "operationId": "intermediates",
        "summary": "The issuing CA and its issuers",
        "description": "As step-ca answers it: PEM, the issuing CA first, without the root.",
        "responses": {"200": _answer("Certificates.", shape, {"answer": {"crts": [schemas.ISSUER_EXAMPLE]}})},
    }


def _webhook() -> Operation:
    example = {"event": "CONNECT_EVENT", "deviceName": "pump-7", "deviceType": "rpi4"}
    return {
        "tags": ["Events"],
        "operationId": "thingsboardEvent",
        "summary": "A device connected to ThingsBoard",
        "description": "Nothing of the body is believed but that a device should be looked at now. Answered within"
        " milliseconds, also for unknown devices and for events that are not ours: an event that is answered with an"
        " error would hold up others. Losing every event delays, and loses nothing.",
        "security": [{"webhookSecret": []}],
        "requestBody": _body({"type": "object"}, {"connect event": example}),
        "responses": {"202": _answer("Taken, or ignored.", {"type": "object"})}
        | problems([errors.Unauthorized, errors.TooLarge]),
    }


def _probe(name: str, summary: str, example: Operation) -> Operation:
    field = next(iter(example))
    shape = {"type": "object", "properties": {field: {"type": "string"}}, "required": [field]}
    return {
        "tags": ["Operation"],
        "operationId": name,
        "summary": summary,
        "responses": {"200": _answer("Yes, this.", shape, {"answer": example})},
    }


def _readyz() -> Operation:
    up = {"ready": True, "parts": {"registry": {"up": True}, "ca": {"up": True}}, "watched": {"hawkbit": {"up": True}}}
    gone = {"up": False, "reason": "the CA does not answer", "advice": errors.CaUnreachable.advice}
    down = {"ready": False, "parts": {"registry": {"up": True}, "ca": gone}, "watched": {"hawkbit": {"up": True}}}
    return {
        "tags": ["Operation"],
        "operationId": "readyz",
        "summary": "Can a device enroll now, and which part is down?",
        "description": "An observation is answered again for two seconds, so that probes are no load on the CA.",
        "responses": {
            "200": _answer("Ready.", ref("Readiness"), {"answer": up}),
            "503": _answer("Not ready; `parts` says why.", ref("Readiness"), {"answer": down}),
        },
    }


def _metrics() -> Operation:
    return {
        "tags": ["Operation"],
        "operationId": "metrics",
        "summary": "Counters for Prometheus",
        "description": "Enrollments by outcome, their duration, activations by outcome, refused proofs, webhooks by"
        " outcome, unknown devices. No device is named.",
        "responses": {
            "200": {"description": "Text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
        },
    }
