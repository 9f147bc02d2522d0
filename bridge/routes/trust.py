"""The tenant's public certificates: ``GET /root/{sha256}``, ``/roots.pem``, ``/intermediates``.

Paths and shapes are step-ca's (api/api.go: Root, Intermediates), so that ``step ca bootstrap`` works against the
bridge. Nothing here is secret, and nothing here is to be trusted by a device before it has compared the digest.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from bridge.errors import NotFound
from bridge.routes.answers import compact
from bridge.routes.parts import TrustAnchors
from bridge.routes.visit import visit_of

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_JSON: Final = "application/json"
_PEM: Final = "application/x-pem-file"


class TrustDoor:
    """Serves what was rendered at start."""

    def __init__(self, trust: TrustAnchors) -> None:
        self._digest = trust.root_sha256.hex
        self._root = compact({"ca": trust.root})
        self._pem = trust.root.encode()
        self._intermediates = compact({"crts": list(trust.intermediates)})

    async def root(self, request: Request) -> Response:
        """Answer the root whose SHA-256 is asked for: 64 hex digits in either case, dashes ignored as step-ca does.

        :raises NotFound: it is not this tenant's root, or no digest at all.
        """
        visit_of(request).door = "root"
        digest = request.path_params["sha256"].replace("-", "").lower()
        if not _DIGEST.fullmatch(digest) or digest != self._digest:
            raise NotFound(f"no root of this fingerprint is served here; this tenant's root has SHA-256 {self._digest}")
        return Response(self._root, media_type=_JSON)

    async def roots_pem(self, request: Request) -> Response:
        """Answer the root as PEM, for people."""
        visit_of(request).door = "roots.pem"
        return Response(self._pem, media_type=_PEM)

    async def intermediates(self, request: Request) -> Response:
        """Answer the issuing CA and its issuers."""
        visit_of(request).door = "intermediates"
        return Response(self._intermediates, media_type=_JSON)
