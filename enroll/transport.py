"""HTTPS to the bridge: one request, one bounded answer, one total time-out.

Responsible for the connection rules of WIRE §5 (no redirect, no plain HTTP, bounded size and time) and for
turning whatever httpx raises and whatever a stranger answers into the agent's errors.

Not responsible for what an answer means, nor for trying again. ``fetch_unverified_root`` is the only
function of the agent that talks to a server it has not verified.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import httpx

from enroll.errors import ForeignAnswerError, RefusedError, StoppedError, TryAgainError, UnreachableError
from enroll.wire import EnrollRequest, Problem

MAX_ANSWER: Final = 1024 * 1024
"""Largest answer that is read, in bytes."""


async def fetch_unverified_root(base: str, fingerprint: str, seconds: float) -> bytes:
    """Return what the server at the base URL claims to be the root with this SHA-256: unverified PEM.

    The connection checks nothing, carries no secret, does nothing else and is closed; the caller must
    compare the digest before believing a byte.

    :param seconds: total time for connection and answer.
    :raises TryAgainError: no usable answer.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return await fetch_root(base, fingerprint, context, seconds)


async def fetch_root(base: str, fingerprint: str, context: ssl.SSLContext, seconds: float) -> bytes:
    """Return what ``GET {base}/root/{sha256}`` answers as ``ca``, over the given context; see above."""
    answer = await _call("GET", f"{base}/root/{fingerprint}", context, seconds)
    pem = answer.get("ca") if isinstance(answer, Mapping) else None
    if not isinstance(pem, str):
        raise ForeignAnswerError("the answer to GET /root is not the bridge's: it has no field 'ca'")
    return pem.encode()


async def fetch_intermediates(base: str, context: ssl.SSLContext, seconds: float) -> list[bytes]:
    """Return the PEM texts of ``GET {base}/intermediates``, as served.

    :raises TryAgainError: no usable answer.
    """
    answer = await _call("GET", f"{base}/intermediates", context, seconds)
    texts = answer.get("crts") if isinstance(answer, Mapping) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ForeignAnswerError("the answer to GET /intermediates is not the bridge's: it has no list 'crts'")
    return [text.encode() for text in texts]


async def post_enroll(
    base: str, device_id: str, request: EnrollRequest, context: ssl.SSLContext, seconds: float
) -> object:
    """Post an enrollment and return the JSON of a 200 or 201, unchecked.

    :param seconds: total time for connection and answer.
    :raises StoppedError: a problem document with a final code.
    :raises TryAgainError: everything else, with the ``Retry-After`` of the answer.
    """
    url = f"{base}/devices/{quote(device_id, safe='')}/enroll"
    return await _call("POST", url, context, seconds, body=request.to_json())


async def _call(
    method: str, url: str, context: ssl.SSLContext, seconds: float, body: Mapping[str, Any] | None = None
) -> Any:
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "iot-enroll"}
    try:
        async with (
            asyncio.timeout(seconds),
            httpx.AsyncClient(verify=context, timeout=seconds, headers=headers) as client,
            client.stream(method, url, json=body, follow_redirects=False) as response,
        ):
            content = await _bounded(response)
    except TimeoutError as e:
        raise UnreachableError(f"{url}: no whole answer within {seconds:.0f} s") from e
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as e:
        raise UnreachableError(f"{url}: {_why(e)}") from e
    except (ValueError, ImportError) as e:  # what httpx makes of HTTPS_PROXY and its like
        raise UnreachableError(f"{url}: {_why(e)}; check the proxy variables") from e
    return _understood(url, response, content)


async def _bounded(response: httpx.Response) -> bytes:
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ForeignAnswerError(f"{response.url}: a compressed answer was not asked for")
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > MAX_ANSWER:
            raise ForeignAnswerError(f"{response.url}: the answer is larger than {MAX_ANSWER} bytes")
    return bytes(content)


def _understood(url: str, response: httpx.Response, content: bytes) -> Any:
    status = response.status_code
    wait = retry_after(response.headers)
    if response.is_redirect or 300 <= status < 400:  # noqa: PLR2004 - the class of redirects
        raise ForeignAnswerError(f"{url}: answers with a redirect ({status}), which the bridge never does")
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as e:
        kind = response.headers.get("Content-Type", "no content type")[:60]
        text = f"{url}: status {status}, but not the bridge's JSON ({kind!r}); a proxy or captive portal may answer"
        raise ForeignAnswerError(text, retry_after=wait) from e
    if status in {HTTPStatus.OK, HTTPStatus.CREATED}:
        return data
    raise _refusal(url, status, data, wait)


def _refusal(url: str, status: int, data: object, wait: float | None) -> StoppedError | TryAgainError:
    problem = Problem.from_json(status, data)
    if problem is None:
        text = f"{url}: status {status} without a problem document of the bridge"
        return ForeignAnswerError(text, retry_after=wait)
    said = printable(problem.detail or problem.title or "no explanation")
    text = f"the bridge answers {status} {problem.code}: {said}"
    if problem.final:
        return StoppedError(problem.code, text)
    return RefusedError(problem.code, text, retry_after=wait)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of ``Retry-After`` (RFC 9110 §10.2.3), or ``None``.

    A date counts from the answer's own ``Date``: the device's clock may be wrong.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        return float(text)
    try:
        seconds = (parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return seconds if seconds > 0 else None


def printable(text: str, limit: int = 400) -> str:
    """Return a stranger's text fit for a terminal: one line, no control characters, bounded."""
    flat = "".join(c if c.isprintable() else " " for c in text[: limit + 1])
    return flat if len(flat) <= limit else f"{flat[:limit]}…"


def _why(error: Exception) -> str:
    said = printable(str(error)) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return f"its certificate does not hold against the pinned root ({said}); check the fingerprint and the clock"
    return said
