"""Tenant configuration and user information on the embedded hawkBit's Management API.

Keys: those that decide how devices authenticate and how often they poll. HawkBit has more; they are unknown here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hawkbit.standin_access import User, accepted_media, check_content_type
from hawkbit.standin_context import Context
from hawkbit.standin_state import ConfigurationValue

TENANT = "DEFAULT"
_PERMISSION = "TENANT_CONFIGURATION"
_DURATION = re.compile(r"\d{1,2}:[0-5]\d:[0-5]\d")


@dataclass(frozen=True, slots=True)
class System:
    """Handlers; each takes the request and its authenticated user, and raises Refusal for every no."""

    context: Context

    async def user_info(self, request: Request, user: User) -> Response:
        """`GET /rest/v1/userinfo`, since 1.0."""
        permissions = sorted(user.names(self.context.answers.dialect))
        content = {"tenant": TENANT, "username": user.username, "permissions": permissions}
        return self.context.answers.body(content, media=accepted_media(request, self.context.answers))

    async def configurations(self, request: Request, user: User) -> Response:
        """`GET /rest/v1/system/configs`, and since 1.0 `PUT` of several values."""
        self.context.require(user, _PERMISSION)
        answers, state = self.context.answers, self.context.state
        if request.method == "GET":
            media = accepted_media(request, answers)
            content = {}
            for key in state.defaults:
                shown = self._shown(request, key)
                href = shown.pop("_links")["self"]["href"]
                content[key] = {**shown, "links": [{"rel": "self", "href": href}]}
            return answers.body(content, media=media)
        check_content_type(request, answers)
        body = await self.context.body(request)
        if not isinstance(body, dict):
            raise answers.unreadable()
        values = {key: self._checked(key, value) for key, value in body.items()}
        for key, value in values.items():
            state.configure(key, value, user.username, self.context.now())
        return answers.done()

    async def configuration(self, request: Request, user: User) -> Response:
        """`GET|PUT|DELETE /rest/v1/system/configs/{key}`."""
        self.context.require(user, _PERMISSION)
        answers, key = self.context.answers, request.path_params["key"]
        if request.method == "PUT":
            return await self._configure(request, user, key)
        media = accepted_media(request, answers)
        if key not in self.context.state.defaults:
            raise answers.unknown_config(key)
        if request.method == "GET":
            return answers.body(self._shown(request, key), media=media)
        self.context.state.unconfigure(key)
        return answers.done()

    async def _configure(self, request: Request, user: User, key: str) -> Response:
        answers = self.context.answers
        check_content_type(request, answers)
        media = accepted_media(request, answers)
        body = await self.context.body(request)
        if not isinstance(body, dict):
            raise answers.unreadable()
        value = self._checked(key, body.get("value"))
        self.context.state.configure(key, value, user.username, self.context.now())
        if not answers.dialect.metadata_answers_body:
            return answers.done()
        return answers.body(self._shown(request, key), media=media)

    def _checked(self, key: str, value: Any) -> Any:
        answers = self.context.answers
        if key not in self.context.state.defaults:
            raise answers.unknown_config(key)
        if isinstance(self.context.state.defaults[key], bool):
            if answers.dialect.config_strings_are_flags and isinstance(value, str):
                return value.lower() == "true"
            if not isinstance(value, bool):
                raise answers.bad_config(value, "Boolean")
            return value
        if not isinstance(value, str):
            raise answers.bad_config(value, "String")
        if "polling" in key and not _DURATION.fullmatch(value):
            raise answers.bad_config(value, "String")
        return value

    def _shown(self, request: Request, key: str) -> dict[str, Any]:
        own: ConfigurationValue | None = self.context.state.own_value(key)
        shown: dict[str, Any] = {"value": self.context.state.value(key)}
        if own is not None:
            shown |= {
                "lastModifiedAt": own.modified_at,
                "lastModifiedBy": own.modified_by,
                "createdAt": own.created_at,
                "createdBy": own.created_by,
            }
        shown["global"] = own is None
        href = f"{str(request.base_url).rstrip('/')}/rest/v1/system/configs/{key}"
        shown["_links"] = {"self": {"href": href}}
        return shown
