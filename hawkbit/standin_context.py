"""What every handler of the embedded hawkBit shares: state, answers, clock, and how a request is read.

Not here: what any single call does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hawkbit.standin_access import User
from hawkbit.standin_answers import Answers, Refusal
from hawkbit.standin_state import State, StoredTarget
from hawkbit.standin_views import show_target

PAGE_DEFAULT = 50
PAGE_MAX = 500
BODY_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Context:
    """`now` gives milliseconds since 1970, `new_token` an unguessable security token."""

    state: State
    answers: Answers
    now: Callable[[], int]
    new_token: Callable[[], str]

    def require(self, user: User, permission: str) -> None:
        """Raise the 403 Refusal unless the user has the permission."""
        if not user.may(permission, self.answers.dialect):
            raise self.answers.forbidden()

    def target(self, request: Request) -> StoredTarget:
        """Return the target that the path names. Raises the 404 Refusal."""
        controller_id: str = request.path_params["id"]
        target = self.state.target(controller_id)
        if target is None:
            raise self.answers.target_missing(controller_id)
        return target

    def page(self, request: Request) -> tuple[int, int]:
        """Return offset and limit; a limit above 500 is cut, one below 1 is the default 50."""
        try:
            offset = int(request.query_params.get("offset", "0"))
            limit = int(request.query_params.get("limit", str(PAGE_DEFAULT)))
        except ValueError as error:
            raise self.answers.bare(request, 400) from error
        return max(0, offset), min(limit, PAGE_MAX) if limit > 0 else PAGE_DEFAULT

    async def body(self, request: Request) -> Any:
        """Return the request's JSON. Raises the 400 Refusal, or 413 for one beyond 4 MiB."""
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > BODY_MAX:
                raise Refusal(413, None, {"Connection": "close"})
        try:
            return json.loads(bytes(data))
        except (ValueError, RecursionError) as error:
            raise self.answers.unreadable() from error

    def show(self, request: Request, user: User, target: StoredTarget, *, listed: bool) -> dict[str, Any]:
        """Return the target's JSON as this user may see it."""
        base = str(request.base_url).rstrip("/")
        return show_target(target, base, user, self.state, self.answers.dialect, listed=listed)

    def whole(self, request: Request, user: User, target: StoredTarget, media: str) -> Response:
        """Answer one target with all its links."""
        return self.answers.body(self.show(request, user, target, listed=False), media=media)
