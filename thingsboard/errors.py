"""What can go wrong with ThingsBoard, as one family.

Responsible for the names and the advice; not for deciding whether to try again (the caller's work).

    PlatformError
      PlatformUnreachable      nothing usable came back: no connection, time-out, 5xx
        PlatformBusy           429: the tenant's rate limit
      PlatformRefused          the login was refused
      PlatformMisconfigured    logged in, but not allowed, or a limit of the tenant is reached
      PlatformConflict         the write lost against what is already there
        DeviceExists           a device of this name exists
        CertificateTaken       the certificate is another device's credential
        StaleVersion           somebody changed the object after it was read
      DeviceGone               the device does not exist (any more)
      PlatformRejected         ThingsBoard calls the request wrong
      PlatformBadAnswer        an answer that does not make sense
        CredentialsMismatch    stored credentials differ from those that were sent
"""


class PlatformError(Exception):
    """Base of every error that leaves this package's client."""


class PlatformUnreachable(PlatformError):
    """Nothing usable came back; whether a write happened is unknown unless `surely_not_sent`."""

    def __init__(self, message: str, *, surely_not_sent: bool = False) -> None:
        super().__init__(message)
        self.surely_not_sent = surely_not_sent


class PlatformBusy(PlatformUnreachable):
    """ThingsBoard's rate limit (429, error code 33). `retry_after` in seconds where the answer names it."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PlatformRefused(PlatformError):
    """User name or password were refused."""


class PlatformMisconfigured(PlatformError):
    """The login works, but its user may not do this, or a limit of the tenant is reached."""


class PlatformConflict(PlatformError):
    """The write lost against what ThingsBoard already holds; read again, then decide."""


class DeviceExists(PlatformConflict):
    """A device of this name exists already (400, error code 31)."""


class CertificateTaken(PlatformConflict):
    """The certificate is already the credential of another device (400, error code 31)."""


class StaleVersion(PlatformConflict):
    """The object changed after it was read (409, error code 35)."""


class DeviceGone(PlatformError):
    """The device, or what hangs on it, does not exist (404)."""


class PlatformRejected(PlatformError):
    """ThingsBoard calls the request itself wrong (400); repeating it is of no use."""


class PlatformBadAnswer(PlatformError):
    """The answer is not what any known version of ThingsBoard says: a proxy in between, or a wrong URL."""


class CredentialsMismatch(PlatformBadAnswer):
    """The stored credentials are not those that were sent; the device could not connect."""
