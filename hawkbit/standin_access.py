"""Who may call the embedded hawkBit, and how often: users, permissions, firewall, flood filter, media types.

Everything here is decided before, or apart from, what a call does.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from starlette.requests import Request

from hawkbit.standin_answers import HAL_MEDIA, JSON_MEDIA, Answers, Refusal
from hawkbit.standin_dialect import Dialect

_FORBIDDEN_IN_PATH = re.compile(rb"%25|%2f|%5c|%2e|%3b|;|\\|//", re.IGNORECASE)
_EXEMPT = [
    ipaddress.ip_network(network)
    for network in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "::1/128")
]
_WRITES = 52  # a second and client
_READS = 202
_WINDOW = 1.0


@dataclass(frozen=True, slots=True)
class User:
    """A user of the Management API; `permissions` by hawkBit's names, or None for everything."""

    username: str
    password: str = field(repr=False)
    permissions: frozenset[str] | None = None

    def names(self, dialect: Dialect) -> frozenset[str]:
        """Return the permissions as this version reports them."""
        return frozenset({dialect.everything}) if self.permissions is None else self.permissions

    def may(self, permission: str, dialect: Dialect) -> bool:
        """Tell whether the user has the permission. `ALL` means everything only in 0.3; since 1.0, nothing."""
        if self.permissions is None or permission in self.permissions:
            return True
        return "ALL" in self.permissions and dialect.all_means_everything


class Users:
    """Checks HTTP Basic credentials, in constant time."""

    def __init__(self, users: Iterable[User], answers: Answers) -> None:
        self._users = tuple(users)
        self._answers = answers

    def authenticate(self, request: Request) -> User:
        """Return the user of the request. Raises the 401 Refusal."""
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(encoded, validate=True)
            except binascii.Error:
                given = b""
            for user in self._users:
                if hmac.compare_digest(given, f"{user.username}:{user.password}".encode()):
                    return user
            raise self._unauthorized(request, self._answers.dialect.wrong_password_realm)
        raise self._unauthorized(request, "hawkBit")

    def _unauthorized(self, request: Request, realm: str) -> Refusal:
        return self._answers.bare(request, 401, {"WWW-Authenticate": f'Basic realm="{realm}"'})


class FloodFilter:
    """Counts requests of one client in one second; clients with private addresses are exempt.

    As hawkBit does, it believes X-Forwarded-For.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._windows: dict[tuple[str, bool], tuple[float, int]] = {}

    def admit(self, request: Request) -> None:
        """Count the request. Raises the empty 429 Refusal."""
        forwarded = request.headers.get("x-forwarded-for", "").split(",")[0].strip()
        client = forwarded or (request.client.host if request.client else "127.0.0.1")
        if _is_exempt(client):
            return
        writes = request.method not in {"GET", "HEAD", "OPTIONS"}
        now = self._clock()
        start, count = self._windows.get((client, writes), (now, 0))
        if now - start >= _WINDOW:
            start, count = now, 0
            self._forget_before(now - _WINDOW)
        self._windows[client, writes] = (start, count + 1)
        if count >= (_WRITES if writes else _READS):
            raise Refusal(429, None)

    def _forget_before(self, instant: float) -> None:
        self._windows = {key: window for key, window in self._windows.items() if window[0] > instant}


def check_path(request: Request, answers: Answers) -> None:
    """Refuse what hawkBit's firewall refuses in any path: this is what makes some ids unreachable.

    Raises a bare Refusal of a status that differs by version; dot segments are just not found.
    """
    raw: bytes = request.scope["raw_path"].partition(b"?")[0]
    if _FORBIDDEN_IN_PATH.search(raw):
        raise answers.bare(request, answers.dialect.firewall_status)
    if {b".", b".."} & set(raw.split(b"/")):
        raise answers.bare(request, 404)


def accepted_media(request: Request, answers: Answers, *, hal: bool = True) -> str:
    """Return the media type to answer with: HAL where the client leaves it open and `hal` is offered.

    Raises the 406 Refusal: empty, but for a client that takes HAL where only JSON is offered.
    """
    wanted = [part.split(";")[0].strip().lower() for part in request.headers.get("accept", "*/*").split(",")]
    for media in wanted:
        if media in {"*/*", "application/*"}:
            return HAL_MEDIA if hal else JSON_MEDIA
        if media == JSON_MEDIA or (media == HAL_MEDIA and hal):
            return media
    offered = f"{HAL_MEDIA}, {JSON_MEDIA}" if hal else JSON_MEDIA
    headers = {"Accept": offered} if answers.dialect.unsupported_media_names_accepted else {}
    if HAL_MEDIA in wanted:
        raise answers.bare(request, 406, headers, HAL_MEDIA)
    raise Refusal(406, None, headers)


def check_content_type(request: Request, answers: Answers, *, hal: bool = True) -> None:
    """Raise the 415 Refusal unless the body is declared as JSON (or HAL, where `hal`)."""
    media = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media == JSON_MEDIA or (media == HAL_MEDIA and hal):
        return
    headers = {}
    if answers.dialect.unsupported_media_names_accepted:
        others = "application/cbor, application/yaml, application/*+json"
        headers["Accept"] = f"{HAL_MEDIA}, {JSON_MEDIA}" if hal else f"{JSON_MEDIA}, {others}"
    raise answers.bare(request, 415, headers)


def _is_exempt(client: str) -> bool:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return False
    return any(address in network for network in _EXEMPT)
