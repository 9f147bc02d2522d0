"""A target's metadata on the embedded hawkBit's Management API (`/rest/v1/targets/{id}/metadata…`).

The call where the versions differ most: 0.3 answers bodies, needs POST to create and other permissions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hawkbit.models import METADATA_KEY_MAX, METADATA_VALUE_MAX
from hawkbit.standin_access import User, accepted_media, check_content_type
from hawkbit.standin_context import Context

ENTRIES_MAX = 100


@dataclass(frozen=True, slots=True)
class Metadata:
    """Handlers; each takes the request and its authenticated user, and raises Refusal for every no."""

    context: Context

    async def collection(self, request: Request, user: User) -> Response:
        """`GET|POST /rest/v1/targets/{id}/metadata`."""
        if request.method == "POST":
            return await self._add(request, user)
        answers = self.context.answers
        media = accepted_media(request, answers)
        self.context.require(user, answers.dialect.read_metadata)
        shown = [_entry(key, value) for key, value in sorted(self.context.target(request).metadata.items())]
        offset, limit = self.context.page(request)
        page = shown[offset : offset + limit]
        return answers.body({"content": page, "total": len(shown), "size": len(page)}, media=media)

    async def single(self, request: Request, user: User) -> Response:
        """`GET|PUT|DELETE /rest/v1/targets/{id}/metadata/{key}`; JSON only, HAL is 406."""
        answers, key = self.context.answers, request.path_params["key"]
        if request.method == "PUT":
            return await self._put(request, user, key)
        reading = request.method == "GET"
        media = accepted_media(request, answers, hal=not reading)
        self.context.require(user, answers.dialect.read_metadata if reading else answers.dialect.write_metadata)
        target = self.context.target(request)
        if key not in target.metadata:
            raise answers.metadata_missing(target.controller_id, key)
        if reading:
            return answers.body(_entry(key, target.metadata[key]), media=media)
        rest = {name: value for name, value in target.metadata.items() if name != key}
        self.context.state.put(replace(target, metadata=rest))
        return answers.done()

    async def _add(self, request: Request, user: User) -> Response:
        answers = self.context.answers
        check_content_type(request, answers)
        media = accepted_media(request, answers)
        entries = await self.context.body(request)
        if not isinstance(entries, list):
            raise answers.unreadable()
        self.context.require(user, answers.dialect.write_metadata)
        target = self.context.target(request)
        metadata = dict(target.metadata)
        pairs = [self._pair(entry) for entry in entries]
        if len(metadata) + len(pairs) > ENTRIES_MAX:
            named = len(pairs) if answers.dialect.metadata_answers_body else len(metadata) + len(pairs)
            raise answers.metadata_quota(target.number, named, ENTRIES_MAX)
        for key, value in pairs:
            if key in metadata:
                raise answers.exists(f"Metadata entry with key '{key}' already exists")
            metadata[key] = value
        self.context.state.put(replace(target, metadata=metadata))
        if not answers.dialect.metadata_answers_body:
            return Response(status_code=201)
        return answers.body([_entry(key, value) for key, value in pairs], status=201, media=media)

    async def _put(self, request: Request, user: User, key: str) -> Response:
        answers = self.context.answers
        check_content_type(request, answers, hal=False)
        body = await self.context.body(request)
        if not isinstance(body, dict):
            raise answers.unreadable()
        self.context.require(user, answers.dialect.write_metadata)
        target = self.context.target(request)
        if key not in target.metadata and not answers.dialect.metadata_put_creates:
            raise answers.metadata_missing(target.controller_id, key)
        _, value = self._pair({**body, "key": key})
        if key not in target.metadata and len(target.metadata) >= ENTRIES_MAX:
            raise answers.metadata_quota(target.number, len(target.metadata) + 1, ENTRIES_MAX)
        self.context.state.put(replace(target, metadata={**target.metadata, key: value}))
        return answers.body(_entry(key, value)) if answers.dialect.metadata_answers_body else answers.done()

    def _pair(self, entry: Any) -> tuple[str, str | None]:
        """Check one entry. A long text is a violation in 0.3 and a database error without code in 1.x."""
        answers = self.context.answers
        if not isinstance(entry, dict):
            raise answers.unreadable()
        key, value = entry.get("key"), entry.get("value")
        if not isinstance(key, str | None) or not isinstance(value, str | None):
            raise answers.unreadable()
        if value is None and not answers.dialect.metadata_null_allowed:
            raise answers.violation("createMetadata.value must not be null.", prefix=False)
        for text, name, most in ((key, "key", METADATA_KEY_MAX), (value, "value", METADATA_VALUE_MAX)):
            if text is not None and len(text) > most:
                if not answers.dialect.metadata_answers_body:
                    raise answers.integrity_violation()
                problem = f"generateTargetMetadata.{name} size must be between 0 and {most}."
                raise answers.violation(problem, prefix=False)
        if not key:
            raise answers.violation("key must not be null.", prefix=False)
        return key, value


def _entry(key: str, value: str | None) -> dict[str, str]:
    return {"key": key} if value is None else {"key": key, "value": value}
