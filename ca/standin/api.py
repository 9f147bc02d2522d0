"""step-ca's routes over the embedded CA: the same paths (with and without ``/1.0``), statuses and bodies.

Handlers parse, ask ``Authority`` and render; they decide nothing.
"""

import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ca.models import Fingerprint
from ca.standin.authority import Authority
from ca.standin.durations import undecodable
from ca.standin.refusals import Refusal, bad_request, not_found, unauthorized

Handler = Callable[[Request], Awaitable[Response]]

_LOG: Final = logging.getLogger(__name__)
_DEFAULT_PAGE: Final = 20
_MAX_PAGE: Final = 100
_MAX_BODY: Final = 1 << 20
_TLS_OPTIONS: Final = {"cipherSuites": [], "minVersion": 1.2, "maxVersion": 1.3, "renegotiation": False}


class Api:
    """The handlers of one embedded CA."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._pages = [
            (f"{number:04x}{hashlib.sha256(entry['name'].encode()).hexdigest()[:28]}", entry)
            for number, entry in enumerate(authority.entries())
        ]

    def application(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Route(prefix + path, _refusing(handler), methods=[method])
            for prefix in ("", "/1.0")
            for method, path, handler in self._table()
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _plain})

    def _table(self) -> list[tuple[str, str, Handler]]:
        return [
            ("GET", "/health", self._health),
            ("GET", "/version", self._version),
            ("GET", "/root/{sha}", self._root),
            ("GET", "/roots", self._roots),
            ("GET", "/roots.pem", self._roots_pem),
            ("GET", "/intermediates", self._intermediates),
            ("GET", "/intermediates.pem", self._intermediates_pem),
            ("GET", "/provisioners", self._provisioners),
            ("GET", "/provisioners/{kid}/encrypted-key", self._encrypted_key),
            ("GET", "/crl", self._crl),
            ("POST", "/sign", self._sign),
            ("POST", "/revoke", self._revoke),
            ("POST", "/renew", self._never),
            ("POST", "/rekey", self._never),
        ]

    async def _health(self, _request: Request) -> Response:
        return _json({"status": "ok"})

    async def _version(self, _request: Request) -> Response:
        return _json({"version": "iot-bridge embedded CA"})

    async def _root(self, request: Request) -> Response:
        wanted = request.path_params["sha"].replace("-", "").lower()
        root = self._authority.hierarchy.root.certificate
        if wanted != Fingerprint.of(root).value:
            raise not_found(f'root certificate with fingerprint "{wanted}" was not found')
        return _json({"ca": _pem(root)})

    async def _roots(self, _request: Request) -> Response:
        return _json({"crts": [_pem(self._authority.hierarchy.root.certificate)]}, 201)

    async def _roots_pem(self, _request: Request) -> Response:
        return Response(_pem(self._authority.hierarchy.root.certificate), media_type="application/x-pem-file")

    async def _intermediates(self, _request: Request) -> Response:
        return _json({"crts": list(self._authority.signer.chain_pems)}, 201)

    async def _intermediates_pem(self, _request: Request) -> Response:
        return Response("".join(self._authority.signer.chain_pems), media_type="application/x-pem-file")

    async def _provisioners(self, request: Request) -> Response:
        cursor, text = request.query_params.get("cursor", ""), request.query_params.get("limit", "")
        try:
            limit = int(text or 0)
        except ValueError as error:
            raise bad_request(f"limit '{text}' is not an integer") from error
        limit = min(limit, _MAX_PAGE) if limit > 0 else _DEFAULT_PAGE
        rest = [(key, entry) for key, entry in self._pages if key >= cursor]
        following = rest[limit][0] if len(rest) > limit else ""
        return _json({"provisioners": [entry for _key, entry in rest[:limit]], "nextCursor": following})

    async def _encrypted_key(self, request: Request) -> Response:
        key = self._authority.encrypted_key(request.path_params["kid"])
        if key is None:
            raise not_found()
        return _json({"key": key})

    async def _crl(self, request: Request) -> Response:
        der = self._authority.crl()
        if "pem" in request.query_params:
            pem = x509.load_der_x509_crl(der).public_bytes(Encoding.PEM)
            return Response(pem, media_type="application/x-pem-file")
        return Response(der, media_type="application/pkix-crl")

    async def _sign(self, request: Request) -> Response:
        chain = self._authority.sign(await _body(request))
        answer = {"crt": chain[0], "ca": chain[1], "certChain": list(chain), "tlsOptions": _TLS_OPTIONS}
        return _json(answer, 201)

    async def _revoke(self, request: Request) -> Response:
        self._authority.revoke(await _body(request))
        return _json({"status": "ok"})

    async def _never(self, _request: Request) -> Response:
        """Refuse as step-ca does with a live leaf of a provisioner that has ``disableRenewal``.

        It would answer 400 to a request without client certificate; this server asks nobody for one.
        """
        raise unauthorized("renew is disabled for both provisioners")


def _refusing(handler: Handler) -> Handler:
    async def endpoint(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            _LOG.info("%s %s: %d, %s", request.method, request.url.path, refusal.status, refusal)
            return _json({"status": refusal.status, "message": refusal.message}, refusal.status)

    return endpoint


async def _body(request: Request) -> Mapping[str, Any]:
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > _MAX_BODY:
            raise undecodable()
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise undecodable() from error
    if not isinstance(value, dict):
        raise undecodable()
    return value


def _json(value: Mapping[str, Any], status: int = 200) -> Response:
    content = json.dumps(value, separators=(",", ":")) + "\n"
    return Response(content, status, media_type="application/json")


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


async def _plain(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    text = "404 page not found\n" if status == 404 else ""  # noqa: PLR2004 - Go's own words for it
    return PlainTextResponse(text, status)
