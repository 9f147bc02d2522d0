"""The one place that turns errors into exit codes: 0 done, 1 failed for good, 2 usage or configuration, 75 not now."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from bridge.errors import BadInput, BridgeError, Misconfigured, Unavailable

FAILED: Final = 1
USAGE: Final = 2
NOT_NOW: Final = 75
"""EX_TEMPFAIL of sysexits.h."""


def code_of(error: BridgeError) -> int:
    """Return the exit code that an error means."""
    if isinstance(error, Misconfigured | BadInput):
        return USAGE
    if isinstance(error, Unavailable):
        return NOT_NOW
    return FAILED


@contextmanager
def exit_code() -> Iterator[None]:
    """Print the error of the block for people and leave with its code."""
    try:
        yield
    except BridgeError as e:
        sys.stderr.write(f"iot-bridge: {e}\n  {e.advice}\n")
        raise SystemExit(code_of(e)) from e
    except KeyboardInterrupt as e:
        raise SystemExit(130) from e


def not_now(text: str) -> NoReturn:
    """Say why it is not done yet, and leave with 75."""
    sys.stderr.write(f"iot-bridge: {text}\n")
    raise SystemExit(NOT_NOW)
