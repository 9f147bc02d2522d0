"""The stand-in's log-in: one tenant administrator, signed access and refresh tokens, ThingsBoard's refusals.

Access tokens live 9,000 s, refresh tokens 7 days, as ThingsBoard's defaults.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import uuid4

import jwt

from thingsboard.standin_refusals import general, unauthorized

ACCESS_LIFETIME = timedelta(seconds=9000)
REFRESH_LIFETIME = timedelta(days=7)
_ALGORITHM = "HS512"
_UNKNOWN = "Invalid username or password"
_ACCESS = "TENANT_ADMIN"
_REFRESH = "REFRESH_TOKEN"


@dataclass(frozen=True, slots=True)
class Accounts:
    """Issues and checks tokens."""

    username: str
    password: str = field(repr=False)
    key: str = field(repr=False)
    clock: Callable[[], datetime]

    def login(self, username: object, password: object) -> dict[str, str]:
        """Answer a log-in, or refuse without telling an unknown user from a wrong password."""
        given = (str(username).encode(), str(password).encode())
        same = [hmac.compare_digest(*pair) for pair in zip(given, self._known(), strict=True)]
        if not all(same):
            raise unauthorized(_UNKNOWN)
        return self._tokens()

    def refresh(self, token: object) -> dict[str, str]:
        """Answer new tokens for a refresh token."""
        claims = self._claims(str(token))
        if _REFRESH not in claims["scopes"]:
            raise unauthorized(_UNKNOWN)
        return self._tokens()

    def check(self, header: str | None) -> None:
        """Let a request with a valid access token pass."""
        kind, _, token = (header or "").partition(" ")
        if kind != "Bearer" or not token:
            raise unauthorized("Authentication failed")
        if _ACCESS not in self._claims(token)["scopes"]:
            raise general("Invalid JWT token")  # ThingsBoard says 500 to a refresh token used for access

    def _known(self) -> tuple[bytes, bytes]:
        return self.username.encode(), self.password.encode()

    def _tokens(self) -> dict[str, str]:
        return {
            "token": self._signed(_ACCESS, ACCESS_LIFETIME),
            "refreshToken": self._signed(_REFRESH, REFRESH_LIFETIME),
        }

    def _signed(self, scope: str, lifetime: timedelta) -> str:
        now = self.clock()
        claims = {"sub": self.username, "scopes": [scope], "iss": "thingsboard.io", "jti": str(uuid4())}
        times = {"iat": int(now.timestamp()), "exp": int((now + lifetime).timestamp())}
        return jwt.encode(claims | times, self.key, _ALGORITHM)

    def _claims(self, token: str) -> dict[str, list[str]]:
        try:
            claims = jwt.decode(
                token,
                self.key,
                [_ALGORITHM],
                # the lifetime is checked below, by the injected clock
                options={"verify_exp": False, "verify_iat": False, "require": ["exp", "scopes"]},
            )
        except jwt.InvalidSignatureError as e:
            raise unauthorized("Token has expired", 11) from e
        except jwt.InvalidTokenError as e:
            raise unauthorized(_UNKNOWN) from e
        if claims["exp"] <= self.clock().timestamp():
            raise unauthorized("Token has expired", 11)
        return {"scopes": claims["scopes"]}
