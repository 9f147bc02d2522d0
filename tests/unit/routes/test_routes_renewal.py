"""Renewal and activation at the door: what comes back, in which order, and what is never changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from bridge.model.identity import DeviceId
from bridge.model.records import Window
from enroll.wire import PROBLEM_JSON, Act, Code, EnrollAnswer, ProofClaims

KEYS = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
}


def problem(answer: Any) -> tuple[int, str]:
    assert answer.headers["content-type"] == PROBLEM_JSON
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize("old", KEYS)
@pytest.mark.parametrize("new", KEYS)
async def test_a_whole_renewal_with_every_kind_of_key(pump: Any, old: str, new: str) -> None:
    await pump.enroll(KEYS[old]())
    pump.next_key = KEYS[new]()
    assert (await pump.renew()).status_code == 201
    assert (await pump.activate()).status_code == 200
    assert await pump.states() == ["superseded", "current"]


async def test_a_renewal_is_pending_and_activation_answers_as_enrollment_does(
    pump: Any, new_wg_key: Callable[[], str]
) -> None:
    first = (await pump.enroll(wg_key=new_wg_key())).json()
    renewed = await pump.renew()
    assert renewed.status_code == 201
    pending = EnrollAnswer.from_json(renewed.json())
    assert (pending.state, pending.generation) == ("pending", 1)
    assert renewed.json()["wg"] == first["wg"]
    assert pending.renew_after - pump.house.clock.now() == timedelta(days=60)

    activated = await pump.activate()
    assert activated.status_code == 200
    assert activated.headers["content-type"] == "application/json"
    assert activated.headers["cache-control"] == "no-store"
    assert activated.json() == renewed.json() | {"state": "current"}
    assert not {"certificate", "wireguard_ip", "wireguard_config"} & set(activated.json())


async def test_the_pending_certificate_is_answered_again_to_the_same_key_and_changes_nothing(pump: Any) -> None:
    await pump.enroll()
    first = await pump.renew()
    again = await pump.renew()
    without_proof = await pump.renew(proof="of nothing")
    assert [one.status_code for one in (first, again, without_proof)] == [201, 200, 200]
    assert again.json() == without_proof.json() == first.json()
    assert await pump.states() == ["current", "pending"]


async def test_activation_is_repeated_after_a_lost_answer(pump: Any) -> None:
    await pump.enroll()
    await pump.renew()
    first, again = await pump.activate(), await pump.activate()
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    device = await pump.house.registry.read(lambda tx: tx.device(DeviceId(pump.name)))
    # First enrollment, renewal, activation: two epochs for the first, one each for the others; none for the repetition.
    assert device.epoch == 4
    assert pump.house.counted("iot_bridge_activations_total", outcome="activated") == 1
    assert pump.house.counted("iot_bridge_activations_total", outcome="current") == 1


async def test_activation_is_found_under_the_prefix_and_not_in_the_old_dialect(pump: Any) -> None:
    await pump.enroll()
    await pump.renew()
    assert (await pump.activate(prefix="/api")).status_code == 200
    assert problem(await pump.post("/v1/activate", {"proof": "x"})) == (404, "not_found")


async def test_an_earlier_pending_certificate_gives_way_and_cannot_be_activated(pump: Any) -> None:
    await pump.enroll()
    await pump.renew()
    earlier = pump.sign(pump.claims(Act.ACTIVATE), pump.next_key)
    pump.next_key = None
    await pump.renew()
    assert await pump.states() == ["current", "revoking", "pending"]
    assert problem(await pump.activate(earlier)) == (409, "superseded")
    assert (await pump.activate()).status_code == 200


async def test_renewal_after_renewal(pump: Any) -> None:
    await pump.enroll()
    for _ in range(3):
        assert (await pump.renew()).status_code == 201
        assert (await pump.activate()).status_code == 200
        pump.promote()
    assert await pump.states() == ["superseded", "superseded", "superseded", "current"]


async def test_a_renewal_keeps_the_wireguard_key_or_leaves_it_out(pump: Any, new_wg_key: Callable[[], str]) -> None:
    first = (await pump.enroll(wg_key=new_wg_key())).json()
    kept, pump.wg_key = pump.wg_key, new_wg_key()
    assert problem(await pump.renew()) == (409, "wg_key_differs")
    pump.wg_key = None
    assert (await pump.renew()).json()["wg"] == first["wg"]
    pump.wg_key = kept
    assert (await pump.renew()).status_code == 200
    assert (await pump.activate()).json()["wg"] == first["wg"]
    pump.promote()
    assert (await pump.renew()).status_code == 201


async def test_an_expired_current_leaf_still_proves_for_the_grace_and_no_longer(pump: Any) -> None:
    await pump.enroll()
    pump.house.clock.moment += timedelta(days=119, hours=23)
    again = await pump.post("/devices/pump-7/enroll", {"csr_pem": pump.make_csr("pump-7", key=pump.key)})
    assert problem(again) == (409, "expired")
    pump.house.clock.moment += timedelta(hours=1)
    assert problem(await pump.renew()) == (409, "identity_exists")
    pump.house.clock.moment -= timedelta(seconds=1)
    assert (await pump.renew()).status_code == 201


async def test_a_pending_certificate_that_ended_cannot_be_activated_and_is_swept(pump: Any) -> None:
    await pump.enroll()
    await pump.renew()
    pump.house.clock.moment += timedelta(days=91)
    assert problem(await pump.renew()) == (409, "expired")
    assert problem(await pump.activate()) == (409, "superseded")
    assert await pump.states() == ["current", "pending"]
    await pump.house.registry.write(lambda tx: tx.sweep_attempts(pump.house.clock.now(), 10))
    assert await pump.states() == ["current", "revoking"]
    assert problem(await pump.activate()) == (409, "superseded")


async def test_a_retired_device_is_told_so_at_both_doors(pump: Any) -> None:
    await pump.enroll()
    await pump.renew()
    proof = pump.sign(pump.claims(Act.ACTIVATE), pump.next_key)
    pump.next_key = None
    await pump.house.registry.write(lambda tx: tx.tombstone(DeviceId(pump.name), pump.house.clock.now()))
    assert problem(await pump.activate(proof)) == (403, "retired")
    assert problem(await pump.renew()) == (403, "retired")
    assert await pump.states() == ["revoking", "revoking"]


async def test_activation_waits_for_an_open_reenrollment_and_loses_to_a_finished_one(pump: Any) -> None:
    await pump.enroll()
    await pump.renew()
    now, ca = pump.house.clock.now(), pump.house.ca
    window = Window(DeviceId(pump.name), 1, "o", now, now + timedelta(hours=1), None, None, compromised=False)
    await pump.house.registry.write(lambda tx: tx.open_window(window))
    gate, asked, sign = asyncio.Event(), asyncio.Event(), ca.sign

    async def gated(order: Any) -> Any:
        asked.set()
        await gate.wait()
        return await sign(order)

    ca.sign = gated
    other = pump.make_csr(pump.name)
    reenrollment = asyncio.create_task(pump.post("/devices/pump-7/enroll", {"csr_pem": other}))
    await asked.wait()
    waiting = await pump.activate()
    assert problem(waiting) == (409, "in_progress")
    assert 1 <= int(waiting.headers["retry-after"]) <= 15
    gate.set()
    assert (await reenrollment).status_code == 201
    assert problem(await pump.activate()) == (409, "superseded")
    assert await pump.states() == ["revoking", "revoking", "current"]


async def test_a_window_does_not_hold_up_renewal_and_is_not_used_up_by_it(pump: Any) -> None:
    await pump.enroll()
    now = pump.house.clock.now()
    window = Window(DeviceId(pump.name), 1, "o", now, now + timedelta(hours=1), None, None, compromised=False)
    await pump.house.registry.write(lambda tx: tx.open_window(window))
    await pump.renew()
    assert (await pump.activate()).status_code == 200
    assert await pump.house.registry.read(lambda tx: tx.window(DeviceId(pump.name), now)) == window


async def test_no_read_of_the_registry_for_a_proof_of_something_else_and_one_for_a_strangers(pump: Any) -> None:
    await pump.enroll()
    await pump.renew()
    forged = pump.sign(pump.claims(Act.ACTIVATE), ec.generate_private_key(ec.SECP256R1()))
    stranger = pump.sign(pump.claims(Act.ACTIVATE, device_id="stranger"), pump.next_key)
    reads, writes, registry = [], [], pump.house.registry

    class Counting:
        async def read(self, unit: Any) -> Any:
            reads.append(unit)
            return await registry.read(unit)

        async def write(self, unit: Any) -> Any:
            writes.append(unit)
            return await registry.write(unit)

    pump.house.parts.renewal._registry = Counting()
    assert problem(await pump.activate(stranger)) == (422, "bad_request")
    assert (len(reads), len(writes)) == (0, 0)
    assert problem(await pump.activate(forged)) == (422, "bad_request")
    assert (len(reads), len(writes)) == (1, 0)
    assert problem(await pump.post("/devices/stranger/activate", {"proof": stranger})) == (422, "bad_request")
    assert (len(reads), len(writes)) == (2, 0)


@pytest.mark.parametrize(
    "body", [{}, {"proof": None}, {"proof": ""}, {"proof": 7}, {"proof": ["x"]}, {"proof": {"a": 1}}, {"Proof": "x"}]
)
async def test_a_body_of_another_shape_is_a_bad_request_at_activation(pump: Any, body: Any) -> None:
    assert problem(await pump.post("/devices/pump-7/activate", body)) == (422, "bad_request")


@pytest.mark.parametrize("proof", ["", 7, ["x"], {"a": 1}, True])
async def test_a_proof_that_is_no_text_is_a_bad_request_at_enrollment(pump: Any, proof: Any) -> None:
    await pump.enroll()
    answer = await pump.post("/devices/pump-7/enroll", {"csr_pem": pump.make_csr("pump-7"), "proof": proof})
    assert problem(answer)[0] == (409 if proof == "" else 422)


async def test_activation_has_the_doors_limits(pump: Any) -> None:
    for content, expected in ((b"x" * 40_000, (413, "too_large")), (b"[]", (422, "bad_request"))):
        async with pump.house.client() as client:
            assert problem(await client.post("/devices/pump-7/activate", content=content)) == expected
    async with pump.house.client(max_open_enrollments=0) as client:
        full = await client.post("/devices/pump-7/activate", json={"proof": "x"})
    assert problem(full) == (429, "too_many")
    assert problem(await pump.post("/devices/10.0.0.1/activate", {"proof": "x"})) == (422, "bad_device_id")
    assert (await pump.post("/devices/pump-7/activate", {"proof": "x"})).json()["detail"].startswith("The proof")


async def test_both_acts_are_in_the_audit_trail_once(pump: Any) -> None:
    await pump.enroll()
    await pump.renew()
    await pump.renew()
    await pump.activate()
    await pump.activate()
    with pump.house.registry.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT action, request_id FROM audit ORDER BY id").all()
    assert [action for action, _ in rows] == ["certificate.first", "certificate.renew", "certificate.activated"]
    assert all(request for _, request in rows)


def test_claims_come_back_as_they_were_sent() -> None:
    claims = ProofClaims("a" * 64, Act.ACTIVATE, "pump-7", None, None, "b" * 64)
    assert ProofClaims.from_json(claims.to_json()) == claims
    assert Code.SUPERSEDED == "superseded"
