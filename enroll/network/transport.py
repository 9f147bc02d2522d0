"""The bridge over HTTPS: its few requests, and what their answers mean.

Responsible for the addresses of WIRE §1, §4 and §5, for telling the bridge's JSON from whatever a stranger answers,
and for which answers are final. Everything the agent asks of the network goes through one ``Network``.

Not responsible for the connection (``enroll.network.https``), for whether an answer may be believed
(``enroll.answer``), nor for trying again. ``fetch_unverified_root`` is the only function of the agent that talks
to a server it has not verified.
"""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote

from enroll.errors import ForeignAnswerError, RefusedError, StoppedError, TryAgainError
from enroll.names import Fingerprint
from enroll.network import https
from enroll.network.https import MAX_ANSWER, Answer
from enroll.printable import printable
from enroll.wire import Problem

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["MAX_ANSWER", "Heard", "HttpsNetwork", "Network", "activate_url", "enroll_url", "retry_after"]

_REDIRECTS: Final = range(300, 400)
_SNIFFED: Final = 200
_PORTAL: Final = (
    "a captive portal or a proxy may answer in the bridge's place: log this network in, or allow the bridge in it, "
    "and check BRIDGE_API_URL"
)


class _NotOurJsonError(ValueError):
    """JSON that a parser may take, and the bridge never writes; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The JSON of a 200 or 201, unchecked, and how the server proved itself that sent it."""

    body: Any
    server_chain: tuple[x509.Certificate, ...]
    """Leaf first: the verified chain from Python 3.13 on, else the leaf alone."""


class Network(Protocol):
    """All that the agent asks of the bridge. Every method is one request on a connection of its own.

    ``base`` is the bridge's address without a slash at the end, ``seconds`` the time for everything together.
    All raise ``TryAgainError`` where there is no usable answer: ``UnreachableError`` (with ``untrusted`` where the
    server's certificate was refused), ``ForeignAnswerError``, ``RefusedError``.
    """

    def fetch_unverified_root(self, base: str, pin: Fingerprint, seconds: float) -> bytes:
        """Return what a server that nobody has verified claims to be the root with this SHA-256: PEM."""

    def fetch_root(self, base: str, pin: Fingerprint, context: ssl.SSLContext, seconds: float) -> bytes:
        """Return the same over a connection that the context verifies."""

    def fetch_intermediates(self, base: str, context: ssl.SSLContext, seconds: float) -> list[bytes]:
        """Return the PEM texts of ``GET {base}/intermediates``, as served."""

    def server_chain(self, base: str, context: ssl.SSLContext, seconds: float) -> tuple[x509.Certificate, ...]:
        """Shake hands, ask nothing, and return how the server proved itself, as ``Heard.server_chain``."""

    def enroll(
        self, base: str, device_id: str, body: Mapping[str, Any], context: ssl.SSLContext, seconds: float
    ) -> Heard:
        """Post an enrollment or a renewal.

        :raises StoppedError: a problem document with a final code.
        """

    def activate(
        self, base: str, device_id: str, body: Mapping[str, Any], context: ssl.SSLContext, seconds: float
    ) -> Heard:
        """Post an activation.

        :raises StoppedError: a problem document with a final code.
        """


class HttpsNetwork:
    """The real thing.

    :param environment: where the proxy variables are; the process's own by default.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    def fetch_unverified_root(self, base: str, pin: Fingerprint, seconds: float) -> bytes:
        """Return what the server at the base URL claims to be the root with this SHA-256: unverified PEM.

        The connection checks nothing, carries no secret, does nothing else and is closed; the caller must
        compare the digest before believing a byte.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return self.fetch_root(base, pin, context, seconds)

    def fetch_root(self, base: str, pin: Fingerprint, context: ssl.SSLContext, seconds: float) -> bytes:
        """Return what ``GET {base}/root/{sha256}`` answers as ``ca``, over the given context."""
        answer = self._get(f"{base}/root/{pin}", context, seconds)
        pem = answer.get("ca") if isinstance(answer, Mapping) else None
        if not isinstance(pem, str):
            raise ForeignAnswerError("the answer to GET /root is not the bridge's: it has no field 'ca'")
        return pem.encode(errors="replace")

    def fetch_intermediates(self, base: str, context: ssl.SSLContext, seconds: float) -> list[bytes]:
        """Return the PEM texts of ``GET {base}/intermediates``, as served."""
        answer = self._get(f"{base}/intermediates", context, seconds)
        texts = answer.get("crts") if isinstance(answer, Mapping) else None
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ForeignAnswerError("the answer to GET /intermediates is not the bridge's: it has no list 'crts'")
        return [text.encode(errors="replace") for text in texts]

    def server_chain(self, base: str, context: ssl.SSLContext, seconds: float) -> tuple[x509.Certificate, ...]:
        """Shake hands, ask nothing, and return how the server proved itself."""
        return _loaded(base, https.introduce(base, context, seconds, environment=self._environment))

    def enroll(
        self, base: str, device_id: str, body: Mapping[str, Any], context: ssl.SSLContext, seconds: float
    ) -> Heard:
        """Post an enrollment or a renewal; see ``Network``."""
        return self._post(enroll_url(base, device_id), body, context, seconds)

    def activate(
        self, base: str, device_id: str, body: Mapping[str, Any], context: ssl.SSLContext, seconds: float
    ) -> Heard:
        """Post an activation; see ``Network``."""
        return self._post(activate_url(base, device_id), body, context, seconds)

    def _get(self, url: str, context: ssl.SSLContext, seconds: float) -> Any:
        """Ask for something public: no answer to that is final, for anybody may have given it."""
        answer = https.exchange("GET", url, context, seconds, environment=self._environment)
        try:
            return _understood(url, answer)
        except StoppedError as e:
            raise RefusedError(e.problem, str(e)) from e

    def _post(self, url: str, body: Mapping[str, Any], context: ssl.SSLContext, seconds: float) -> Heard:
        sent = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        answer = https.exchange("POST", url, context, seconds, environment=self._environment, body=sent)
        return Heard(_understood(url, answer), _loaded(url, answer.server_chain))


def _loaded(url: str, chain: Sequence[bytes]) -> tuple[x509.Certificate, ...]:
    from enroll.trust.certificates import load_der  # noqa: PLC0415 - slow to import, and not needed to ask

    try:
        return tuple(load_der(der) for der in chain)
    except ValueError as e:
        raise ForeignAnswerError(f"{url}: the server shows a certificate that cannot be read") from e


def enroll_url(base: str, device_id: str) -> str:
    """Return the address of WIRE §1."""
    return f"{base}/devices/{quote(device_id, safe='')}/enroll"


def activate_url(base: str, device_id: str) -> str:
    """Return the address of WIRE §4."""
    return f"{base}/devices/{quote(device_id, safe='')}/activate"


def _understood(url: str, answer: Answer) -> Any:
    status, wait = answer.status, retry_after(answer.headers)
    if status in _REDIRECTS:
        where = printable(answer.headers.get("location", "nowhere"), 100)
        raise ForeignAnswerError(
            f"{url}: answers with a redirect ({status}, to {where!r}), which the bridge never does; {_PORTAL}"
        )
    if status == HTTPStatus.NETWORK_AUTHENTICATION_REQUIRED:
        raise ForeignAnswerError(f"{url}: the network wants a login first (511); {_PORTAL}", retry_after=wait)
    try:
        data = json.loads(answer.content, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as e:
        kind = printable(answer.headers.get("content-type", "no content type"), 60)
        text = f"{url}: status {status}, but not the bridge's JSON ({kind!r}: {_what_it_is(answer, e)}); {_PORTAL}"
        raise ForeignAnswerError(text, retry_after=wait) from e
    if status in {HTTPStatus.OK, HTTPStatus.CREATED}:
        return data
    raise _refusal(url, status, data, wait)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its fields: readers differ in which of two of the same name they take (RFC 8259 §4)."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _NotOurJsonError("a field is there twice")
    return found


def _no_number(text: str) -> Any:
    raise _NotOurJsonError(f"{text} is no number of JSON")


def _what_it_is(answer: Answer, error: Exception) -> str:
    if not answer.content:
        return "empty"
    if isinstance(error, _NotOurJsonError):
        return str(error)
    if isinstance(error, RecursionError):
        return "nested too deep"
    start = answer.content[:_SNIFFED].lstrip().lower()
    if start.startswith(b"<"):
        return "a web page"
    return "cut short or damaged" if start.startswith((b"{", b"[")) else "something else"


def _refusal(url: str, status: int, data: object, wait: float | None) -> StoppedError | TryAgainError:
    problem = Problem.from_json(status, data)
    if problem is None:
        text = f"{url}: status {status} without a problem document of the bridge"
        return ForeignAnswerError(text, retry_after=wait)
    said = printable(problem.detail or problem.title or "no explanation")
    text = f"the bridge answers {status} {problem.code}: {said}"
    if problem.final:
        return StoppedError(problem.code, text)
    return RefusedError(problem.code, text, retry_after=wait)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of ``Retry-After`` (RFC 9110 §10.2.3), or ``None``; names are in lower case.

    A date counts from the answer's own ``Date``: the device's clock may be wrong.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        return float(text)
    try:
        seconds = (parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return seconds if seconds > 0 else None
