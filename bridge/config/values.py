"""How single values are written in the environment: durations, secrets from files, hosts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator

from bridge.errors import Misconfigured

_DURATION: Final = re.compile(r"([0-9]+)(s|m|h|d)", re.ASCII)
_UNIT: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST: Final = timedelta(days=36_525)
"""A hundred years: with more, sums of times leave the calendar."""


def parse_duration(text: str) -> timedelta:
    """Read ``90d``, ``2160h``, ``15m`` or ``15s``.

    :raises ValueError: it is not written so, is zero, or is more than a hundred years.
    """
    found = _DURATION.fullmatch(text.strip())
    if not found or int(found[1]) == 0:
        raise ValueError("write a duration as a number and s, m, h or d: 90d, 2160h, 15s")
    try:
        duration = timedelta(**{_UNIT[found[2]]: int(found[1])})
    except OverflowError:
        duration = timedelta.max
    if duration > _LONGEST:
        raise ValueError("a duration is at most a hundred years")
    return duration


def _duration(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    # Asking for the port is what judges it.
    if parts.scheme not in {"http", "https"} or not parts.hostname or not plain or parts.port == 0:
        raise ValueError("write it as http://host:port or https://host:port")
    return value.rstrip("/")


def _path_prefix(value: str) -> str:
    if value and not re.fullmatch(r"(?:/[A-Za-z0-9._~-]+)+", value):
        raise ValueError("write it as /api, without a slash at the end")
    return value


Duration = Annotated[timedelta, BeforeValidator(_duration)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
PathPrefix = Annotated[str, AfterValidator(_path_prefix)]


def with_files(environment: Mapping[str, str], secrets: frozenset[str]) -> dict[str, str]:
    """Return the environment with each secret that is named by ``NAME_FILE`` read from that file.

    :raises Misconfigured: both are set, or the file cannot be read or is empty.
    """
    values = dict(environment)
    for name in secrets:
        path = values.pop(f"{name}_FILE", None)
        if not path:
            continue
        if values.get(name):
            raise Misconfigured(f"both {name} and {name}_FILE are set; keep one")
        try:
            values[name] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as e:
            raise Misconfigured(f"{name}_FILE={path} cannot be read: {e}") from e
        if not values[name]:
            raise Misconfigured(f"{name}_FILE={path} is empty; write the secret into it, or unset {name}_FILE")
    return values
