"""``POST /webhooks/thingsboard``: an event comes in, a hint goes on, and 202 goes back at once.

The platform drops events of a slow endpoint, and an event that is answered with an error holds up others: so whatever
the body says is answered 202. Nothing of it is believed but "look at this id now". Only a wrong secret (401) and a
body over the limit (413) are answered otherwise.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response

from bridge.errors import BadDeviceId, TooLarge, Unauthorized
from bridge.model.identity import DeviceId
from bridge.routes.meters import WebhookOutcome
from bridge.routes.parts import Parts
from bridge.routes.reading import read_body
from bridge.routes.visit import visit_of
from enroll.wire import WEBHOOK_SECRET_HEADER

_ACCEPTED: Final = 202
_MAX_NAMES: Final = 64
_log = structlog.get_logger("bridge.routes")


class WebhookDoor:
    """Takes events, believes only names."""

    def __init__(self, parts: Parts) -> None:
        self._terms = parts.webhook
        self._secrets = tuple(secret.encode() for secret in parts.webhook.secrets)
        self._naming = parts.naming
        self._meters = parts.meters

    async def take(self, request: Request) -> Response:
        """Answer 202 without waiting for anything but the body.

        :raises Unauthorized: the secret is missing or wrong. The body is not looked at.
        :raises TooLarge: the body is over the limit.
        """
        visit = visit_of(request)
        visit.door = "webhook"
        try:
            self._check_secret(request.headers.get(WEBHOOK_SECRET_HEADER, ""))
            outcome = self._pass_on(await read_body(request), request)
        except Unauthorized:
            self._meters.webhook(WebhookOutcome.UNAUTHORIZED)
            raise
        except TooLarge:
            self._meters.webhook(WebhookOutcome.TOO_LARGE)
            raise
        visit.outcome = outcome.value
        self._meters.webhook(outcome)
        return Response(b"{}", _ACCEPTED, media_type="application/json")

    def _check_secret(self, shown: str) -> None:
        presented = shown.encode("latin-1")
        # Each is compared in full, so that the time tells neither which one failed nor where.
        matches = [hmac.compare_digest(presented, secret) for secret in self._secrets]
        if not any(matches):
            raise Unauthorized("the webhook secret is missing or wrong")

    def _pass_on(self, body: bytes, request: Request) -> WebhookOutcome:
        try:
            devices = self._well_formed(self._terms.event_names(body, request.headers)[:_MAX_NAMES])
            if not devices:
                return WebhookOutcome.IGNORED
            return WebhookOutcome.ACCEPTED if self._terms.look_at(devices) else WebhookOutcome.DROPPED
        except Exception:  # noqa: BLE001 - an answer other than 2xx would make the platform hold up other events
            _log.exception("event could not be passed on")
            return WebhookOutcome.UNREADABLE

    def _well_formed(self, names: Sequence[str]) -> tuple[DeviceId, ...]:
        devices = []
        for name in names:
            try:
                devices.append(self._naming.parse(name))
            except BadDeviceId:
                self._meters.unknown_devices(1)
        return tuple(devices)
