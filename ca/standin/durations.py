"""Go's numbers and durations, and step-ca's validity rules.

The originals are ``provisioner/timeduration.go`` and ``provisioner/sign_options.go`` of smallstep/certificates.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from ca.standin.refusals import Refusal, bad_request, forbidden

MIN_DURATION: Final = timedelta(minutes=5)
BACKDATE: Final = timedelta(minutes=1)
_DURATION: Final = re.compile(r"(-?)((?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+)")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_OCTAL: Final = re.compile(r"-?0[0-7]+")
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def parse(value: object) -> datetime | timedelta | None:
    """Read a JSON value as RFC 3339 or Go duration; None where it is absent or empty; 400 otherwise."""
    if value is None or value == "":
        return None
    try:
        if isinstance(value, str) and _RFC3339.fullmatch(value):
            return datetime.fromisoformat(value).astimezone(UTC)
        if isinstance(value, str) and (whole := _DURATION.fullmatch(value)):
            seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(whole[2]))
            return timedelta(seconds=-seconds if whole[1] else seconds)
    except (ValueError, OverflowError) as error:
        raise undecodable() from error
    raise undecodable()


def integer(value: str) -> int:
    """Read an integer as Go's base 0 does: ``0x10``, ``010`` (octal), ``16``; ``ValueError`` otherwise."""
    return int(value, 8) if _OCTAL.fullmatch(value) else int(value, 0)


def undecodable() -> Refusal:
    """400 as for every body that does not fit."""
    return bad_request("error decoding json")


def text(duration: timedelta) -> str:
    """Write a duration as Go prints it: ``8761h1m0s``."""
    seconds = int(duration.total_seconds())
    hours, rest = divmod(abs(seconds), 3600)
    sign = "-" if seconds < 0 else ""
    if hours:
        return f"{sign}{hours}h{rest // 60}m{rest % 60}s"
    return f"{sign}{rest // 60}m{rest % 60}s" if rest >= 60 else f"{sign}{rest}s"  # noqa: PLR2004 - a minute


def validity(
    not_before: object, not_after: object, now: datetime, default: timedelta, longest: timedelta
) -> tuple[datetime, datetime]:
    """Return what a certificate's validity becomes, or refuse with 400 or 403."""
    asked_begin, asked_end = parse(not_before), parse(not_after)
    try:
        begin = now if asked_begin is None else _absolute(asked_begin, now)
        end = begin + default if asked_end is None else _absolute(asked_end, begin)
    except OverflowError as error:
        raise undecodable() from error
    if asked_begin is None:
        begin -= BACKDATE
    begin, end = begin.replace(microsecond=0), end.replace(microsecond=0)
    if end < now.replace(microsecond=0):
        raise bad_request(f"notAfter cannot be in the past; na={_go_time(end)}")
    if end < begin:
        raise bad_request(f"notAfter cannot be before notBefore; na={_go_time(end)}, nb={_go_time(begin)}")
    asked = end - begin
    if asked < MIN_DURATION:
        raise forbidden(
            f"requested duration of {text(asked)} is less than the authorized minimum certificate duration of "
            f"{text(MIN_DURATION)}"
        )
    if asked > longest + BACKDATE:
        raise forbidden(
            f"requested duration of {text(asked)} is more than the authorized maximum certificate duration of "
            f"{text(longest + BACKDATE)}"
        )
    return begin, end


def _absolute(value: datetime | timedelta, start: datetime) -> datetime:
    return value if isinstance(value, datetime) else start + value


def _go_time(value: datetime) -> str:
    return value.strftime("%Y-%m-%d %H:%M:%S +0000 UTC")
