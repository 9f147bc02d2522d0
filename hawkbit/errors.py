"""Everything that can go wrong with hawkBit, as one family.

Not here: deciding what to do about it. `retryable` only says whether the same call may succeed later without
anybody changing anything; the caller owns patience and bookkeeping.

Tree (whose turn it is to act):

    HawkbitError
      HawkbitUnreachable     the network or the server: wait, try again
        HawkbitBusy          its flood filter answered 429
      HawkbitMisconfigured   the operator: URL, proxy
        HawkbitUnauthorized  user name or password
        HawkbitForbidden     permissions of the user
      HawkbitBadAnswer       answered, but not as hawkBit does
      HawkbitRefused         hawkBit understood and said no (status, errorCode)
        TargetExists         409 at a create
        TargetMissing        404 that carries an errorCode
        ConcurrentChange     somebody else wrote the same target at the same moment
        QuotaExceeded        a limit of hawkBit's own
      UnaddressableTarget    refused here, before anything was sent
      InvalidMetadata        the same, for a metadata entry
"""

from __future__ import annotations


class HawkbitError(Exception):
    """Base of the family; `str()` is one sentence for an operator, without secrets or upstream bodies."""

    retryable = False


class HawkbitUnreachable(HawkbitError):
    """No usable answer in time: connection refused or cut, time-out, or a 5xx.

    `nothing_done` is True where the request surely had no effect (no connection, or turned away at the door);
    otherwise the outcome is unknown and the caller looks before it writes again.
    """

    retryable = True

    def __init__(self, message: str, *, nothing_done: bool = False) -> None:
        super().__init__(message)
        self.nothing_done = nothing_done


class HawkbitBusy(HawkbitUnreachable):
    """429 without a body, from hawkBit's flood filter, also after the bounded retries; nothing was done."""


class HawkbitMisconfigured(HawkbitError):
    """What answered is not hawkBit's Management API (404 without errorCode, a redirect, a page)."""


class HawkbitUnauthorized(HawkbitMisconfigured):
    """401: user name or password are wrong."""


class HawkbitForbidden(HawkbitMisconfigured):
    """403: the user lacks a permission. `needed` names what to grant, as far as it is known."""

    def __init__(self, message: str, *, needed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.needed = needed


class HawkbitBadAnswer(HawkbitError):
    """The answer is not what hawkBit's API promises: not JSON, too large, a field missing or of another type.

    `retryable`, because a proxy's passing trouble looks the same.
    """

    retryable = True


class HawkbitRefused(HawkbitError):
    """HawkBit answered 4xx and said why. `status` is the HTTP status, `code` its errorCode or None."""

    def __init__(self, message: str, *, status: int, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class TargetExists(HawkbitRefused):
    """409: a target with this controllerId is there already, whoever made it; nothing was changed."""


class TargetMissing(HawkbitRefused):
    """404 with an errorCode: no target, or no metadata entry, of this name."""


class ConcurrentChange(HawkbitRefused):
    """409: another writer was faster; nothing was changed, the same call may succeed now."""

    retryable = True


class QuotaExceeded(HawkbitRefused):
    """A limit of hawkBit (100 metadata entries a target) would be passed; nothing was changed."""


class UnaddressableTarget(HawkbitError, ValueError):
    """HawkBit would refuse this controllerId, or create it and never find it again; nothing was sent."""


class InvalidMetadata(HawkbitError, ValueError):
    """HawkBit would refuse this metadata key or value, or never find the key again; nothing was sent."""
