"""A certificate is renewed and put into use by hand: on the embedded stack, and at a step-ca that others made."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.e2e.processes import wait_for
from tests.e2e.renewing import HandMade
from tests.e2e.tenants import Tenant
from wireguard.keys import PrivateKey


@pytest.fixture
def device(tenant: Tenant, tmp_path: Path) -> HandMade:
    name = f"ren-{secrets.token_hex(4)}"
    tenant.bridge.order("device", "register", name)
    return HandMade(tenant, name, tmp_path)


def states(device: HandMade) -> list[str]:
    return [one["state"] for one in device.tenant.bridge.show(device.name)["issuances"]]


def test_the_old_leaf_opens_until_the_activation_and_the_new_one_from_then_on(device: HandMade) -> None:
    tenant = device.tenant
    old = device.enroll(str(PrivateKey.generate().public_key))
    platform = tenant.eyes.thingsboard
    wait_for(lambda: platform.credential(device.name) == old.credential)
    assert device.admitted(old)
    wait_for(lambda: tenant.eyes.hawkbit.target(device.name))
    address = old.answer["wg"]["address"]
    wait_for(lambda: address in tenant.applied())
    peers = tenant.applied()

    new = device.renew(old)
    assert (new.answer["state"], new.answer["generation"]) == ("pending", 1)
    assert new.answer["wg"] == old.answer["wg"]
    assert states(device) == ["current", "pending"]
    assert platform.credential(device.name) == old.credential
    assert device.admitted(old)
    assert not device.admitted(new)
    assert old.serial not in tenant.revoked()

    activated = device.activate(new)
    assert activated.status_code == 200
    assert activated.json() == new.answer | {"state": "current", "server_time": activated.json()["server_time"]}
    wait_for(lambda: old.serial in tenant.revoked())
    # Revoked last: whoever saw the list with it finds the new leaf at the platform.
    assert platform.credential(device.name) == new.credential
    assert device.admitted(new)
    assert not device.admitted(old)
    wait_for(lambda: states(device) == ["revoked", "current"])
    assert new.serial not in tenant.revoked()
    # hawkBit and the VPN know no leaf, and saw nothing of it.
    assert tenant.applied() == peers
    assert tenant.eyes.hawkbit.target(device.name) is not None


def test_a_lost_answer_costs_nothing_and_the_next_renewal_is_by_the_new_key(device: HandMade) -> None:
    first = device.enroll()
    second = device.renew(first)
    answers = [device.activate(second) for _ in range(3)]
    assert [one.status_code for one in answers] == [200] * 3
    wait_for(lambda: first.serial in device.tenant.revoked())
    assert device.post("enroll", {"csr_pem": "x"}).json()["code"] == "bad_csr"
    third = device.renew(second)
    assert device.activate(second).status_code == 200
    assert device.activate(third).status_code == 200
    assert device.activate(second).json()["code"] == "superseded"
    wait_for(lambda: states(device) == ["revoked", "revoked", "current"])
    assert {first.serial, second.serial} <= device.tenant.revoked()


def test_a_retired_device_is_told_so_and_everything_it_had_is_revoked(device: HandMade) -> None:
    old = device.enroll()
    new = device.renew(old)
    device.tenant.bridge.order("decommission", device.name)
    assert (device.activate(new).status_code, device.activate(new).json()["code"]) == (403, "retired")
    wait_for(lambda: {old.serial, new.serial} <= device.tenant.revoked())
    wait_for(lambda: states(device) == ["revoked", "revoked"])
