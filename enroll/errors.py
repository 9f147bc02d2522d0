"""What can go wrong on the device, and how a process says so.

Responsible for the error family of the agent and for the one place that turns an error into an exit
code (``exit_code``). Every public function of ``enroll`` raises these and nothing of a library's own.

Not responsible for deciding whether to wait and try again; that is ``enroll.agent``.

::

    EnrollError
      ConfigurationError        2   a variable is missing or makes no sense
      StoppedError              1   the bridge said a final word: trying again can never help
      TryAgainError            75   not now
        UnreachableError            no connection, no answer in time, TLS refused
        ForeignAnswerError          an answer that is not the bridge's (a proxy, a captive portal)
        RefusedError                a problem document that is not final
        AnswerRejectedError         the bridge's answer did not pass the device's checks
        RootMismatchError           the root served is not the pinned one; ends this run at once
        BrokerError                 the broker cannot be reached or does not accept the leaf yet
        StorageError                the folder cannot be read or written; ends this run at once
        BusyFolderError             another agent works in this folder; ends this run at once
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from enroll.printable import printable

if TYPE_CHECKING:  # a usage error must not load the protocol
    from enroll.wire import Code

_MAX_TEXT: Final = 1200
"""Longest text of an error: eight pinned digests and a sentence fit in."""

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
"""Failed for good; what to do is printed. For ``status``: no valid enrollment in the folder."""
EXIT_USAGE: Final = 2
EXIT_TRY_AGAIN: Final = 75
"""sysexits' EX_TEMPFAIL: a service manager may start the agent again."""


class EnrollError(Exception):
    """Base of everything the agent raises; its text says what happened and what to check.

    One printable line, bounded, whoever wrote a part of it.
    """

    exit_code: ClassVar[int] = EXIT_FAILED

    def __init__(self, text: str) -> None:
        super().__init__(printable(text, _MAX_TEXT))

    @property
    def code(self) -> str:
        """A stable word for machines: the bridge's problem code where there is one."""
        return _snake(type(self).__name__)


class ConfigurationError(EnrollError):
    """A variable (or its flag) is missing or makes no sense."""

    exit_code = EXIT_USAGE

    def __init__(self, variable: str, text: str) -> None:
        super().__init__(f"{variable}: {text}")
        self.variable = variable


class StoppedError(EnrollError):
    """The bridge answered with a final code."""

    exit_code = EXIT_FAILED

    def __init__(self, problem: Code, text: str) -> None:
        super().__init__(text)
        self.problem = problem

    @property
    def code(self) -> str:
        """The bridge's code."""
        return str(self.problem)


class TryAgainError(EnrollError):
    """Not now. ``retry_after`` is the wait in seconds that the other side asked for, if it did."""

    exit_code = EXIT_TRY_AGAIN
    ends_run: ClassVar[bool] = False
    """True where trying again within this run is pointless or unsafe."""

    def __init__(self, text: str, *, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class UnreachableError(TryAgainError):
    """No connection, no answer in time, or TLS refused the other side.

    ``untrusted``: the server's certificate was refused, so that a root that is pinned and not stored may be missing.
    """

    def __init__(self, text: str, *, retry_after: float | None = None, untrusted: bool = False) -> None:
        super().__init__(text, retry_after=retry_after)
        self.untrusted = untrusted


class ForeignAnswerError(TryAgainError):
    """Somebody answered who does not speak the bridge's language."""


class RefusedError(TryAgainError):
    """The bridge refused for now."""

    def __init__(self, problem: Code, text: str, *, retry_after: float | None = None) -> None:
        super().__init__(text, retry_after=retry_after)
        self.problem = problem

    @property
    def code(self) -> str:
        """The bridge's code."""
        return str(self.problem)


class AnswerRejectedError(TryAgainError):
    """The device does not believe the bridge's answer; nothing of it was stored."""


class RootMismatchError(TryAgainError):
    """What was served as root is not the pinned certificate; nothing was stored."""

    ends_run = True

    def __init__(self, wanted: str, served: str | None, said: str | None = None) -> None:
        """Take both values.

        :param served: digest of what was served; ``None`` where the bridge serves no such root.
        :param said: then, the bridge's own words, which name the root that it does serve.
        """
        seen = f"the root certificate served has SHA-256 {served}" if served else said
        super().__init__(
            f"{seen}, pinned is {wanted}; nothing was stored. "
            "Check STEP_CA_FINGERPRINT and that no captive portal or proxy answers in the bridge's place."
        )
        self.wanted = wanted
        self.served = served


class BrokerError(TryAgainError):
    """The broker cannot be reached or does not accept this device yet.

    ``refused``: it was reached and said no to this device, so that ``activate`` is worth repeating.
    """

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


class StorageError(TryAgainError):
    """The folder cannot be read or written."""

    ends_run = True


class BusyFolderError(TryAgainError):
    """Another agent works in this folder."""

    ends_run = True


def exit_code(error: EnrollError) -> int:
    """Return the exit code for an error: 1 final, 2 configuration, 75 not now."""
    return error.exit_code


def _snake(name: str) -> str:
    words = "".join(f"_{c.lower()}" if c.isupper() else c for c in name.removesuffix("Error"))
    return words.lstrip("_")
