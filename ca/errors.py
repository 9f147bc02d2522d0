"""The one family of errors that leaves this package.

::

    CaError
    |-- CaRefused         step-ca answered, and the answer was no
    |-- CaUnreachable     no answer; says whether the request can have arrived
    |-- CaMisconfigured   an operator has to change a variable or ca.json
    '-- CaBadAnswer       an answer that cannot be used: HTML, nonsense, a wrong certificate

Exceptions of httpx, ssl, cryptography, joserfc and jwt never cross the package's surface.
"""


class CaError(Exception):
    """Something about the CA went wrong.

    ``str(error)`` is what happened; ``check`` is one sentence for the operator that names what to look at.
    Neither holds a token, a password or a key.
    """

    def __init__(self, message: str, *, check: str) -> None:
        super().__init__(message)
        self.check = check


class CaRefused(CaError):
    """step-ca said no (a 4xx or 501).

    ``status`` is the HTTP status. ``upstream`` is step-ca's own message, at most 500 characters: for the
    log, never for a caller. A refused ``sign`` issued nothing.
    """

    def __init__(self, message: str, *, status: int, upstream: str, check: str) -> None:
        super().__init__(message, check=check)
        self.status = status
        self.upstream = upstream


class CaUnreachable(CaError):
    """No answer came: refused connection, TLS failure, time-out, connection lost.

    ``surely_not_sent`` is True only if the request certainly never left (no connection was made). False
    means that the CA may have acted: the outcome is unknown.
    """

    def __init__(self, message: str, *, surely_not_sent: bool, check: str) -> None:
        super().__init__(message, check=check)
        self.surely_not_sent = surely_not_sent


class CaMisconfigured(CaError):
    """An operator has to change something; ``check`` names the variable or holds lines for ca.json."""


class CaBadAnswer(CaError):
    """An answer that cannot be used. After a ``sign`` the outcome is unknown: a certificate may exist.

    ``failed`` is a short stable word for what did not hold: ``http``, ``json``, ``size``, ``status``,
    ``pem``, ``key``, ``cn``, ``san``, ``serial``, ``basic_constraints``, ``key_usage``, ``eku``,
    ``validity``, ``issuer``, ``extension``, ``chain``, ``crl``, ``root``.
    """

    def __init__(self, message: str, *, failed: str, check: str) -> None:
        super().__init__(message, check=check)
        self.failed = failed
