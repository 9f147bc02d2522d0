"""One HTTP exchange with ThingsBoard: bounded in time and size, repeated only where that is harmless.

Responsible for turning httpx's failures into this package's errors. Knows nothing of log-ins or devices.
"""

import asyncio
import functools
import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import httpx
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from thingsboard.errors import (
    CertificateTaken,
    DeviceExists,
    DeviceGone,
    PlatformBadAnswer,
    PlatformBusy,
    PlatformError,
    PlatformMisconfigured,
    PlatformRefused,
    PlatformRejected,
    PlatformUnreachable,
    StaleVersion,
)

TOTAL_TIMEOUT = 20.0
"""Seconds after which any one call of the client is over, log-in and repeats included. Claims outlive it."""
MAX_ANSWER = 4 * 1024 * 1024
"""Bytes read of one answer: a page of device profiles is the largest, some 5 KiB each."""

_ATTEMPTS = 3
_TIMEOUT = httpx.Timeout(10.0, connect=5.0)
_NEVER_LEFT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_CODE_LIMIT = 41
_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of one answer."""

    status: int
    body: bytes
    retry_after: str | None = None

    @property
    def text(self) -> str:
        """The body as text. Errors say ISO-8859-1 and mostly are UTF-8, so the label decides nothing."""
        try:
            return self.body.decode()
        except UnicodeDecodeError:
            return self.body.decode("iso-8859-1")

    def json(self) -> Any:
        """Read the body as JSON; raises `PlatformBadAnswer` where it is none."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError) as e:
            raise PlatformBadAnswer(
                f"ThingsBoard answered {self.status} without JSON; check THINGSBOARD_URL, "
                "a proxy or another program may be listening there"
            ) from e

    @property
    def error_code(self) -> int | None:
        """ThingsBoard's own error code, None in plain-text answers."""
        code = self._error().get("errorCode")
        return code if isinstance(code, int) else None

    @property
    def message(self) -> str:
        """What ThingsBoard says went wrong, shortened: it may repeat what was sent."""
        message = self._error().get("message")
        text = message if isinstance(message, str) else self.text
        return " ".join(text.split())[:200]

    def _error(self) -> dict[str, Any]:
        try:
            found = json.loads(self.text)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Transport:
    """Sends requests to one ThingsBoard over an injected client."""

    http: httpx.AsyncClient
    url: str

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, str] | None = None,
        token: str | None = None,
        idempotent: bool,
    ) -> Answer:
        """Send one request and return the answer, whatever its status.

        Repeats, at most twice, what surely never left, and for idempotent requests also lost connections.
        Raises `PlatformUnreachable` where no answer came, `PlatformBadAnswer` where it is too large.
        """
        headers = {"Accept": "application/json, */*"}
        if token is not None:
            headers["X-Authorization"] = f"Bearer {token}"
        request = self.http.build_request(
            method, self.url.rstrip("/") + path, json=body, params=params, headers=headers, timeout=_TIMEOUT
        )
        retrying = AsyncRetrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.1, max=1.0),
            retry=retry_if_exception(lambda e: _worth_repeating(e, idempotent=idempotent)),
            reraise=True,
        )
        try:
            return await retrying(self._exchange, request)
        except (httpx.HTTPError, httpx.StreamError) as e:
            raise PlatformUnreachable(
                f"no answer from ThingsBoard at {self.url} ({type(e).__name__}); "
                "check that it runs and that THINGSBOARD_URL is right",
                surely_not_sent=isinstance(e, _NEVER_LEFT),
            ) from e

    async def _exchange(self, request: httpx.Request) -> Answer:
        response = await self.http.send(request, stream=True, follow_redirects=False)
        try:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER:
                    raise PlatformBadAnswer(f"an answer of ThingsBoard exceeds {MAX_ANSWER} bytes")
            return Answer(response.status_code, bytes(body), response.headers.get("retry-after"))
        finally:
            await response.aclose()


P = ParamSpec("P")
T = TypeVar("T")


def bounded(call: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Give a call of the client `TOTAL_TIMEOUT` seconds in all; past them it raises `PlatformUnreachable`."""

    @functools.wraps(call)
    async def within(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            async with asyncio.timeout(TOTAL_TIMEOUT):
                return await call(*args, **kwargs)
        except TimeoutError as e:
            raise PlatformUnreachable(
                f"ThingsBoard took more than {TOTAL_TIMEOUT:.0f} s; it may be overloaded, see its log"
            ) from e

    return within


_BY_STATUS: Mapping[int, Callable[[str], PlatformError]] = {
    401: lambda said: PlatformRefused(
        f"ThingsBoard refused the login: {said}; check THINGSBOARD_USERNAME and THINGSBOARD_PASSWORD"
    ),
    404: lambda said: DeviceGone(f"ThingsBoard does not know it: {said}"),
    409: lambda said: StaleVersion(f"changed by someone else since it was read: {said}"),
}


def failure(answer: Answer) -> PlatformError:
    """Name what an unsuccessful answer means, over all versions from 3.6 to 4.4."""
    status, said = answer.status, answer.message
    if status in _BY_STATUS:
        return _BY_STATUS[status](said)
    if status == httpx.codes.FORBIDDEN:
        advice = "raise the tenant's limit" if answer.error_code == _CODE_LIMIT else "use a tenant administrator"
        return PlatformMisconfigured(f"ThingsBoard does not allow this: {said}; {advice}")
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return PlatformBusy(f"ThingsBoard limits requests: {said}", retry_after=_seconds(answer.retry_after))
    if status == httpx.codes.BAD_REQUEST:
        return _bad_request(said)
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return PlatformUnreachable(f"ThingsBoard failed with {status}: {said}; see its log")
    return PlatformBadAnswer(f"ThingsBoard answered {status}, which no known version does here: {said}")


def _bad_request(said: str) -> PlatformError:
    folded = said.casefold()
    if "such name already exists" in folded:
        return DeviceExists(said)
    if "already assigned to another device" in folded:
        return CertificateTaken(said)
    return PlatformRejected(f"ThingsBoard rejects the request: {said}")


def _worth_repeating(error: BaseException, *, idempotent: bool) -> bool:
    if isinstance(error, _NEVER_LEFT):
        return True
    lost = isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError)
    return idempotent and lost


def _seconds(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < _DAY else None
