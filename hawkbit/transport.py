"""One call to the Management API: bounded, retried where that is safe, and judged.

Not here: what the calls mean (`hawkbit.client`). Guarantees: only a 2xx comes back, everything else is one of
`hawkbit.errors`; an answer larger than the limit is never read to its end; a call ends within `Limits.total`.

Judged by status, then by the presence of `errorCode`, because its spelling differs between hawkBit's versions
(0.3: `entitiyAlreayExists`, 1.x: `entityAlreadyExists`).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx
import tenacity

from hawkbit.errors import (
    ConcurrentChange,
    HawkbitBadAnswer,
    HawkbitBusy,
    HawkbitError,
    HawkbitForbidden,
    HawkbitMisconfigured,
    HawkbitRefused,
    HawkbitUnauthorized,
    HawkbitUnreachable,
    QuotaExceeded,
    TargetExists,
    TargetMissing,
)

JSON_MEDIA = "application/json"
IDEMPOTENT = frozenset({"GET", "PUT", "DELETE"})
_ERROR_CODE = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of every call. Times in seconds, `body` in bytes.

    `total` covers all attempts and the waits between them; whoever claims work for a call claims it longer.
    HawkBit's flood filter lets the next request in after 0.8 s, so the waits must be able to reach that.
    """

    attempt: float = 5.0
    total: float = 15.0
    attempts: int = 4
    first_wait: float = 0.25
    longest_wait: float = 2.0
    body: int = 4 * 1024 * 1024

    def __post_init__(self) -> None:
        """Refuse bounds that bound nothing."""
        if not 0 < self.attempt <= self.total or self.attempts < 1 or self.body < 1:
            raise ValueError("limits: 0 < attempt <= total, at least one attempt, a body of at least one byte")
        if not 0 <= self.first_wait <= self.longest_wait:
            raise ValueError("limits: 0 <= first_wait <= longest_wait")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer read to its end, within the limit."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON. Raises HawkbitBadAnswer."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise HawkbitBadAnswer(
                "hawkBit answered something that is not JSON; check that HAWKBIT_URL leads to hawkBit itself"
            ) from error

    @property
    def error_code(self) -> str | None:
        """HawkBit's `errorCode`, or None if the body has none (then hawkBit's API did not write it)."""
        try:
            body = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        code = body.get("errorCode") if isinstance(body, dict) else None
        return code if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else None


class Transport:
    """Sends requests for one user of one hawkBit, over a connection pool that belongs to the caller."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        url: str,
        credentials: tuple[str, str],
        *,
        limits: Limits,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.base = _base_url(url)
        self.limits = limits
        self._http = http
        self._auth = httpx.BasicAuth(*credentials)
        self._sleep = sleep

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Any = None,
        needs: tuple[str, ...] = (),
    ) -> Reply:
        """Send one request and return its 2xx answer.

        Tried again, with growing waits, if nothing was done or the method is idempotent, and the trouble is
        one that passes. `path` is encoded already; `needs` are the permissions to name at a 403.
        Raises the family of `hawkbit.errors`, nothing else.
        """
        request = self._http.build_request(
            method,
            self.base + path,
            params=params,
            content=None if body is None else json.dumps(body).encode(),
            headers={"Accept": JSON_MEDIA, "Content-Type": JSON_MEDIA, "Accept-Encoding": "identity"},
            # Waiting for our own pool and for the handshake end first, so that it is known that nothing was sent.
            timeout=httpx.Timeout(self.limits.attempt, connect=self.limits.attempt / 2, pool=self.limits.attempt / 2),
        )
        retrying = tenacity.AsyncRetrying(
            sleep=self._sleep,
            stop=tenacity.stop_after_attempt(self.limits.attempts),
            wait=tenacity.wait_exponential(self.limits.first_wait, self.limits.longest_wait)
            + tenacity.wait_random(0, self.limits.first_wait),
            retry=tenacity.retry_if_exception(lambda error: _may_repeat(error, method)),
            reraise=True,
        )
        try:
            async with asyncio.timeout(self.limits.total):
                reply: Reply = await retrying(self._attempt, request, needs)
        except TimeoutError as error:
            raise HawkbitUnreachable(
                f"hawkBit did not answer {method} {path} within {self.limits.total:g} s; is it overloaded?"
            ) from error
        return reply

    async def _attempt(self, request: httpx.Request, needs: tuple[str, ...]) -> Reply:
        what = f"{request.method} {request.url.path}"
        try:
            async with asyncio.timeout(self.limits.attempt):
                reply = await self._exchange(request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _unconnected(self.base, error) from error
        except (httpx.HTTPError, TimeoutError) as error:
            raise HawkbitUnreachable(
                f"hawkBit gave no whole answer to {what} ({type(error).__name__}); is it running?"
            ) from error
        return judge(reply, what, needs)

    async def _exchange(self, request: httpx.Request) -> Reply:
        response = await self._http.send(request, auth=self._auth, stream=True, follow_redirects=False)
        try:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > self.limits.body:
                    raise HawkbitBadAnswer(f"hawkBit's answer is larger than {self.limits.body} bytes; is it hawkBit?")
            return Reply(response.status_code, bytes(body))
        finally:
            await response.aclose()


def judge(reply: Reply, what: str, needs: tuple[str, ...] = ()) -> Reply:
    """Return `reply` if it is a 2xx, whatever its body; or raise what it means. `what` names the call."""
    status = reply.status
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return reply
    code = reply.error_code
    if status == HTTPStatus.UNAUTHORIZED:
        raise HawkbitUnauthorized(f"hawkBit refused our user at {what}; check HAWKBIT_USERNAME and HAWKBIT_PASSWORD")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise HawkbitUnreachable(f"hawkBit, or a proxy before it, answered {what} with {status}")
    raise _refusal(status, code, what, needs)


def _refusal(status: int, code: str | None, what: str, needs: tuple[str, ...]) -> HawkbitError:
    if code is None:
        return _without_code(status, what, needs)
    folded = code.lower()
    message = f"hawkBit refused {what}: {status} {code}"
    if ".quota." in folded:
        return QuotaExceeded(message, status=status, code=code)
    if status == HTTPStatus.FORBIDDEN and "insufficientpermission" in folded:
        return _forbidden(what, needs)
    if folded.endswith("concurrentmodification"):
        return ConcurrentChange(message, status=status, code=code)
    kind = {404: TargetMissing, 409: TargetExists}.get(status, HawkbitRefused)
    return kind(message, status=status, code=code)


def _without_code(status: int, what: str, needs: tuple[str, ...]) -> HawkbitError:
    match status:
        case 429:
            return HawkbitBusy(
                f"hawkBit's flood filter turned {what} away; call it from a private address "
                "or raise hawkbit.server.security.dos.filter.*",
                nothing_done=True,
            )
        case 403:
            return _forbidden(what, needs)
        case 400:
            return HawkbitRefused(f"hawkBit refused {what}: 400 without a reason", status=status)
        case _:
            return HawkbitMisconfigured(
                f"{what} was answered {status} by something that is not hawkBit's Management API; "
                "check HAWKBIT_URL (scheme, host, port, path before /rest/v1) and any proxy on the way"
            )


def _forbidden(what: str, needs: tuple[str, ...]) -> HawkbitForbidden:
    grant = f"; grant {', '.join(needs)}" if needs else ""
    return HawkbitForbidden(f"hawkBit's user may not {what}{grant}", needed=needs)


def _unconnected(base: str, error: Exception) -> HawkbitError:
    if isinstance(error, httpx.PoolTimeout):
        return HawkbitUnreachable("too many calls to hawkBit are under way; it answers too slowly", nothing_done=True)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return HawkbitMisconfigured(f"hawkBit's certificate at {base} is not trusted; check the host name and its CA")
    return HawkbitUnreachable(
        f"no connection to hawkBit at {base} ({type(error).__name__}); is it running, is HAWKBIT_URL right?",
        nothing_done=True,
    )


def _may_repeat(error: BaseException, method: str) -> bool:
    if isinstance(error, HawkbitUnreachable):
        return error.nothing_done or method in IDEMPOTENT
    return isinstance(error, ConcurrentChange)


def _base_url(text: str) -> str:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise HawkbitMisconfigured("HAWKBIT_URL is not a URL") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise HawkbitMisconfigured("HAWKBIT_URL must be http:// or https:// and a host")
    if url.userinfo or url.query or url.fragment:
        raise HawkbitMisconfigured(
            "HAWKBIT_URL must have no user, query or fragment; use HAWKBIT_USERNAME and HAWKBIT_PASSWORD"
        )
    return str(url).rstrip("/")
