"""The device side (DDI) of the embedded hawkBit: a poll, and the device's account of itself.

Kept here is the trap that makes retiring hard: with gateway token or header authentication, the poll of an
unknown id creates the target, also one that was deleted a moment ago. Not here: updates.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from hawkbit.models import Target
from hawkbit.standin_access import accepted_media, check_content_type
from hawkbit.standin_answers import Refusal
from hawkbit.standin_context import Context
from hawkbit.standin_state import StoredTarget
from hawkbit.standin_system import TENANT

_SEPARATOR = re.compile(r"[;,]")


@dataclass(frozen=True, slots=True)
class Devices:
    """Handlers of `/{tenant}/controller/v1/…`; they authenticate the device themselves."""

    context: Context

    async def poll(self, request: Request) -> Response:
        """`GET /{tenant}/controller/v1/{id}`: what to do next, and how long to sleep."""
        self._authenticate(request)
        media = accepted_media(request, self.context.answers)
        controller_id: str = request.path_params["id"]
        known = self.context.state.target(controller_id) or self._plug_and_play(controller_id)
        client = request.client.host if request.client else "127.0.0.1"
        target = replace(
            known,
            last_request_at=self.context.now(),
            address=f"http://{client}",
            update_status="registered" if known.update_status == "unknown" else known.update_status,
        )
        self.context.state.put(target)
        sleep = self.context.state.value("pollingTime")
        answer: dict[str, object] = {"config": {"polling": {"sleep": sleep}}}
        if target.request_attributes:
            base = str(request.base_url).rstrip("/")
            path = f"{request.path_params['tenant']}/controller/v1/{quote(controller_id, safe='')}"
            answer["_links"] = {"configData": {"href": f"{base}/{path}/configData"}}
        return self.context.answers.body(answer, media=media)

    async def config_data(self, request: Request) -> Response:
        """`PUT /{tenant}/controller/v1/{id}/configData`: never creates a target."""
        self._authenticate(request)
        answers = self.context.answers
        check_content_type(request, answers)
        body = await self.context.body(request)
        data = body.get("data") if isinstance(body, dict) else None
        mode = body.get("mode") or "merge" if isinstance(body, dict) else None
        if not isinstance(data, dict) or mode not in {"merge", "replace", "remove"}:
            raise answers.unreadable()
        target = self.context.target(request)
        given = {str(key): str(value) for key, value in data.items()}
        match mode:
            case "merge":
                attributes = {**target.attributes, **given}
            case "replace":
                attributes = given
            case _:
                attributes = {key: value for key, value in target.attributes.items() if key not in given}
        self.context.state.put(replace(target, attributes=attributes, request_attributes=False))
        return Response(status_code=200)

    def _plug_and_play(self, controller_id: str) -> StoredTarget:
        now, number = self.context.now(), self.context.state.next_numbers(1)[0]
        return StoredTarget(
            number=number,
            controller_id=controller_id,
            name=controller_id,
            description=f"Plug and Play target: {controller_id}",
            address=None,
            security_token=self.context.new_token(),
            created_by=Target.PLUG_AND_PLAY,
            created_at=now,
            modified_by=Target.PLUG_AND_PLAY,
            modified_at=now,
        )

    def _authenticate(self, request: Request) -> None:
        """Raise the empty 401 Refusal unless one of the ways that are switched on knows this device."""
        if request.path_params["tenant"].upper() != TENANT:
            raise Refusal(401, None)
        if not (self._by_header(request) or self._by_gateway_token(request) or self._by_target_token(request)):
            raise Refusal(401, None)

    def _by_target_token(self, request: Request) -> bool:
        target = self.context.state.target(request.path_params["id"])
        given = _token(request, "targettoken")
        if target is None or not given or not self.context.state.value("authentication.targettoken.enabled"):
            return False
        return hmac.compare_digest(given.encode(), target.security_token.encode())

    def _by_gateway_token(self, request: Request) -> bool:
        given = _token(request, "gatewaytoken")
        if not given or not self.context.state.value("authentication.gatewaytoken.enabled"):
            return False
        key: str = self.context.state.value("authentication.gatewaytoken.key")
        return hmac.compare_digest(given.encode(), key.encode())

    def _by_header(self, request: Request) -> bool:
        """Believe the proxy's headers, as hawkBit does: an empty authority matches an empty header."""
        if not self.context.state.value("authentication.header.enabled"):
            return False
        if request.headers.get(self.context.answers.dialect.id_header) != request.path_params["id"]:
            return False
        configured: str = self.context.state.value("authentication.header.authority")
        trusted = {part.strip().lower() for part in _SEPARATOR.split(configured)}
        return any(claim.strip().lower() in trusted for claim in self._claims(request))

    def _claims(self, request: Request) -> Iterator[str]:
        """Yield the authorities that the request names: numbered from 1 up to the first gap.

        1.x also takes a list without number, and number 0.
        """
        dialect = self.context.answers.dialect
        if dialect.authority_lists:
            for name in (dialect.authority_header, f"{dialect.authority_header}-0"):
                if (value := request.headers.get(name)) is not None:
                    yield from _SEPARATOR.split(value)
        number = 1
        while (value := request.headers.get(f"{dialect.authority_header}-{number}")) is not None:
            yield value
            number += 1


def _token(request: Request, scheme: str) -> str:
    name, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if name.lower() == scheme else ""
