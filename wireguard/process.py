"""Running the WireGuard programs: argument lists only, never a shell, always with a time limit.

Responsible for the step from an argument list to its output or a typed error. What the arguments mean is
not known here.
"""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from wireguard.errors import (
    InterfaceError,
    KeyRefusedError,
    NoSuchInterfaceError,
    NotPermittedError,
    RefusedError,
    ToolMissingError,
    ToolTimeoutError,
)

_DETAIL_LENGTH = 300
# `wg` repeats what it could not parse between ` and ': that can be a private key.
_QUOTED = re.compile(r"`[^']*'?")
# The kernel's words for it with the module loaded, and without it.
_NO_INTERFACE = ("No such device", "Protocol not supported", "Operation not supported")
_NOT_PERMITTED = ("Permission denied", "Operation not permitted")


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended. `repr` shows no output: it can hold a private key."""

    returncode: int
    stdout: str = field(repr=False)
    stderr: str = field(repr=False)


class Runner(Protocol):
    """Runs one program to its end."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
        timeout: float,
    ) -> Completed:
        """Run `argv` with this standard input and these variables beside the present ones.

        Raises:
            ToolMissingError: there is no such program.
            NotPermittedError: it may not be run.
            ToolTimeoutError: it did not end within `timeout` seconds; it has been killed.

        """


def run_process(
    argv: Sequence[str],
    *,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    timeout: float,
) -> Completed:
    """Run a program of this host; the `Runner` that everything uses unless given another."""
    try:
        done = subprocess.run(  # noqa: S603 - an argument list of typed values, no shell
            list(argv),
            input=stdin,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise ToolMissingError(
            f"The program {argv[0]} was not found; install the packages wireguard-tools and iproute2."
        ) from error
    except PermissionError as error:
        raise NotPermittedError(f"The program {argv[0]} may not be run by this user.") from error
    except subprocess.TimeoutExpired as error:
        error.output = error.stderr = None  # a private key must not travel in an exception
        raise ToolTimeoutError(f"{argv[0]} did not end within {timeout:g} s and was stopped.") from error
    except OSError as error:
        raise InterfaceError(f"The program {argv[0]} could not be started: {error.strerror}.") from error
    return Completed(done.returncode, done.stdout, done.stderr)


def refusal(completed: Completed, *, program: str, subject: str) -> InterfaceError:
    """Turn a program's failure on `subject` (an interface or a file) into a typed error."""
    told = _QUOTED.sub("(value not shown)", completed.stderr.strip())[:_DETAIL_LENGTH]
    if any(words in told for words in _NO_INTERFACE):
        return NoSuchInterfaceError(
            f"There is no WireGuard interface {subject} in this network namespace; bring it up first."
        )
    if any(words in told for words in _NOT_PERMITTED):
        return NotPermittedError(f"{program} may not touch {subject}: run as root or with CAP_NET_ADMIN.")
    if "Key is not the correct length or format" in told:
        return KeyRefusedError(f"{program} refused a key for {subject}.", detail=told)
    return RefusedError(f"{program} failed on {subject} ({completed.returncode}): {told}", detail=told)
