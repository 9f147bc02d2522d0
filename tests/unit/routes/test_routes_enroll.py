"""The enrollment route over the real use case and registry: what comes back, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from bridge.errors import CaBadAnswer, CaRefused, CaUnreachable
from bridge.model.identity import Fingerprint
from enroll.wire import EnrollAnswer, Problem


async def test_a_new_certificate_is_201_and_what_the_device_parses(
    house: Any, new_csr: Callable[..., str], new_wg_key: Callable[[], str]
) -> None:
    await house.register("pump-7")
    key = ec.generate_private_key(ec.SECP256R1())
    async with house.client() as client:
        answer = await client.post(
            "/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7", key=key), "wg_public_key": new_wg_key()}
        )

    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    parsed = EnrollAnswer.from_json(answer.json())
    leaf = x509.load_pem_x509_certificate(parsed.cert.encode())
    assert leaf.public_key() == key.public_key()
    assert (parsed.device_id, parsed.generation, parsed.state) == ("pump-7", 1, "current")
    assert parsed.renew_after - house.clock.now() == timedelta(days=60)
    assert parsed.not_after - house.clock.now() == timedelta(days=90)
    assert parsed.server_time == house.clock.now()
    assert [c.subject.rfc4514_string() for c in x509.load_pem_x509_certificates(parsed.ca_chain.encode())] == [
        "CN=Workshop issuing CA"
    ]
    assert parsed.wg.address == "10.8.0.2/32"
    assert parsed.wg.allowed_ips == ("10.8.0.0/24",)
    assert parsed.wg.persistent_keepalive == 25
    assert "PrivateKey" not in answer.json()["wg"]["config"]
    assert (parsed.mqtt.host, parsed.mqtt.port) == ("mqtt.example.com", 8883)
    assert parsed.hawkbit.tenant == "DEFAULT"
    assert not {"certificate", "wireguard_ip", "wireguard_config"} & set(answer.json())


async def test_the_same_key_gets_the_stored_certificate_with_200_whatever_the_bytes_of_the_csr(
    house: Any, new_csr: Callable[..., str]
) -> None:
    await house.register("pump-7")
    key = ec.generate_private_key(ec.SECP256R1())
    async with house.client() as client:
        first = await client.post("/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7", key=key)})
        again = await client.post("/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7", key=key)})

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert house.ca.signed == 1
    assert house.counted("iot_bridge_enrollments_total", outcome="created") == 1
    assert house.counted("iot_bridge_enrollments_total", outcome="stored") == 1


async def test_without_a_wireguard_key_there_is_no_tunnel(house: Any, new_csr: Callable[..., str]) -> None:
    await house.register("pump-7")
    async with house.client() as client:
        answer = await client.post("/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7")})

    assert answer.status_code == 201
    assert answer.json()["wg"] is None


async def test_systems_that_are_off_are_null(
    house: Any, new_csr: Callable[..., str], new_wg_key: Callable[[], str]
) -> None:
    await house.register("pump-7")
    terms = type(house.parts.terms)()
    async with house.client(terms=terms) as client:
        answer = await client.post(
            "/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7"), "wg_public_key": new_wg_key()}
        )

    assert answer.status_code == 201
    assert (answer.json()["wg"], answer.json()["mqtt"], answer.json()["hawkbit"]) == (None, None, None)


async def test_a_second_key_for_an_active_id_is_409(house: Any, new_csr: Callable[..., str]) -> None:
    await house.register("pump-7")
    async with house.client() as client:
        await client.post("/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7")})
        other = await client.post("/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7")})

    problem = Problem.from_json(other.status_code, other.json())
    assert (problem.status, problem.code) == (409, "identity_exists")
    assert "iot-bridge re-enroll" in problem.detail
    assert house.ca.signed == 1


async def test_another_spelling_is_409(house: Any, new_csr: Callable[..., str]) -> None:
    await house.register("pump-7")
    async with house.client() as client:
        answer = await client.post("/devices/PUMP-7/enroll", json={"csr_pem": new_csr("PUMP-7")})

    assert (answer.status_code, answer.json()["code"]) == (409, "id_spelling")


async def test_an_unregistered_id_is_403(house: Any, new_csr: Callable[..., str]) -> None:
    async with house.client() as client:
        answer = await client.post("/devices/stranger/enroll", json={"csr_pem": new_csr("stranger")})

    assert (answer.status_code, answer.json()["code"]) == (403, "not_admitted")
    assert "iot-bridge device register" in answer.json()["detail"]
    assert house.ca.signed == 0


async def test_one_device_key_under_two_ids_is_409_and_names_no_other_device(
    house: Any, new_csr: Callable[..., str]
) -> None:
    await house.register("pump-7")
    await house.register("pump-8")
    key = ec.generate_private_key(ec.SECP256R1())
    async with house.client() as client:
        await client.post("/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7", key=key)})
        answer = await client.post("/devices/pump-8/enroll", json={"csr_pem": new_csr("pump-8", key=key)})

    assert (answer.status_code, answer.json()["code"]) == (409, "key_in_use")
    assert "pump-7" not in answer.text


async def test_a_wireguard_key_held_by_another_device_is_409(
    house: Any, new_csr: Callable[..., str], new_wg_key: Callable[[], str]
) -> None:
    await house.register("pump-7")
    await house.register("pump-8")
    tunnel = new_wg_key()
    async with house.client() as client:
        await client.post("/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7"), "wg_public_key": tunnel})
        answer = await client.post(
            "/devices/pump-8/enroll", json={"csr_pem": new_csr("pump-8"), "wg_public_key": tunnel}
        )

    assert (answer.status_code, answer.json()["code"]) == (409, "wg_key_in_use")


@pytest.mark.parametrize(
    ("body", "header", "status"),
    [
        ({}, None, 401),
        ({"voucher": "PROV-0000-0000"}, None, 401),
        ({"voucher": "PROV-4711-0815"}, None, 201),
        ({"voucher": " PROV-4711-0815\n"}, None, 201),
        ({}, "PROV-4711-0815", 201),
        ({"voucher": None}, "PROV-4711-0815", 201),
        ({"voucher": "PROV-0000-0000"}, "PROV-4711-0815", 401),
        ({}, "PROV-0000-0000", 401),
    ],
)
async def test_the_voucher_comes_in_the_body_or_in_the_header(
    house: Any, new_csr: Callable[..., str], body: Any, header: Any, status: int
) -> None:
    await house.register("pump-7", voucher_hash=Fingerprint.of(b"PROV-4711-0815"))
    headers = {"X-Provisioning-Key": header} if header else {}
    async with house.client() as client:
        answer = await client.post(
            "/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7")} | body, headers=headers
        )

    assert answer.status_code == status
    if status == 401:
        assert answer.json()["code"] == "voucher_required"
        assert "X-Provisioning-Key" in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("failure", "code", "wait"),
    [
        (CaUnreachable("the CA does not answer", surely_not_sent=True), "ca_unreachable", "5"),
        (CaRefused("the CA said no"), "ca_refused", "30"),
        (CaBadAnswer("the CA answered with another key"), "ca_bad_answer", "30"),
    ],
)
async def test_a_ca_that_fails_is_503_and_says_when_to_come_back(
    house: Any, new_csr: Callable[..., str], failure: Any, code: str, wait: str
) -> None:
    await house.register("pump-7")
    house.ca.failure = failure
    async with house.client() as client:
        answer = await client.post("/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7")})

    assert (answer.status_code, answer.json()["code"]) == (503, code)
    assert answer.headers["retry-after"] == wait


async def test_an_attempt_of_another_key_is_409_with_what_is_left_of_its_deadline(
    house: Any, new_csr: Callable[..., str]
) -> None:
    await house.register("pump-7")
    house.ca.failure = CaUnreachable("no answer, and nobody knows what became of it")
    async with house.client() as client:
        await client.post("/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7")})
        house.clock.moment += timedelta(seconds=4.5)
        answer = await client.post("/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7")})

    assert (answer.status_code, answer.json()["code"]) == (409, "in_progress")
    assert answer.headers["retry-after"] == "11"


async def test_above_the_limit_of_open_enrollments_the_rest_is_429(
    open_house: Any, new_csr: Callable[..., str]
) -> None:
    gate, asked = asyncio.Event(), asyncio.Event()
    sign = open_house.ca.sign

    async def slowly(order: Any) -> Any:
        asked.set()
        await gate.wait()
        return await sign(order)

    open_house.ca.sign = slowly
    async with open_house.client(max_open_enrollments=1) as client:
        first = asyncio.create_task(client.post("/devices/a/enroll", json={"csr_pem": new_csr("a")}))
        await asked.wait()
        second = await client.post("/devices/b/enroll", json={"csr_pem": new_csr("b")})
        gate.set()
        assert (await first).status_code == 201
        third = await client.post("/devices/b/enroll", json={"csr_pem": new_csr("b")})

    assert (second.status_code, second.json()["code"]) == (429, "too_many")
    assert second.headers["retry-after"] == "5"
    assert third.status_code == 201


async def test_an_exception_that_is_not_ours_is_a_bare_500_with_the_request_id(
    house: Any, new_csr: Callable[..., str]
) -> None:
    await house.register("pump-7")
    house.ca.failure = RuntimeError("postgresql://bridge:hunter2@db/bridge")
    with capture_logs() as logs:
        async with house.client() as client:
            answer = await client.post(
                "/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7")}, headers={"X-Request-Id": "r-1"}
            )

    assert answer.status_code == 500
    assert answer.json() == {
        "type": "urn:iot-bridge:problem:internal",
        "title": "Something went wrong inside the bridge",
        "status": 500,
        "detail": "The operator finds the reason in the bridge's log under the request id r-1.",
        "code": "internal",
        "request_id": "r-1",
    }
    assert [line["event"] for line in logs] == ["request failed", "request"]


async def test_labels_inventory_and_request_id_reach_the_use_case(house: Any, new_csr: Callable[..., str]) -> None:
    seen = []

    class Recorder:
        async def enroll(self, request: Any, request_id: Any = None) -> None:
            seen.append((request, request_id))
            raise CaRefused("enough seen")

    async with house.client(enrollment=Recorder()) as client:
        await client.post(
            "/devices/pump-7/enroll",
            json={
                "csr_pem": new_csr("pump-7"),
                "device_name": "  Pumpe 7, Halle 2, Süd ",
                "device_type": "",
                "hardware": {"cpu_cores": 4, "ram": {"total_mb": 4096.5}, "tpm": True, "gps": None},
                "network": {"mac": ["dc:a6:32:00:00:01"]},
                "proof": "eyJ.not.looked-at",
                "some_field_of_tomorrow": {"deep": [1, 2, 3]},
            },
            headers={"X-Request-Id": "boot_2026.04-11"},
        )

    request, request_id = seen[0]
    assert request.name == "Pumpe 7, Halle 2, Süd"
    assert request.type is None
    assert request.inventory == {
        "hardware": {"cpu_cores": 4, "ram": {"total_mb": 4096.5}, "tpm": True, "gps": None},
        "network": {"mac": ["dc:a6:32:00:00:01"]},
    }
    assert request.proven_leaf is None
    assert request_id == "boot_2026.04-11"


@pytest.mark.parametrize("sent", [None, "", "a" * 65, "two words", "<script>", "x\ty", "../../etc", "é"])
async def test_a_request_id_that_is_not_sane_is_replaced(house: Any, sent: Any) -> None:
    headers = [(b"X-Request-Id", sent.encode())] if sent is not None else []
    async with house.client(new_request_id=lambda: "fresh-one") as client:
        answer = await client.get("/healthz", headers=headers)

    assert answer.headers.get_list("x-request-id") == ["fresh-one"]


async def test_one_log_line_a_request_and_no_secret_in_it(house: Any, new_csr: Callable[..., str]) -> None:
    await house.register("pump-7", voucher_hash=Fingerprint.of(b"PROV-4711-0815"))
    csr = new_csr("pump-7")
    with capture_logs() as logs:
        async with house.client() as client:
            await client.post(
                "/devices/pump-7/enroll",
                json={"csr_pem": csr, "voucher": "PROV-4711-0815"},
                headers={"X-Provisioning-Key": "PROV-9999-9999"},
            )

    (line,) = logs
    assert line.pop("ms") >= 0
    assert line == {
        "event": "request",
        "log_level": "info",
        "door": "enroll",
        "method": "POST",
        "status": 201,
        "outcome": "created",
        "device": "pump-7",
    }
    assert "PROV" not in str(logs)


async def test_times_are_rfc_3339_in_utc(house: Any, new_csr: Callable[..., str]) -> None:
    await house.register("pump-7")
    async with house.client() as client:
        answer = await client.post("/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7")})

    assert answer.json()["server_time"] == "2026-04-11T10:00:00Z"
    assert datetime.fromisoformat(answer.json()["renew_after"]).tzinfo is not None
