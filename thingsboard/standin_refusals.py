"""The stand-in's refusals: the statuses, codes and words of ThingsBoard, as recorded."""

from dataclasses import dataclass


@dataclass(eq=False)  # not frozen: Python itself writes to an exception that is raised
class Refusal(Exception):
    """An answer that refuses. Without `code` it goes out as plain text, as telemetry routes do."""

    status: int
    message: str
    code: int | None = None


def bad(message: str) -> Refusal:
    """400/31: the arguments are wrong."""
    return Refusal(400, message, 31)


def unauthorized(message: str, code: int = 10) -> Refusal:
    """401/10: not who they say; 401/11: no longer."""
    return Refusal(401, message, code)


def not_found(message: str = "Requested item wasn't found!") -> Refusal:
    """404/32."""
    return Refusal(404, message, 32)


def stale(what: str) -> Refusal:
    """409/35: the version that was sent is not the one that is stored."""
    return Refusal(409, f"{what} was already changed by someone else", 35)


def general(message: str) -> Refusal:
    """500/2: what ThingsBoard says where it did not foresee the input."""
    return Refusal(500, message, 2)
