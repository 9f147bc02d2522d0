"""Probes: ``/healthz``, ``/readyz``, ``/version``, ``/metrics``.

Ready means that a device can enroll now. Systems that are caught up with later are shown beside, but do not take the
server out of rotation: enrollment goes on without them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from bridge.errors import BridgeError
from bridge.routes.answers import compact
from bridge.routes.parts import Check, Parts
from bridge.routes.visit import visit_of

_JSON: Final = "application/json"
_OK, _UNAVAILABLE = 200, 503
_FRESH: Final = timedelta(seconds=2)
"""How long an observation is answered again: probes come often and must not become load on the CA."""
_PATIENCE: Final = 3.0
"""Seconds that one part has to answer."""
_log = structlog.get_logger("bridge.routes")


class HealthDoor:
    """Asks the parts, all at once, and says which one is down."""

    def __init__(self, parts: Parts) -> None:
        self._needed, self._watched = parts.readiness, parts.watched
        self._clock = parts.clock
        self._registry = parts.meters.registry
        self._version = compact({"version": parts.version})
        self._lock = asyncio.Lock()
        self._seen: tuple[datetime, dict[str, Any]] | None = None

    async def healthz(self, request: Request) -> Response:
        """Answer 200 as long as the event loop turns."""
        _quietly(request, "healthz")
        return Response(b'{"status":"ok"}', media_type=_JSON)

    async def readyz(self, request: Request) -> Response:
        """Answer 200 if every part that enrollment needs works, else 503; both name every part."""
        _quietly(request, "readyz")
        async with self._lock:
            now = self._clock.now()
            if self._seen is None or not timedelta() <= now - self._seen[0] < _FRESH:
                self._seen = (now, await self._look())
        report = self._seen[1]
        status = _OK if report["ready"] else _UNAVAILABLE
        return Response(compact(report), status, {"Cache-Control": "no-store"}, media_type=_JSON)

    async def version(self, request: Request) -> Response:
        """Answer the bridge's version."""
        _quietly(request, "version")
        return Response(self._version, media_type=_JSON)

    async def metrics(self, request: Request) -> Response:
        """Answer the counters in Prometheus' text format."""
        _quietly(request, "metrics")
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def _look(self) -> dict[str, Any]:
        needed, watched = await asyncio.gather(_ask_all(self._needed), _ask_all(self._watched))
        ready = all(state["up"] for state in needed.values())
        return {"ready": ready, "parts": needed, "watched": watched}


async def _ask_all(checks: Mapping[str, Check]) -> dict[str, dict[str, Any]]:
    states = await asyncio.gather(*(_ask(name, check) for name, check in checks.items()))
    return dict(zip(checks, states, strict=True))


async def _ask(name: str, check: Check) -> dict[str, Any]:
    try:
        async with asyncio.timeout(_PATIENCE):
            await check()
    except BridgeError as e:
        return {"up": False, "reason": str(e), "advice": e.advice}
    except TimeoutError:
        return {"up": False, "reason": f"no answer within {_PATIENCE:g} seconds", "advice": BridgeError.advice}
    except Exception:  # noqa: BLE001 - a probe answers whatever happens; the log has it
        _log.exception("readiness check failed", part=name)
        return {"up": False, "reason": "the check itself failed", "advice": BridgeError.advice}
    return {"up": True}


def _quietly(request: Request, door: str) -> None:
    visit = visit_of(request)
    visit.door, visit.quiet = door, True
