"""``POST /devices/{device_id}/enroll`` and ``POST /v1/enroll``: the hot path.

One read, one parse, one call, one answer. These are plain routes on purpose: the framework's dependency and
serialisation machinery would cost more than everything this module does.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from starlette.requests import Request
from starlette.responses import Response

from bridge.enrollment.csr import parse_csr
from bridge.errors import BadProof, BadRequest, BridgeError, TooMany
from bridge.model.facts import EnrollmentRequest
from bridge.model.identity import DeviceId
from bridge.routes.answers import JSON_HEADERS, Answers
from bridge.routes.bodies import (
    EnrollFields,
    csr_of,
    inventory,
    label,
    parse_fields,
    voucher_hash,
    wireguard_key,
)
from bridge.routes.parts import Parts
from bridge.routes.proofs import Expected, read_proof
from bridge.routes.reading import parse_object, read_body
from bridge.routes.visit import ClientGone, Visit, visit_of
from enroll.wire import VOUCHER_HEADER, Act

_log = structlog.get_logger("bridge.routes")

_CREATED, _OK = 201, 200


class EnrollDoor:
    """Both addresses of the one use case."""

    def __init__(self, parts: Parts, timer: Callable[[], float] = time.perf_counter) -> None:
        self._parts = parts
        self._answers = Answers(parts.terms, parts.trust)
        self._server_key = parts.terms.vpn.server_public_key if parts.terms.vpn is not None else None
        self._timer = timer
        self._open = 0

    async def by_address(self, request: Request) -> Response:
        """Answer ``POST /devices/{device_id}/enroll``: 201 for a new certificate, 200 for the stored one."""
        return await self._measured(request, _CREATED, request.path_params["device_id"])

    async def by_body(self, request: Request) -> Response:
        """Answer ``POST /v1/enroll``: the id in the body, the old dialect, always 200."""
        return await self._measured(request, _OK, None)

    async def _measured(self, request: Request, created: int, name: str | None) -> Response:
        visit = visit_of(request)
        visit.door, visit.outcome = "enroll", BridgeError.code
        begun = self._timer()
        self._open += 1
        try:
            if self._open > self._parts.max_open_enrollments:
                raise TooMany("the bridge has too many enrollments open")
            return await self._enroll(request, visit, created, name)
        except BridgeError as e:
            visit.outcome = e.code
            raise
        except ClientGone:
            visit.outcome = "client_gone"
            raise
        finally:
            self._open -= 1
            self._parts.meters.enrollment(visit.outcome, self._timer() - begun)

    async def _enroll(self, request: Request, visit: Visit, created: int, name: str | None) -> Response:
        device = self._parts.naming.parse(name) if name is not None else None
        fields = parse_fields(parse_object(await read_body(request)))
        if device is None:
            if fields.device_id is None:
                raise BadRequest("field 'device_id' is missing")
            device = self._parts.naming.parse(fields.device_id)
        visit.device = device.value
        wanted = self._request(device, fields, request.headers.get(VOUCHER_HEADER))
        if fields.proof is not None:
            wanted = await self._proven(wanted, fields.proof)
        enrolled = await self._parts.enrollment.enroll(wanted, visit.request_id)
        visit.outcome = "created" if enrolled.created else "stored"
        old_dialect = name is None or fields.csr is not None
        body = self._answers.render(enrolled, self._parts.clock.now(), old_dialect=old_dialect)
        return Response(body, created if enrolled.created else _OK, JSON_HEADERS)

    def _request(self, device: DeviceId, fields: EnrollFields, voucher_header: str | None) -> EnrollmentRequest:
        return EnrollmentRequest(
            device=device,
            csr=parse_csr(csr_of(fields), device),
            wg_key=wireguard_key(fields.wg_public_key, self._server_key),
            name=label(fields.device_name),
            type=label(fields.device_type),
            voucher_hash=voucher_hash(fields, voucher_header),
            inventory=inventory(fields),
            proven_leaf=None,
        )

    async def _proven(self, wanted: EnrollmentRequest, proof: str) -> EnrollmentRequest:
        """Return the request with what its proof proves; one that does not hold proves nothing, and is counted."""
        try:
            expected = Expected(Act.RENEW, wanted.device, wanted.csr.der_sha256, wanted.wg_key)
            read = read_proof(proof, expected, self._parts.trust.root_sha256)
            proven = await self._parts.renewal.prove(read, wanted)
        except BadProof as e:
            _log.info("proof refused", reason=str(e))
            self._parts.meters.refused_proof()
            return wanted
        return proven
