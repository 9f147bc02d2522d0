"""One HTTP exchange with the CA: bounded in time and size, no redirects, failures as ``CaError``.

Not responsible for what the answer means (``ca.client``, ``ca.bootstrap``).
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import httpx

from ca.errors import CaBadAnswer, CaUnreachable

MAX_BODY: Final = 1 << 20
"""Octets of an answer that are read; a CRL may be longer and says so itself."""

_JSON_HEADERS: Final = {"content-type": "application/json", "accept-encoding": "identity"}
_PLAIN_HEADERS: Final = {"accept-encoding": "identity"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: its status and its body."""

    status: int
    body: bytes

    def json(self) -> Mapping[str, Any]:
        """Return the body as a JSON object, or raise CaBadAnswer (``json``)."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise nonsense("json", f"the CA answered {self.status} with something that is not JSON") from error
        if not isinstance(value, dict):
            raise nonsense("json", f"the CA answered {self.status} with JSON that is not an object")
        return value


def nonsense(failed: str, what: str) -> CaBadAnswer:
    """Build the error of an answer that is not step-ca's."""
    return CaBadAnswer(
        what, failed=failed, check="check that STEP_CA_URL is step-ca itself, not a proxy or another server"
    )


async def exchange(
    http: httpx.AsyncClient, method: str, url: str, *, body: Mapping[str, Any] | None = None, limit: int = MAX_BODY
) -> Answer:
    """Send one request and read the whole answer, whatever its status.

    Raises CaUnreachable where none came and CaBadAnswer where it cannot be read or is longer than
    ``limit`` octets. The caller bounds the time (``asyncio.timeout``).
    """
    content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
    headers = _PLAIN_HEADERS if body is None else _JSON_HEADERS
    try:
        request = http.build_request(method, url, content=content, headers=headers)
        response = await http.send(request, stream=True, follow_redirects=False)
        try:
            return Answer(response.status_code, await _read(response, limit))
        finally:
            await response.aclose()
    except httpx.RequestError as error:
        raise _translate(error) from error
    except (aiohttp.ClientError, httpx.InvalidURL) as error:
        raise nonsense("http", "the CA's answer is not HTTP") from error


async def _read(response: httpx.Response, limit: int) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise nonsense("http", "the CA's answer is encoded although none was asked for")
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > limit:
            raise nonsense("size", f"the CA's answer is longer than {limit} octets")
        chunks.append(chunk)
    return b"".join(chunks)


def _translate(error: httpx.RequestError) -> CaUnreachable | CaBadAnswer:
    if isinstance(error, httpx.DecodingError | httpx.TooManyRedirects):
        return nonsense("http", "the CA's answer cannot be read")
    never_left = _never_left(error)
    where = "no connection to the CA" if never_left else "the connection to the CA broke"
    return CaUnreachable(
        f"{where}: {str(error) or type(error).__name__}",
        surely_not_sent=never_left,
        check="check STEP_CA_URL, that step-ca runs, and that STEP_CA_FINGERPRINT is its root's or sub-CA's",
    )


def _never_left(error: httpx.RequestError) -> bool:
    """Tell whether the failure came before the first octet of the request.

    The class alone does not say it: the aiohttp transport of httpx turns a connection that broke in the
    middle (``ServerDisconnectedError``, ``ClientOSError``) into ``ConnectTimeout``, so its cause decides.
    """
    cause = error.__cause__
    if isinstance(cause, aiohttp.ClientError):
        return isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def timed_out(seconds: float) -> CaUnreachable:
    """Build the error of a call that took longer than its total time-out."""
    return CaUnreachable(
        f"the CA gave no answer within {seconds:g} s",
        surely_not_sent=False,
        check="check that step-ca runs and is not overloaded",
    )


def bounded(seconds: float) -> asyncio.Timeout:
    """Return the context that ends a call after ``seconds`` in total."""
    return asyncio.timeout(seconds)
