"""Targets on the embedded hawkBit's Management API (`/rest/v1/targets…`), with its traps kept.

A list is created whole or not at all, and ids are created that no path can ever name again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hawkbit.standin_access import User, accepted_media, check_content_type
from hawkbit.standin_answers import Refusal
from hawkbit.standin_context import Context
from hawkbit.standin_query import BadQuery, parse_query, sort_key
from hawkbit.standin_state import StoredTarget
from hawkbit.standin_views import check_new_id, read_fields


@dataclass(frozen=True, slots=True)
class Targets:
    """Handlers; each takes the request and its authenticated user, and raises Refusal for every no."""

    context: Context

    async def collection(self, request: Request, user: User) -> Response:
        """`GET|POST /rest/v1/targets`."""
        return await (self._create(request, user) if request.method == "POST" else self._list(request, user))

    async def single(self, request: Request, user: User) -> Response:
        """`GET|PUT|DELETE /rest/v1/targets/{id}`."""
        match request.method:
            case "PUT":
                return await self._update(request, user)
            case "DELETE":
                self.context.require(user, "DELETE_TARGET")
                self.context.state.delete(self.context.target(request).controller_id)
                return self.context.answers.done()
            case _:
                self.context.require(user, "READ_TARGET")
                media = accepted_media(request, self.context.answers)
                return self.context.whole(request, user, self.context.target(request), media)

    async def attributes(self, request: Request, user: User) -> Response:
        """`GET /rest/v1/targets/{id}/attributes`: what the device said of itself; 204 for nothing."""
        self.context.require(user, "READ_TARGET")
        target = self.context.state.target(request.path_params["id"])
        if target is None or not target.attributes:
            return Response(status_code=204)
        return self.context.answers.body(dict(target.attributes), media=accepted_media(request, self.context.answers))

    async def _create(self, request: Request, user: User) -> Response:
        check_content_type(request, self.context.answers)
        media = accepted_media(request, self.context.answers)
        entries = await self.context.body(request)
        if not isinstance(entries, list):
            raise self.context.answers.unreadable()
        self.context.require(user, "CREATE_TARGET")
        fresh: dict[str, StoredTarget] = {}
        for entry, number in zip(entries, self.context.state.next_numbers(len(entries)), strict=True):
            target = self._new(entry, number, user)
            if target.controller_id in fresh or self.context.state.target(target.controller_id) is not None:
                raise self.context.answers.exists()  # the whole list: nothing of it was created
            fresh[target.controller_id] = target
        self.context.state.put(*fresh.values())
        shown = [self.context.show(request, user, target, listed=True) for target in fresh.values()]
        return self.context.answers.body(shown, status=201, media=media)

    def _new(self, entry: Any, number: int, user: User) -> StoredTarget:
        fields = read_fields(entry, self.context.answers)
        controller_id = check_new_id(fields.controller_id, self.context.answers)
        now = self.context.now()
        return StoredTarget(
            number=number,
            controller_id=controller_id,
            name=fields.name or controller_id,
            description=fields.description,
            address=fields.address,
            security_token=fields.security_token or self.context.new_token(),
            created_by=user.username,
            created_at=now,
            modified_by=user.username,
            modified_at=now,
        )

    async def _update(self, request: Request, user: User) -> Response:
        check_content_type(request, self.context.answers)
        media = accepted_media(request, self.context.answers)
        fields = read_fields(await self.context.body(request), self.context.answers)
        self.context.require(user, "UPDATE_TARGET")
        target = self.context.target(request)
        if fields.request_attributes is False:
            raise Refusal(400, None)
        changed = replace(
            target,
            name=fields.name or target.name,
            description=target.description if fields.description is None else fields.description,
            address=target.address if fields.address is None else fields.address,
            security_token=fields.security_token or target.security_token,
            request_attributes=fields.request_attributes or target.request_attributes,
        )
        if changed != target:
            changed = replace(changed, modified_by=user.username, modified_at=self.context.now())
            self.context.state.put(changed)
        return self.context.whole(request, user, changed, media)

    async def _list(self, request: Request, user: User) -> Response:
        media = accepted_media(request, self.context.answers)
        self.context.require(user, "READ_TARGET")
        offset, limit = self.context.page(request)
        found = list(self.context.state.targets())
        if (query := request.query_params.get("q")) is not None:
            try:
                matches = parse_query(query, self.context.answers.dialect)
            except BadQuery as error:
                raise self.context.answers.bad_query(error.problem) from error
            found = [target for target in found if matches(target)]
        for field, descending in reversed(self._order(request)):
            key = sort_key(field)
            if key is None:
                raise self.context.answers.bad_sort(known_syntax=True)
            found.sort(key=key, reverse=descending)
        page = found[offset : offset + limit]
        shown = [self.context.show(request, user, target, listed=True) for target in page]
        return self.context.answers.body({"content": shown, "total": len(found), "size": len(page)}, media=media)

    def _order(self, request: Request) -> list[tuple[str, bool]]:
        order = []
        for part in request.query_params.get("sort", "id:ASC").split(","):
            field, _, direction = part.partition(":")
            if direction.upper() not in {"ASC", "DESC"}:
                raise self.context.answers.bad_sort(known_syntax=False)
            order.append((field, direction.upper() == "DESC"))
        return order
