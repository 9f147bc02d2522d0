"""A client of step-ca's HTTP API (smallstep/certificates, ``api/``), over an injected ``httpx.AsyncClient``.

It knows requests, answers and their meaning. Not responsible for trust (the injected client's TLS
context), for tokens (``ca.token``), nor for judging a certificate (``ca.check``).
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from cryptography import x509
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from ca.answers import certificates, provisioners, signed_chain
from ca.crl import parse_crl
from ca.errors import CaBadAnswer, CaMisconfigured, CaRefused, CaUnreachable
from ca.exchange import Answer, bounded, exchange, nonsense, timed_out
from ca.models import Crl, Provisioner, SignedChain, check_serial
from ca.template import go_duration

Result = TypeVar("Result")

ATTEMPTS: Final = 3
MAX_CRL: Final = 64 << 20
"""Octets of a revocation list: about 1.7 million entries."""
_MAX_PAGES: Final = 1000
_REFUSALS: Final = frozenset({400, 401, 403, 404, 405, 409, 413, 429, 501})

CRL_LINES: Final = '"crl": {"enabled": true, "generateOnRevoke": true}'
"""What ca.json needs so that revocation is seen at once."""


class StepCaClient:
    """One step-ca.

    ``url`` is ``https://host[:port]``. ``timeout`` is in seconds and bounds each call in total, its
    repetitions included. Reads are repeated up to three times when no answer came; ``sign`` and
    ``revoke`` only when the request surely never left, for their tokens are spent by one arrival.

    Every method raises CaUnreachable, CaRefused and CaBadAnswer; others are named where they occur.
    """

    def __init__(self, http: httpx.AsyncClient, url: str, *, timeout: float = 10.0) -> None:
        self._http = http
        self._url = checked_url(url)
        self._seconds = timeout

    @property
    def url(self) -> str:
        """The CA's URL without a trailing slash."""
        return self._url

    async def health(self) -> None:
        """Return if ``GET /health`` says ok; asked once."""
        answer = (await self._bounded(lambda: self._exchange("GET", "/health"))).json()
        if answer.get("status") != "ok":
            raise nonsense("json", "the CA says that it is not healthy")

    async def provisioner(self, name: str) -> Provisioner:
        """Find the JWK provisioner called ``name``, over all pages of ``GET /provisioners``.

        Raises CaMisconfigured where there is none, or where the name is that of another kind of provisioner.
        """
        cursor, seen = "", {""}
        for _ in range(_MAX_PAGES):
            query = "limit=100" + (f"&cursor={quote(cursor, safe='')}" if cursor else "")
            page, cursor = provisioners((await self._read(f"/provisioners?{query}")).json())
            found = next((one for one in page if one.name == name), None)
            if found is not None:
                return found
            if not cursor:
                break
            if cursor in seen:
                raise nonsense("json", "the CA's pages of provisioners never end")
            seen.add(cursor)
        raise CaMisconfigured(
            f"the CA has no JWK provisioner called {name!r}",
            check="check STEP_CA_PROVISIONER_NAME against `authority.provisioners` in ca.json",
        )

    async def encrypted_key(self, kid: str) -> str:
        """Return the compact JWE of the private key of the provisioner with key id ``kid``.

        Raises CaMisconfigured where the CA does not publish it: then it has to come from a file.
        """
        try:
            key = (await self._read(f"/provisioners/{quote(kid, safe='')}/encrypted-key")).json().get("key")
        except CaRefused as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise
            raise CaMisconfigured(
                "the CA does not publish the provisioner's key",
                check="set STEP_CA_PROVISIONER_KEY_FILE, or put `encryptedKey` into the provisioner in ca.json",
            ) from error
        if not isinstance(key, str) or not key:
            raise nonsense("json", "the CA answered without a key")
        return key

    async def sign(self, csr_pem: str, ott: str, duration: timedelta) -> SignedChain:
        """Ask for one certificate that lives for ``duration`` from now.

        A CaRefused issued nothing. After CaBadAnswer, or CaUnreachable that is not ``surely_not_sent``, a
        certificate may exist. What is returned is unchecked: see ``ca.check``.
        """
        body = {"csr": csr_pem, "ott": ott, "notAfter": go_duration(duration)}
        answer = await self._send_once("/1.0/sign", body)
        return signed_chain(answer.json())

    async def revoke(self, serial: int, ott: str, *, reason_code: int = 0, reason: str = "") -> None:
        """Revoke ``serial``, whether it was ever issued or not; one already revoked is done.

        ``ott`` comes from ``TokenSigner.for_revoke`` of the same serial; ``reason_code`` is RFC 5280's (0
        to 10).
        """
        body = {
            "serial": str(check_serial(serial)),
            "ott": ott,
            "reasonCode": reason_code,
            "reason": reason,
            "passive": True,
        }
        try:
            answer = await self._send_once("/1.0/revoke", body)
        except CaRefused as error:
            if error.status == httpx.codes.BAD_REQUEST and "already revoked" in error.upstream:
                return
            raise
        if answer.json().get("status") != "ok":
            raise nonsense("json", "the CA's answer to a revocation is not ok")

    async def crl(self, issuer: x509.Certificate) -> Crl:
        """Fetch the revocation list and verify ``issuer``'s signature on it.

        Raises CaMisconfigured with the lines to add where the CA makes none.
        """
        try:
            answer = await self._read("/1.0/crl", limit=MAX_CRL)
        except CaRefused as error:
            if error.status not in {httpx.codes.NOT_FOUND, httpx.codes.NOT_IMPLEMENTED}:
                raise
            raise CaMisconfigured(
                "the CA makes no revocation list", check=f"put into ca.json and restart step-ca:\n{CRL_LINES}"
            ) from error
        return parse_crl(answer.body, issuer)

    async def roots(self) -> tuple[x509.Certificate, ...]:
        """Return the root certificates of ``GET /roots``; trusted no more than the connection."""
        return certificates((await self._read("/roots")).json())

    async def intermediates(self) -> tuple[x509.Certificate, ...]:
        """Return ``GET /intermediates``, the issuing CA first; empty where the root itself issues."""
        try:
            return certificates((await self._read("/intermediates")).json())
        except CaRefused as error:
            if error.status == httpx.codes.NOT_IMPLEMENTED:
                return ()
            raise

    async def _read(self, path: str, limit: int | None = None) -> Answer:
        return await self._bounded(lambda: _repeated(lambda: self._exchange("GET", path, limit=limit), _no_answer))

    async def _send_once(self, path: str, body: Mapping[str, Any]) -> Answer:
        async def call() -> Answer:
            try:
                return await self._exchange("POST", path, body)
            except CaUnreachable as error:
                if not error.surely_not_sent:
                    raise
            return await _repeated(lambda: self._exchange("POST", path, body), _surely_not_sent)

        return await self._bounded(call)

    async def _exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, limit: int | None = None
    ) -> Answer:
        options = {} if limit is None else {"limit": limit}
        answer = await exchange(self._http, method, self._url + path, body=body, **options)
        if answer.status in {httpx.codes.OK, httpx.codes.CREATED}:
            return answer
        raise _refusal(answer)

    async def _bounded(self, call: Callable[[], Awaitable[Result]]) -> Result:
        try:
            async with bounded(self._seconds):
                return await call()
        except TimeoutError as error:
            raise timed_out(self._seconds) from error


def checked_url(url: str) -> str:
    """Return ``url`` without a trailing slash; CaMisconfigured unless it is ``https://host[:port]``."""
    try:
        parts = urlsplit(url)
        good = parts.scheme == "https" and parts.hostname and (parts.port or True)
    except ValueError:
        good, parts = False, urlsplit("")
    if not good or parts.username or parts.query or parts.fragment:
        raise CaMisconfigured(
            f"{url!r} is not the URL of a CA", check="STEP_CA_URL has to look like https://ca.example.com:9000"
        )
    return url.rstrip("/")


async def _repeated(call: Callable[[], Awaitable[Answer]], again: Callable[[BaseException], bool]) -> Answer:
    retrying = AsyncRetrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.05, max=1),
        retry=retry_if_exception(again),
        reraise=True,
    )

    async def attempt() -> Answer:  # tenacity awaits what is declared `async`, not what a lambda returns
        return await call()

    return await retrying(attempt)


def _no_answer(error: BaseException) -> bool:
    return isinstance(error, CaUnreachable)


def _surely_not_sent(error: BaseException) -> bool:
    return isinstance(error, CaUnreachable) and error.surely_not_sent


def _refusal(answer: Answer) -> CaRefused | CaBadAnswer:
    """step-ca's refusals are JSON with a message; a 5xx, a redirect or HTML is nobody's word."""
    if answer.status not in _REFUSALS:
        return nonsense("status", f"the CA answered {answer.status}")
    message = answer.json().get("message")
    if not isinstance(message, str):
        return nonsense("json", f"the CA answered {answer.status} without a message")
    return CaRefused(
        f"the CA refused with {answer.status}",
        status=answer.status,
        upstream=message[:500],
        check=_CHECKS.get(answer.status, "step-ca's log has the cause"),
    )


_CHECKS: Final = {
    401: "step-ca's log has the cause; compare the clocks, STEP_CA_PROVISIONER_NAME and its key with ca.json, "
    "and that the host of STEP_CA_URL is one of `dnsNames`",
    403: "step-ca's log has the cause; compare BRIDGE_CERT_LIFETIME with the provisioner's `maxTLSCertDuration`, "
    "and look at its policy and webhooks",
}
