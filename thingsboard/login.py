"""The log-in to ThingsBoard: one token, shared by all requests of a client.

Responsible for getting a token once however many requests wait for it, renewing it by the refresh token or
else by the password, and for not hammering a server that refuses the password. Not for what is done with it.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass

from thingsboard.errors import PlatformBadAnswer, PlatformRefused
from thingsboard.transport import Answer, Transport, failure

REFUSED_HOLD = 15.0
"""Seconds for which a refused password is not tried again: ThingsBoard can lock a user after too many."""

_OK = 200
_REFUSED = 401
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,16384}")


@dataclass(frozen=True, slots=True)
class _Tokens:
    access: str
    refresh: str | None


class Login:
    """Hands out the current access token. Safe for many tasks of one event loop."""

    def __init__(self, transport: Transport, username: str, password: str, *, clock: Callable[[], float]) -> None:
        self._transport = transport
        self._username = username
        self._password = password
        self._clock = clock
        self._tokens: _Tokens | None = None
        self._lock = asyncio.Lock()
        self._refused: tuple[float, str] | None = None

    async def token(self, *, instead_of: str | None = None) -> str:
        """Return an access token, logging in where there is none.

        `instead_of` is a token that ThingsBoard just answered with 401: if it is still the one in use a new
        one is fetched, else somebody else already did. Raises `PlatformRefused` where the password is refused
        (for `REFUSED_HOLD` seconds without asking again), `PlatformUnreachable`, `PlatformBadAnswer`.
        """
        async with self._lock:
            if self._tokens is not None and self._tokens.access != instead_of:
                return self._tokens.access
            self._tokens = await self._renewed(self._tokens)
            return self._tokens.access

    async def _renewed(self, old: _Tokens | None) -> _Tokens:
        if old is not None and old.refresh is not None:
            answer = await self._ask("/api/auth/token", {"refreshToken": old.refresh})
            if answer.status == _OK:
                return _tokens(answer)
        if self._refused is not None and self._clock() < self._refused[0]:
            raise PlatformRefused(self._refused[1])
        answer = await self._ask("/api/auth/login", {"username": self._username, "password": self._password})
        if answer.status == _OK:
            self._refused = None
            return _tokens(answer)
        error = failure(answer)
        if answer.status == _REFUSED:
            self._refused = (self._clock() + REFUSED_HOLD, str(error))
        raise error

    async def _ask(self, path: str, body: object) -> Answer:
        return await self._transport.send("POST", path, body=body, idempotent=True)


def _tokens(answer: Answer) -> _Tokens:
    found = answer.json()
    access = found.get("token") if isinstance(found, dict) else None
    refresh = found.get("refreshToken") if isinstance(found, dict) else None
    if not isinstance(access, str) or not _TOKEN.fullmatch(access):
        raise PlatformBadAnswer(
            "the log-in answered without a usable token; check that THINGSBOARD_URL is ThingsBoard's own "
            "address and that the user needs no second factor"
        )
    return _Tokens(access, refresh if isinstance(refresh, str) else None)
