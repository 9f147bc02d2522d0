"""``POST /devices/{device_id}/activate``: a renewed certificate becomes the current one."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from bridge.enrollment.service import Enrolled
from bridge.errors import BridgeError, TooMany
from bridge.routes.answers import JSON_HEADERS, Answers
from bridge.routes.bodies import parse_activation
from bridge.routes.parts import Parts
from bridge.routes.proofs import Expected, read_proof
from bridge.routes.reading import parse_object, read_body
from bridge.routes.visit import ClientGone, Visit, visit_of
from enroll.wire import Act


class ActivateDoor:
    """What a device calls once its new certificate lies safely on its disk."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._answers = Answers(parts.terms, parts.trust)
        self._open = 0

    async def activate(self, request: Request) -> Response:
        """Answer 200 with the enrollment's answer, also where the certificate is current already."""
        visit = visit_of(request)
        visit.door, visit.outcome = "activate", BridgeError.code
        self._open += 1
        try:
            if self._open > self._parts.max_open_enrollments:
                raise TooMany("the bridge has too many requests open")
            return await self._activate(request, visit)
        except BridgeError as e:
            visit.outcome = e.code
            raise
        except ClientGone:
            visit.outcome = "client_gone"
            raise
        finally:
            self._open -= 1
            self._parts.meters.activation(visit.outcome)

    async def _activate(self, request: Request, visit: Visit) -> Response:
        device = self._parts.naming.parse(request.path_params["device_id"])
        fields = parse_activation(parse_object(await read_body(request)))
        visit.device = device.value
        proof = read_proof(fields.proof, Expected(Act.ACTIVATE, device, None, None), self._parts.trust.root_sha256)
        activated = await self._parts.renewal.activate(device, proof, visit.request_id)
        visit.outcome = "activated" if activated.changed else "current"
        enrolled = Enrolled(activated.issuance, activated.lease, created=False)
        body = self._answers.render(enrolled, self._parts.clock.now(), old_dialect=False)
        return Response(body, headers=JSON_HEADERS)
