"""Who may ask: one-time tokens judged as step-ca judges them.

The originals are ``authority/authorize.go`` and ``authority/provisioner/jwk.go`` of smallstep/certificates.
In its order: provisioner by issuer and key id, not older than this CA's start, **single use**, then
signature, issuer, times, audience, subject. Every refusal is the same 401. Not responsible for what a
token allows to be signed.
"""

import hashlib
import json
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

import jwt

from ca.standin.refusals import unauthorized
from ca.standin.store import Store

LEEWAY: Final = 60
"""Seconds of clock difference that a token's times may show."""

_ALGORITHMS: Final = ["ES256"]


@dataclass(frozen=True, slots=True)
class Known:
    """A provisioner that this CA accepts tokens of: its name, key id and prepared public key."""

    name: str
    kid: str
    key: Any


class TokenJudge:
    """Judges tokens for one CA. ``hosts`` are its names; ports in an audience do not count."""

    def __init__(
        self, known: tuple[Known, ...], hosts: tuple[str, ...], store: Store, clock: Callable[[], datetime]
    ) -> None:
        self._known = {(one.name, one.kid): one for one in known}
        self._audiences = {
            action: {f"https://{host}{prefix}/{action}" for host in hosts for prefix in ("", "/1.0")}
            for action in ("sign", "revoke")
        }
        self._store = store
        self._clock = clock
        self._started = int(clock().timestamp())

    def judge(self, token: str, action: str) -> tuple[Known, Mapping[str, Any]]:
        """Return provisioner and claims of a good token, which this call spends, else raise 401."""
        header, unverified = _parts(token)
        known = self._known.get((unverified.get("iss", ""), header.get("kid", "")))
        if known is None:
            raise unauthorized("provisioner not found or invalid audience")
        issued = unverified.get("iat")
        if isinstance(issued, int | float) and issued < self._started:
            raise unauthorized("token issued before the bootstrap of certificate authority")
        token_id = unverified.get("jti") or hashlib.sha256(token.encode()).hexdigest()
        if not self._store.use_token(str(token_id)):
            raise unauthorized("token already used")
        return known, self._verified(token, known, action)

    def _verified(self, token: str, known: Known, action: str) -> Mapping[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(token, known.key, _ALGORITHMS, options=_SIGNATURE_ONLY)
        except jwt.PyJWTError as error:
            raise unauthorized("error parsing jwk claims") from error
        now = self._clock().timestamp()
        if not _in_time(claims, now):
            raise unauthorized("invalid jwk claims")
        audience = claims.get("aud")
        listed = audience if isinstance(audience, list) else [audience]
        if not any(_without_port(one) in self._audiences[action] for one in listed if isinstance(one, str)):
            raise unauthorized("invalid jwk token audience claim (aud)")
        if not isinstance(claims.get("sub"), str) or not claims["sub"]:
            raise unauthorized("jwk token subject cannot be empty")
        if not _well_typed(claims):
            raise unauthorized("error parsing jwk claims")
        return claims


_SIGNATURE_ONLY: Final[Any] = {
    "verify_aud": False,
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}
"""Times are compared with the injected clock and ports of the audience do not count: both are ours to do."""


def _well_typed(claims: Mapping[str, Any]) -> bool:
    sans, confirmation = claims.get("sans") or [], claims.get("cnf") or {}
    return (
        isinstance(sans, list)
        and all(isinstance(one, str) for one in sans)
        and isinstance(confirmation, dict)
        and isinstance(confirmation.get("x5rt#S256", ""), str)
    )


def _in_time(claims: Mapping[str, Any], now: float) -> bool:
    begins, ends, issued = claims.get("nbf"), claims.get("exp"), claims.get("iat")
    if any(not isinstance(one, int | float) for one in (begins, ends, issued) if one is not None):
        return False
    return (
        (begins is None or begins <= now + LEEWAY)
        and (ends is None or now - LEEWAY <= ends)
        and (issued is None or issued <= now + LEEWAY)
    )


def _parts(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    try:
        header, payload, _signature = token.split(".")
        parsed = _object(header), _object(payload)
    except (ValueError, RecursionError) as error:
        raise unauthorized("error parsing token") from error
    return parsed


def _object(part: str) -> Mapping[str, Any]:
    value = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - turned into a refusal by the one caller
    return value


def _without_port(url: str) -> str:
    try:
        parts = urlsplit(url)
        return parts._replace(netloc=parts.hostname or "", fragment="").geturl()
    except ValueError:
        return url
