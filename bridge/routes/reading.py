"""Reading a request's body: bytes with a hard limit, then JSON without surprises.

Responsible for what the wire promises of every body: at most 32 KiB, UTF-8, one JSON object, no key twice, numbers
that are numbers (RFC 8259). Not responsible for what the fields mean.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from starlette.requests import Request

from bridge.errors import BadRequest, TooLarge
from bridge.routes.visit import ClientGone
from enroll.wire import MAX_BODY

_LONGEST_LENGTH: Final = 9
"""Digits of a Content-Length that is worth comparing."""


async def read_body(request: Request) -> bytes:
    """Return the body, reading no more than the limit.

    :raises TooLarge: it is, or says it is, larger.
    :raises ClientGone: the client hung up in the middle.
    """
    declared = request.headers.get("content-length")
    if declared is not None and declared.isdecimal() and (len(declared) > _LONGEST_LENGTH or int(declared) > MAX_BODY):
        raise TooLarge("the body is larger than 32 KiB")
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY:
            raise TooLarge("the body is larger than 32 KiB")
        if not message.get("more_body", False):
            return b"".join((*chunks, chunk)) if chunks else chunk
        chunks.append(chunk)


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that the body is.

    :raises BadRequest: it is anything else.
    """
    try:
        value = _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError as e:
        raise BadRequest("the body is not UTF-8") from e
    except RecursionError as e:
        raise BadRequest("the body is nested too deeply") from e
    except ValueError as e:
        raise BadRequest("the body is not JSON") from e
    if not isinstance(value, dict):
        raise BadRequest("the body is not a JSON object")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        # Two readers of such a body may see two different requests.
        raise BadRequest("the body names a field twice")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise BadRequest(f"the body is not JSON: {name} is not a number")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant)
