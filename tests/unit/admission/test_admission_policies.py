"""Who may come in: deny by default, everything that was asked for is wanted in full, a bare id is marked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bridge.admission import OpenDoor, RegisteredOnly, policy_named
from bridge.errors import Misconfigured, NotAdmitted, VoucherRequired
from bridge.model.facts import Csr, EnrollmentRequest
from bridge.model.identity import DeviceId, Fingerprint, Pem
from bridge.model.records import Device, DeviceState, Window
from bridge.ports.admission import Admitted, Candidate

NOW = datetime(2026, 5, 1, tzinfo=UTC)
ID = DeviceId("dev-1")
KEY, OTHER_KEY = Fingerprint.of(b"key"), Fingerprint.of(b"other key")
VOUCHER, WRONG = Fingerprint.of(b"PROV-AAAA-BBBB"), Fingerprint.of(b"PROV-AAAA-BBBC")
DEVICE = Device(ID, DeviceState.REGISTERED, 1, 0, False, None, None, None, None, None, True, NOW, None)
WINDOW = Window(ID, 1, "operator:x", NOW, NOW + timedelta(hours=1), None, None, False)


def candidate(
    device: Device | None = DEVICE, window: Window | None = None, voucher: Fingerprint | None = None
) -> Candidate:
    csr = Csr(Pem("csr"), Fingerprint.of(b"csr"), KEY, b"", b"")
    return Candidate(EnrollmentRequest(ID, csr, voucher_hash=voucher), device, window, NOW)


def registered(**changes: Any) -> Device:
    return replace(DEVICE, **changes)


@pytest.mark.parametrize("device", [None, registered(registered=False)], ids=["unknown", "let in by an open door"])
def test_only_registered_ids_come_in(device: Device | None) -> None:
    with pytest.raises(NotAdmitted):
        RegisteredOnly().admit(candidate(device))


def test_bare_id_is_unproven() -> None:
    assert RegisteredOnly().admit(candidate()) == Admitted(proven=False)


@pytest.mark.parametrize("policy", [RegisteredOnly(), OpenDoor()])
@pytest.mark.parametrize("shown", [None, WRONG])
def test_voucher_is_wanted_where_one_was_given_out(policy: Any, shown: Fingerprint | None) -> None:
    with pytest.raises(VoucherRequired):
        policy.admit(candidate(registered(voucher_hash=VOUCHER), voucher=shown))
    with pytest.raises(VoucherRequired):
        policy.admit(candidate(None, replace(WINDOW, voucher_hash=VOUCHER), voucher=shown))


@pytest.mark.parametrize("policy", [RegisteredOnly(), OpenDoor()])
def test_voucher_and_key_prove_a_device(policy: Any) -> None:
    for asked in ({"voucher_hash": VOUCHER}, {"key_digest": KEY}, {"voucher_hash": VOUCHER, "key_digest": KEY}):
        assert policy.admit(candidate(registered(**asked), voucher=VOUCHER)) == Admitted(proven=True)
        assert policy.admit(candidate(DEVICE, replace(WINDOW, **asked), voucher=VOUCHER)) == Admitted(proven=True)


@pytest.mark.parametrize("policy", [RegisteredOnly(), OpenDoor()])
def test_both_are_wanted_where_both_were_asked_for(policy: Any) -> None:
    both = {"voucher_hash": VOUCHER, "key_digest": OTHER_KEY}
    with pytest.raises(NotAdmitted, match="another key"):
        policy.admit(candidate(registered(**both), voucher=VOUCHER))
    with pytest.raises(VoucherRequired):
        policy.admit(candidate(registered(**both), voucher=WRONG))


def test_voucher_that_nobody_asked_for_proves_nothing() -> None:
    assert RegisteredOnly().admit(candidate(voucher=VOUCHER)) == Admitted(proven=False)


@pytest.mark.parametrize("policy", [RegisteredOnly(), OpenDoor()])
def test_expired_registration_shuts_the_door_at_the_very_moment(policy: Any) -> None:
    assert policy.admit(candidate(registered(admission_expires_at=NOW + timedelta(microseconds=1))))
    with pytest.raises(NotAdmitted, match="expired"):
        policy.admit(candidate(registered(admission_expires_at=NOW)))


def test_expired_registration_says_nothing_of_the_voucher() -> None:
    over = registered(admission_expires_at=NOW, voucher_hash=VOUCHER)
    with pytest.raises(NotAdmitted):
        RegisteredOnly().admit(candidate(over, voucher=VOUCHER))


@pytest.mark.parametrize("policy", [RegisteredOnly(), OpenDoor()])
def test_expired_window_shuts_the_door(policy: Any) -> None:
    with pytest.raises(NotAdmitted, match="expired"):
        policy.admit(candidate(registered(state=DeviceState.ACTIVE), replace(WINDOW, expires_at=NOW)))


def test_window_stands_for_the_registration() -> None:
    device = registered(
        state=DeviceState.ACTIVE, registered=False, voucher_hash=WRONG, key_digest=OTHER_KEY, admission_expires_at=NOW
    )
    assert RegisteredOnly().admit(candidate(device, WINDOW)) == Admitted(proven=False)


def test_active_device_is_not_bound_by_the_end_of_its_registration() -> None:
    device = registered(state=DeviceState.ACTIVE, admission_expires_at=NOW - timedelta(days=1))
    assert RegisteredOnly().admit(candidate(device)) == Admitted(proven=False)


@pytest.mark.parametrize("policy", [RegisteredOnly(), OpenDoor()])
def test_voucher_opens_once_only(policy: Any) -> None:
    device = registered(state=DeviceState.ACTIVE, voucher_hash=VOUCHER)
    with pytest.raises(VoucherRequired, match="used up"):
        policy.admit(candidate(device, voucher=VOUCHER))


@pytest.mark.parametrize("device", [None, registered(registered=False), registered(state=DeviceState.ACTIVE)])
def test_open_door_lets_in_every_id_unproven(device: Device | None) -> None:
    assert OpenDoor().admit(candidate(device, voucher=VOUCHER)) == Admitted(proven=False)


def test_policies_are_named_by_the_operator() -> None:
    assert isinstance(policy_named("registered"), RegisteredOnly)
    assert isinstance(policy_named("open"), OpenDoor)
    for name in ("", "OPEN", "anything"):
        with pytest.raises(Misconfigured, match="BRIDGE_ADMISSION"):
            policy_named(name)
