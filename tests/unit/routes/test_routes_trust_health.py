"""Public certificates, probes, and what the framework alone would have answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from structlog.testing import capture_logs

from bridge.errors import CaUnreachable, StoreUnavailable
from bridge.routes.parts import AnswerTerms, Parts
from enroll.wire import PROBLEM_JSON, Problem


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_the_root_by_its_fingerprint(house: Any, prefix: str) -> None:
    digest = house.parts.trust.root_sha256.hex
    async with house.client() as client:
        answers = [await client.get(f"{prefix}/root/{text}") for text in (digest, digest.upper())]

    for answer in answers:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        (certificate,) = x509.load_pem_x509_certificates(answer.json()["ca"].encode())
        assert certificate == house.ca.root


@pytest.mark.parametrize(
    "text",
    [
        "0" * 64,
        "f" * 63,
        "f" * 65,
        "g" * 64,
        "",
        "..",
        "%00",
        "%0A",
        "{digest}0",
        "{digest}%0A",
        " {digest}",
        "{colons}",
        "{full_width}",
    ],
)
async def test_any_other_fingerprint_is_404(house: Any, text: str) -> None:
    digest = house.parts.trust.root_sha256.hex
    colons = ":".join(digest[n : n + 2] for n in range(0, 64, 2))
    full_width = digest.translate({ord("0") + n: 0xFF10 + n for n in range(10)})
    path = text.format(digest=digest, colons=colons, full_width=full_width)
    async with house.client() as client:
        answer = await client.get(f"/root/{path}")

    assert answer.status_code == 404
    assert Problem.from_json(404, answer.json()).code == "not_found"


async def test_roots_for_people_and_intermediates_as_step_ca(house: Any) -> None:
    async with house.client() as client:
        roots, intermediates = await client.get("/roots.pem"), await client.get("/intermediates")

    assert roots.headers["content-type"] == "application/x-pem-file"
    assert x509.load_pem_x509_certificates(roots.content) == [house.ca.root]
    assert list(intermediates.json()) == ["crts"]
    assert [x509.load_pem_x509_certificate(pem.encode()) for pem in intermediates.json()["crts"]] == [house.ca.issuer]


async def test_alive_and_which_version(house: Any) -> None:
    async with house.client() as client:
        alive, version = await client.get("/healthz"), await client.get("/version")
        head = await client.head("/healthz")

    assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
    assert version.json() == {"version": "1.2.3"}
    assert (head.status_code, head.content) == (200, b"")


async def fine() -> None:
    return None


async def down() -> None:
    raise CaUnreachable("the CA at https://ca.example.com does not answer")


async def test_ready_when_every_part_is_up(house: Any) -> None:
    async with house.client(readiness={"store": fine, "ca": fine}, watched={"hawkbit": fine}) as client:
        answer = await client.get("/readyz")

    up = {"up": True}
    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "parts": {"store": up, "ca": up}, "watched": {"hawkbit": up}}


async def test_not_ready_names_the_part_that_is_down_and_what_to_check(house: Any) -> None:
    async with house.client(readiness={"store": fine, "ca": down}) as client:
        answer = await client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["ready"] is False
    assert answer.json()["parts"]["store"] == {"up": True}
    assert answer.json()["parts"]["ca"] == {
        "up": False,
        "reason": "the CA at https://ca.example.com does not answer",
        "advice": CaUnreachable.advice,
    }


async def test_a_watched_part_that_is_down_is_shown_but_enrollment_goes_on(house: Any) -> None:
    async with house.client(readiness={"store": fine}, watched={"thingsboard": down}) as client:
        answer = await client.get("/readyz")

    assert (answer.status_code, answer.json()["ready"]) == (200, True)
    assert answer.json()["watched"]["thingsboard"]["up"] is False


async def test_a_check_that_breaks_or_hangs_is_a_part_that_is_down(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks() -> None:
        raise RuntimeError("secret inside")

    async def hangs() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("bridge.routes.health._PATIENCE", 0.01)
    async with house.client(readiness={"a": breaks, "b": hangs}) as client:
        with capture_logs():
            answer = await client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["parts"]["a"]["reason"] == "the check itself failed"
    assert answer.json()["parts"]["b"]["reason"] == "no answer within 0.01 seconds"
    assert "secret" not in answer.text


async def test_many_probes_are_one_question_until_it_is_stale(house: Any) -> None:
    asked = 0

    async def counting() -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise StoreUnavailable("the database is gone")

    async with house.client(readiness={"store": counting}) as client:
        first = await asyncio.gather(*(client.get("/readyz") for _ in range(20)))
        house.clock.moment += timedelta(seconds=2)
        later = await client.get("/readyz")

    assert {answer.status_code for answer in first} == {200}
    assert later.status_code == 503
    assert asked == 2


async def test_metrics_name_no_device(open_house: Any, new_csr: Callable[..., str]) -> None:
    async with open_house.client() as client:
        await client.post("/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7")})
        await client.post("/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7")})
        answer = await client.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain")
    assert 'iot_bridge_enrollments_total{outcome="created"} 1.0' in answer.text
    assert 'iot_bridge_enrollments_total{outcome="identity_exists"} 1.0' in answer.text
    assert "iot_bridge_enrollment_seconds_count 2.0" in answer.text
    assert "pump-7" not in answer.text


async def test_probes_are_quiet_in_the_log(house: Any) -> None:
    with capture_logs() as logs:
        async with house.client() as client:
            for path in ("/healthz", "/readyz", "/version", "/metrics"):
                await client.get(path)

    assert {line["log_level"] for line in logs} == {"debug"}


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/devices", "/devices/x", "/devices/x/enrol", "/v1/enroll/", "/root"]
)
async def test_an_address_that_leads_nowhere_is_a_problem_document(house: Any, path: Any) -> None:
    async with house.client() as client:
        answer = await client.post(path, content=b"{}")

    assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM_JSON)
    assert Problem.from_json(404, answer.json()).code == "not_found"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/devices/pump-7/enroll", "/v1/enroll", "/webhooks/thingsboard", "/api/v1/enroll"])
async def test_another_method_is_405_and_says_which_one_is_taken(house: Any, method: str, path: Any) -> None:
    async with house.client() as client:
        answer = await client.request(method, path)

    assert (answer.status_code, answer.headers["content-type"]) == (405, PROBLEM_JSON)
    assert answer.headers["allow"] == "POST"
    assert answer.json()["status"] == 405


async def test_without_a_prefix_nothing_is_served_under_one(house: Any, new_csr: Callable[..., str]) -> None:
    async with house.client(path_prefix="") as client:
        answer = await client.post("/api/v1/enroll", json={"device_id": "x", "csr": new_csr("x")})

    assert answer.status_code == 404


@pytest.mark.parametrize("prefix", ["api", "/api/", "/", "/a b", "/{x}", "//"])
def test_a_prefix_that_is_none_is_refused_at_start(house: Any, prefix: str) -> None:
    given = {name: getattr(house.parts, name) for name in Parts.__slots__}
    with pytest.raises(ValueError, match="path_prefix"):
        Parts(**given | {"path_prefix": prefix})


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 2])
def test_a_renewal_before_the_beginning_or_after_the_end_is_refused_at_start(fraction: Any) -> None:
    with pytest.raises(ValueError, match="renew_fraction"):
        AnswerTerms(renew_fraction=fraction)
