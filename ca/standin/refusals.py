"""step-ca's refusals: statuses and messages as version 0.30.2 writes them (``errs/error.go``)."""

from typing import Final

_LOGS: Final = "Please see the certificate authority logs for more info."
_BAD_REQUEST: Final = "The request could not be completed: "
_FORBIDDEN: Final = "The request was forbidden by the certificate authority: "


class Refusal(Exception):
    """An answer other than the one asked for: ``status`` and the ``message`` of its JSON body.

    ``cause`` stays in the log, as in step-ca.
    """

    def __init__(self, status: int, message: str, cause: str = "") -> None:
        super().__init__(cause or message)
        self.status = status
        self.message = message


def bad_request(text: str) -> Refusal:
    """400 with its reason."""
    return Refusal(400, f"{_BAD_REQUEST}{text}.")


def forbidden(text: str) -> Refusal:
    """403 with its reason."""
    return Refusal(403, f"{_FORBIDDEN}{text}.")


def unauthorized(cause: str) -> Refusal:
    """401, which never says why."""
    return Refusal(401, f"The request lacked necessary authorization to be completed. {_LOGS}", cause)


def not_found(text: str | None = None) -> Refusal:
    """404, in general words unless ``text`` is given."""
    return Refusal(404, text or f"The requested resource could not be found. {_LOGS}")


def not_implemented(cause: str) -> Refusal:
    """501, in general words."""
    return Refusal(501, f"The requested method is not implemented by the certificate authority. {_LOGS}", cause)


def server_error(cause: str) -> Refusal:
    """500, in general words."""
    return Refusal(500, f"The certificate authority encountered an Internal Server Error. {_LOGS}", cause)
