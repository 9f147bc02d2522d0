"""The answers of the embedded hawkBit, in the words and shapes of the version it plays.

Three kinds of error, as hawkBit has them: its own (`errorCode`), its framework's bare ones (no `errorCode`,
another shape), and empty ones. Handlers raise `Refusal`; one place renders it.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hawkbit.standin_dialect import Dialect

JSON_MEDIA = "application/json"
HAL_MEDIA = "application/hal+json"
_EXCEPTION = "org.eclipse.hawkbit.repository.exception"
_REST = "org.eclipse.hawkbit.rest.exception"
_CODE = "hawkbit.server.error"


class Refusal(Exception):
    """An error answer. `body` None is an empty one, a missing `errorCode` a bare one."""

    def __init__(
        self,
        status: int,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None = None,
        media: str = JSON_MEDIA,
    ) -> None:
        super().__init__(status)
        self.media = media
        self.status = status
        self.body = body
        self.headers = dict(headers or {})


class Answers:
    """Builds answers and refusals of one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    def body(self, content: Any, *, status: int = 200, media: str = JSON_MEDIA) -> Response:
        """Answer JSON of hawkBit's media type."""
        return Response(
            json.dumps(content, ensure_ascii=False, separators=(",", ":")),
            status,
            media_type=media + self.dialect.charset,
        )

    def done(self) -> Response:
        """Answer a success that has nothing to say: an empty 200 or a 204."""
        return Response(status_code=self.dialect.empty_status)

    def render(self, refusal: Refusal) -> Response:
        """Turn a refusal into the answer on the wire."""
        headers = dict(refusal.headers)
        if refusal.status in self.dialect.closing_statuses:
            headers["Connection"] = "close"
        if refusal.body is None:
            return Response(status_code=refusal.status, headers=headers)
        answer = self.body(refusal.body, status=refusal.status, media=refusal.media)
        answer.headers.update(headers)
        return answer

    def bare(
        self, request: Request, status: int, headers: Mapping[str, str] | None = None, media: str = JSON_MEDIA
    ) -> Refusal:
        """Refuse as the framework does, before hawkBit's own code is reached."""
        body: dict[str, Any] = {
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "status": status,
            "error": HTTPStatus(status).phrase,
        }
        if self.dialect.bare_errors_name_path:
            path = request.scope["raw_path"].decode("ascii", "replace")
            body |= {"message": "", "path": posixpath.normpath(path) if "/." in path else path}
        return Refusal(status, body, headers, media)

    def exists(self, message: str = "The given entity already exists in database") -> Refusal:
        """409: the name is taken."""
        return _own(409, f"{_EXCEPTION}.EntityAlreadyExistsException", self.dialect.code_exists, message)

    def target_missing(self, controller_id: str) -> Refusal:
        """404: hawkBit has no such target."""
        message = f"Target with given identifier {{{controller_id}}} does not exist."
        return self._missing(message, "Target", controller_id)

    def metadata_missing(self, controller_id: str, key: str) -> Refusal:
        """404: the target has no such metadata entry."""
        if not self.dialect.missing_carries_info:
            message = f"TargetMetadata for given entity {{{controller_id}}} and with key {{{key}}} does not exist."
            return self._missing(message, "", "")
        entity = f"{controller_id}:{key}"
        message = f"Target metadata with given identifier {{{entity}}} does not exist."
        return self._missing(message, "Target metadata", entity)

    def forbidden(self) -> Refusal:
        """403: the user lacks the permission."""
        kind = f"{_EXCEPTION}.InsufficientPermissionException"
        return _own(403, kind, self.dialect.code_forbidden, "Insufficient Permission")

    def violation(self, message: str, *, prefix: bool = True) -> Refusal:
        """400: a field breaks one of hawkBit's constraints."""
        text = (self.dialect.violation_prefix if prefix else "") + message
        return _own(400, self.dialect.violation_class, f"{_CODE}.repo.constraintViolation", text)

    def unreadable(self) -> Refusal:
        """400: the body is not the JSON that the call takes."""
        kind = f"{_REST}.MessageNotReadableException"
        return _own(400, kind, f"{_CODE}.rest.body.notReadable", "The given request body is not well formed")

    def bad_address(self, address: str) -> Refusal:
        """400: the address is not a URI."""
        text = f"The given address {address} violates the RFC-2396 specification"
        kind = f"{_EXCEPTION}.InvalidTargetAddressException"
        return _own(400, kind, f"{_CODE}.repo.invalidTargetAddress", text)

    def integrity_violation(self) -> Refusal:
        """400 without errorCode: the database refused a value that was too long."""
        text = "The data provided violates integrity rules. Please ensure all required fields are valid."
        body = {"exceptionClass": "org.springframework.dao.DataIntegrityViolationException", "message": text}
        return Refusal(400, body)

    def metadata_quota(self, number: int, requested: int, limit: int) -> Refusal:
        """403 or 429: too many metadata entries."""
        text = (
            f"Quota exceeded: Cannot assign {requested} more {self.dialect.metadata_entity} entities "
            f"to Target '{number}'. The maximum is {limit}."
        )
        kind = f"{_EXCEPTION}.AssignmentQuotaExceededException"
        return _own(self.dialect.metadata_quota_status, kind, f"{_CODE}.quota.tooManyEntries", text)

    def unknown_config(self, key: str) -> Refusal:
        """400: no such configuration key."""
        kind = f"{_EXCEPTION}.InvalidTenantConfigurationKeyException"
        text = f"The given configuration key {key} does not exist."
        return _own(400, kind, f"{_CODE}.configKeyInvalid", text)

    def bad_config(self, value: Any, wanted: str) -> Refusal:
        """400: the value is of another type than the key's."""
        found = {bool: "Boolean", int: "Integer", str: "String"}.get(type(value), "Object")
        text = (
            f"Cannot parse the value {value} of type class java.lang.{found} into the type class "
            f"java.lang.{wanted} defined by the configuration key."
        )
        kind = "org.eclipse.hawkbit.tenancy.configuration.validator.TenantConfigurationValidatorException"
        return _own(400, kind, f"{_CODE}.configValueInvalid", text)

    def bad_sort(self, *, known_syntax: bool) -> Refusal:
        """400: the sort parameter is malformed, or names a field that is not there."""
        if known_syntax:
            kind, code = "SortParameterUnsupportedFieldException", "invalidField"
            text = "The given sort parameter field does not exist"
        else:
            kind, code = "SortParameterSyntaxErrorException", "sortParamSyntax"
            text = "The given sort parameter is not well formed"
        return _own(400, f"{_REST}.{kind}", f"{_CODE}.rest.param.{code}", text)

    def bad_query(self, problem: str | None) -> Refusal:
        """400: the FIQL does not parse (`problem` None), or names a field wrongly."""
        if problem is None:
            kind, code = "RSQLParameterSyntaxException", "rsqlParamSyntax"
            text = "The given search parameter is not well formed"
        else:
            kind, code, text = "RSQLParameterUnsupportedFieldException", "rsqlInvalidField", problem
        explained = text if self.dialect.query_errors_explain else None
        return _own(400, f"{_EXCEPTION}.{kind}", f"{_CODE}.rest.param.{code}", explained)

    def _missing(self, message: str, kind: str, entity: str) -> Refusal:
        refusal = _own(404, f"{_EXCEPTION}.EntityNotFoundException", self.dialect.code_missing, message)
        if self.dialect.missing_carries_info and refusal.body is not None:
            refusal.body = {**refusal.body, "info": {"type": kind, "entityId": entity}}
        return refusal


def _own(status: int, kind: str, code: str, message: str | None) -> Refusal:
    body = {"exceptionClass": kind, "errorCode": code}
    if message is not None:
        body["message"] = message
    return Refusal(status, body)
