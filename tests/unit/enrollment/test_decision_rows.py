"""The decision table of the wire protocol, section 2: each row by name, and the order in which rows are tried."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bridge.admission.policies import OpenDoor, RegisteredOnly
from bridge.enrollment.decision import Rules, decide, decide_activation
from bridge.errors import (
    AttemptOpen,
    Expired,
    IdentityExists,
    IdSpelling,
    KeyInUse,
    NotAdmitted,
    Retired,
    Superseded,
    VoucherRequired,
    WireGuardKeyDiffers,
    WireGuardKeyInUse,
)
from bridge.model.facts import Activate, AnswerStored, AwaitAttempt, Begin, LeafFacts
from bridge.model.identity import DeviceId
from bridge.model.records import DeviceState, IssuanceState, Kind
from bridge.ports.admission import Admitted, Candidate

RULES = Rules(RegisteredOnly())
OPEN = Rules(OpenDoor())
ALLOW = Rules(RegisteredOnly(), reenrollment_allowed=True)
ENDED = [IssuanceState.SUPERSEDED, IssuanceState.REVOKING, IssuanceState.REVOKED]


class Unasked:
    """A policy that must not be asked: an earlier row decides."""

    name = "unasked"

    def admit(self, candidate: Candidate) -> Admitted:
        raise AssertionError("an earlier row decides")


UNASKED = Rules(Unasked(), reenrollment_allowed=True)


# -- tombstone ---------------------------------------------------------------------------------------------------
def test_tombstone_refuses_whatever_comes(world: Any) -> None:
    grave = world.device(DeviceState.TOMBSTONE)
    with pytest.raises(Retired, match="dev-1 was decommissioned"):
        decide(world.request(), world.facts(device=grave), UNASKED)


def test_tombstone_refuses_in_any_spelling_and_before_every_other_row(world: Any) -> None:
    facts = world.returning(
        world.issuance("new", IssuanceState.REVOKED),
        device=world.device(DeviceState.TOMBSTONE, id=DeviceId("DEV-1")),
        key_owner=world.owner("other"),
        window=world.window(),
        attempt=world.issuance("new", IssuanceState.INTENT),
    )
    with pytest.raises(Retired):
        decide(world.request(), facts, UNASKED)


# -- another spelling --------------------------------------------------------------------------------------------
def test_another_spelling_is_refused_before_the_key_is_looked_at(world: Any) -> None:
    facts = world.active(device=world.device(id=DeviceId("Dev-1")), key_owner=world.owner("other"))
    with pytest.raises(IdSpelling) as refused:
        decide(world.request(), facts, UNASKED)
    assert "Dev-1" not in str(refused.value)


def test_another_spelling_of_a_registration_is_refused_too(world: Any) -> None:
    registered = world.device(DeviceState.REGISTERED, id=DeviceId("Dev-1"))
    with pytest.raises(IdSpelling):
        decide(world.request(), world.facts(device=registered), UNASKED)


# -- the key is taken --------------------------------------------------------------------------------------------
def test_key_of_another_id_is_refused_naming_nobody(world: Any) -> None:
    with pytest.raises(KeyInUse) as refused:
        decide(world.request(), world.facts(key_owner=world.owner("secret-neighbour")), UNASKED)
    assert "secret-neighbour" not in str(refused.value)


def test_key_of_another_id_is_refused_also_before_it_has_a_certificate(world: Any) -> None:
    with pytest.raises(KeyInUse):
        decide(world.request(), world.facts(key_owner=world.owner("other", None)), UNASKED)


def test_key_of_an_earlier_generation_is_refused_also_in_a_window(world: Any) -> None:
    facts = world.active(device=world.device(generation=3), key_owner=world.owner(generation=2), window=world.window())
    with pytest.raises(KeyInUse):
        decide(world.request(), facts, UNASKED)


@pytest.mark.parametrize("state", ENDED)
def test_key_whose_certificate_is_neither_current_nor_pending_is_refused(world: Any, state: IssuanceState) -> None:
    facts = world.returning(world.issuance("new", state), window=world.window())
    with pytest.raises(KeyInUse):
        decide(world.request(), facts, UNASKED)


def test_key_of_a_retired_and_reinstated_identity_is_refused(world: Any) -> None:
    back = world.device(DeviceState.REGISTERED, generation=1)
    facts = world.returning(world.issuance("new", IssuanceState.REVOKED), device=back)
    with pytest.raises(KeyInUse):
        decide(world.request(), facts, UNASKED)


# -- the stored answer -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("state", [IssuanceState.CURRENT, IssuanceState.PENDING])
def test_stored_certificate_is_answered_again(world: Any, state: IssuanceState) -> None:
    stored, lease = world.issuance("new", state), world.lease(world.wg("a"))
    assert decide(world.request(), world.returning(stored, lease=lease), UNASKED) == AnswerStored(stored, lease)


def test_stored_certificate_is_answered_whatever_else_the_request_brings(world: Any) -> None:
    stored = world.issuance("new")
    request = world.request(
        name="other label", type="t", voucher_hash=world.digest("wrong"), inventory={}, proven_leaf=world.digest("x")
    )
    assert decide(request, world.returning(stored), UNASKED) == AnswerStored(stored, None)


def test_stored_certificate_is_answered_beside_an_open_attempt_of_another_key(world: Any) -> None:
    stored = world.issuance("new")
    facts = world.returning(stored, attempt=world.issuance("third", IssuanceState.INTENT))
    assert decide(world.request(), facts, UNASKED) == AnswerStored(stored, None)


def test_stored_certificate_with_its_own_wireguard_key_is_answered(world: Any) -> None:
    stored = world.issuance("new", wg_key=world.wg("a"))
    assert decide(world.request(wg_key=world.wg("a")), world.returning(stored), UNASKED) == AnswerStored(stored, None)


@pytest.mark.parametrize("kept", ["b", None])
def test_another_wireguard_key_than_the_stored_or_one_where_none_is_stored_is_refused(
    world: Any, kept: str | None
) -> None:
    stored = world.issuance("new", wg_key=world.wg(kept) if kept else None)
    with pytest.raises(WireGuardKeyDiffers):
        decide(world.request(wg_key=world.wg("a")), world.returning(stored), UNASKED)


@pytest.mark.parametrize("state", [IssuanceState.CURRENT, IssuanceState.PENDING])
def test_renewal_that_left_the_wireguard_key_out_is_answered_to_the_devices_own_key(
    world: Any, state: IssuanceState
) -> None:
    stored = world.issuance("new", state, kind=Kind.RENEW, wg_key=None)
    lease = world.lease(world.wg("a"))
    facts = world.returning(stored, lease=lease)
    assert decide(world.request(wg_key=world.wg("a")), facts, UNASKED) == AnswerStored(stored, lease)
    with pytest.raises(WireGuardKeyDiffers):
        decide(world.request(wg_key=world.wg("b")), facts, UNASKED)


@pytest.mark.parametrize("late", [timedelta(0), timedelta(days=1)])
def test_expired_stored_certificate_is_refused_with_what_to_do(world: Any, late: timedelta) -> None:
    stored = world.issuance("new", not_after=world.now - late)
    with pytest.raises(Expired) as refused:
        decide(world.request(), world.returning(stored), UNASKED)
    assert "renewal" in refused.value.advice
    assert "re-enroll" in refused.value.advice


def test_expired_beats_a_window_but_a_differing_wireguard_key_beats_expired(world: Any) -> None:
    stored = world.issuance("new", not_after=world.now)
    with pytest.raises(WireGuardKeyDiffers):
        decide(world.request(wg_key=world.wg("a")), world.returning(stored, window=world.window()), UNASKED)


# -- an open attempt ---------------------------------------------------------------------------------------------
def test_open_attempt_of_the_same_key_is_waited_for(world: Any) -> None:
    attempt = world.issuance("new", IssuanceState.INTENT)
    facts = world.facts(
        device=world.device(DeviceState.REGISTERED), key_owner=world.owner(generation=None), attempt=attempt
    )
    assert decide(world.request(), facts, UNASKED) == AwaitAttempt(attempt.deadline)


def test_another_key_that_would_get_an_attempt_is_told_how_long_this_one_takes(world: Any) -> None:
    attempt = world.issuance("other", IssuanceState.INTENT)
    facts = world.facts(device=world.device(DeviceState.REGISTERED), attempt=attempt)
    with pytest.raises(AttemptOpen) as refused:
        decide(world.request(), facts, RULES)
    assert refused.value.retry_after == 15


def test_another_key_that_would_get_none_learns_nothing_of_the_attempt(world: Any) -> None:
    attempt = world.issuance("other", IssuanceState.INTENT)
    wanted = world.device(DeviceState.REGISTERED, voucher_hash=world.digest("v"))
    with pytest.raises(VoucherRequired):
        decide(world.request(), world.facts(device=wanted, attempt=attempt), RULES)
    with pytest.raises(IdentityExists):
        decide(world.request(), world.active(attempt=attempt), RULES)


@pytest.mark.parametrize("closed", [{"refused": True}, {"deadline": "now"}])
def test_closed_attempt_lets_the_rows_decide_for_its_own_key_too(world: Any, closed: dict[str, Any]) -> None:
    if "deadline" in closed:
        closed = {"deadline": world.now}
    for key in ("new", "other"):
        attempt = world.issuance(key, IssuanceState.INTENT, **closed)
        facts = world.facts(device=world.device(DeviceState.REGISTERED), attempt=attempt)
        assert decide(world.request(), facts, RULES) == Begin(Kind.FIRST, 1, proven=False)


# -- renewal -----------------------------------------------------------------------------------------------------
def test_proof_by_the_current_leaf_renews_in_the_same_generation(world: Any) -> None:
    facts = world.active(device=world.device(generation=3, proven=True))
    request = world.request(proven_leaf=world.digest("leaf old"))
    assert decide(request, facts, UNASKED) == Begin(Kind.RENEW, 3, proven=True)


def test_renewal_comes_before_a_window(world: Any) -> None:
    facts = world.active(window=world.window())
    request = world.request(proven_leaf=world.digest("leaf old"))
    assert decide(request, facts, UNASKED) == Begin(Kind.RENEW, 1, proven=False)


def test_renewal_keeps_the_wireguard_key_or_leaves_it_out(world: Any) -> None:
    facts = world.active(current=world.issuance("old", wg_key=world.wg("a")), lease=world.lease(world.wg("a")))
    proof = world.digest("leaf old")
    for sent in (None, world.wg("a")):
        decision = decide(world.request(proven_leaf=proof, wg_key=sent), facts, RULES)
        assert decision == Begin(Kind.RENEW, 1, proven=False)
    with pytest.raises(WireGuardKeyDiffers):
        decide(world.request(proven_leaf=proof, wg_key=world.wg("b")), facts, RULES)


def test_renewal_after_one_that_left_the_wireguard_key_out_may_still_send_it(world: Any) -> None:
    current = world.issuance("old", kind=Kind.RENEW, wg_key=None)
    facts = world.active(current=current, lease=world.lease(world.wg("a")))
    request = world.request(proven_leaf=world.digest("leaf old"), wg_key=world.wg("a"))
    assert decide(request, facts, RULES) == Begin(Kind.RENEW, 1, proven=False)


def test_renewal_cannot_bring_a_first_wireguard_key(world: Any) -> None:
    request = world.request(proven_leaf=world.digest("leaf old"), wg_key=world.wg("a"))
    with pytest.raises(WireGuardKeyDiffers):
        decide(request, world.active(), RULES)


def test_proof_by_another_leaf_renews_nothing(world: Any) -> None:
    request = world.request(proven_leaf=world.digest("leaf older"))
    with pytest.raises(IdentityExists):
        decide(request, world.active(), RULES)
    with pytest.raises(IdentityExists):
        decide(request, world.active(current=None), RULES)


@pytest.mark.parametrize(("since", "proves"), [(0, True), (29, True), (30, False), (300, False)])
def test_expired_current_leaf_proves_for_the_grace(world: Any, since: int, proves: bool) -> None:
    current = world.issuance("old", not_after=world.now - timedelta(days=since))
    request = world.request(proven_leaf=world.digest("leaf old"))
    rules = Rules(RegisteredOnly(), renew_grace=timedelta(days=30))
    if proves:
        assert decide(request, world.active(current=current), rules) == Begin(Kind.RENEW, 1, proven=False)
    else:
        with pytest.raises(IdentityExists):
            decide(request, world.active(current=current), rules)


def test_proof_changes_nothing_for_a_device_that_is_not_active(world: Any) -> None:
    facts = world.facts(device=world.device(DeviceState.REGISTERED, generation=2))
    request = world.request(proven_leaf=world.digest("leaf old"))
    assert decide(request, facts, RULES) == decide(world.request(), facts, RULES) == Begin(Kind.FIRST, 3, proven=False)


def test_proof_that_does_not_prove_leaves_a_window_open(world: Any) -> None:
    request = world.request(proven_leaf=world.digest("leaf older"))
    assert decide(request, world.active(window=world.window()), RULES).kind is Kind.REENROLL


# -- activation --------------------------------------------------------------------------------------------------
def holding(world: Any, leaf: Any, **changes: Any) -> LeafFacts:
    return replace(LeafFacts(world.now, world.device(), leaf, None, world.lease()), **changes)


def test_pending_leaf_is_activated_at_the_devices_epoch(world: Any) -> None:
    pending = world.issuance("new", IssuanceState.PENDING, kind=Kind.RENEW, epoch=2)
    assert decide_activation(holding(world, pending)) == Activate(pending, world.device().epoch)


def test_current_leaf_is_answered_also_when_it_has_ended_or_an_attempt_is_open(world: Any) -> None:
    for changes in ({}, {"not_after": world.now}):
        current = world.issuance("new", **changes)
        attempt = world.issuance("other", IssuanceState.INTENT, kind=Kind.REENROLL)
        assert decide_activation(holding(world, current, attempt=attempt)) == AnswerStored(current, world.lease())


@pytest.mark.parametrize("state", ENDED)
def test_leaf_that_is_over_is_superseded(world: Any, state: IssuanceState) -> None:
    with pytest.raises(Superseded):
        decide_activation(holding(world, world.issuance("new", state)))


def test_pending_leaf_that_ended_is_superseded(world: Any) -> None:
    with pytest.raises(Superseded, match="ended before"):
        decide_activation(holding(world, world.issuance("new", IssuanceState.PENDING, not_after=world.now)))


def test_leaf_or_device_that_is_unknown_is_superseded(world: Any) -> None:
    for changes in ({"issuance": None}, {"device": None}):
        with pytest.raises(Superseded):
            decide_activation(holding(world, world.issuance("new", IssuanceState.PENDING), **changes))


def test_tombstone_comes_before_everything(world: Any) -> None:
    for state in IssuanceState:
        facts = holding(world, world.issuance("new", state), device=world.device(DeviceState.TOMBSTONE))
        with pytest.raises(Retired):
            decide_activation(facts)


def test_activation_waits_for_an_open_reenrollment_only(world: Any) -> None:
    pending = world.issuance("new", IssuanceState.PENDING)
    attempt = world.issuance("other", IssuanceState.INTENT, kind=Kind.REENROLL)
    with pytest.raises(AttemptOpen) as refused:
        decide_activation(holding(world, pending, attempt=attempt))
    assert refused.value.retry_after == 15.0
    for changes in ({"kind": Kind.RENEW}, {"refused": True}, {"deadline": world.now}):
        assert isinstance(decide_activation(holding(world, pending, attempt=replace(attempt, **changes))), Activate)


# -- re-enrollment -----------------------------------------------------------------------------------------------
def test_window_gives_the_next_generation(world: Any) -> None:
    facts = world.active(device=world.device(generation=2), window=world.window(generation=2))
    assert decide(world.request(), facts, RULES) == Begin(Kind.REENROLL, 3, proven=False)


def test_window_stands_for_the_registration_under_every_policy(world: Any) -> None:
    facts = world.active(device=world.device(registered=False), window=world.window(voucher_hash=world.digest("v")))
    for rules in (RULES, OPEN):
        with pytest.raises(VoucherRequired):
            decide(world.request(), facts, rules)
        with pytest.raises(VoucherRequired):
            decide(world.request(voucher_hash=world.digest("w")), facts, rules)
        admitted = decide(world.request(voucher_hash=world.digest("v")), facts, rules)
        assert admitted == Begin(Kind.REENROLL, 2, proven=True)


def test_window_may_name_the_key(world: Any) -> None:
    facts = world.active(window=world.window(key_digest=world.csr("new").spki))
    assert decide(world.request("new"), facts, RULES) == Begin(Kind.REENROLL, 2, proven=True)
    with pytest.raises(NotAdmitted):
        decide(world.request("another"), facts, RULES)


def test_window_wants_a_new_wireguard_key_or_none(world: Any) -> None:
    window = world.window()
    request = world.request(wg_key=world.wg("a"))
    for holder in (world.wg_owner(), world.wg_owner("other", 2)):
        with pytest.raises(WireGuardKeyInUse):
            decide(request, world.active(window=window, wg_owner=holder), RULES)
    for holder in (None, world.wg_owner(generation=2)):
        facts = world.active(window=window, wg_owner=holder)
        assert decide(request, facts, RULES) == Begin(Kind.REENROLL, 2, proven=False)


def test_reenrollment_can_be_allowed_without_a_window(world: Any) -> None:
    assert decide(world.request(), world.active(), ALLOW) == Begin(Kind.REENROLL, 2, proven=False)


def test_reenrollment_without_a_window_is_admitted_as_strictly_as_a_new_device(world: Any) -> None:
    with pytest.raises(NotAdmitted):
        decide(world.request(), world.active(device=world.device(registered=False)), ALLOW)
    with pytest.raises(NotAdmitted):
        decide(world.request(), world.active(device=world.device(key_digest=world.digest("key old"))), ALLOW)


def test_voucher_of_the_first_identity_is_used_up(world: Any) -> None:
    facts = world.active(device=world.device(voucher_hash=world.digest("v")))
    for voucher in (None, world.digest("v"), world.digest("w")):
        with pytest.raises(VoucherRequired):
            decide(world.request(voucher_hash=voucher), facts, ALLOW)


def test_active_device_with_anything_else_is_refused(world: Any) -> None:
    request = world.request(voucher_hash=world.digest("v"), wg_key=world.wg("a"))
    for rules in (RULES, OPEN):
        with pytest.raises(IdentityExists):
            decide(request, world.active(), rules)


# -- new devices -------------------------------------------------------------------------------------------------
def test_unknown_device_needs_a_policy_that_lets_it_in(world: Any) -> None:
    with pytest.raises(NotAdmitted):
        decide(world.request(), world.facts(), RULES)
    assert decide(world.request(), world.facts(), OPEN) == Begin(Kind.FIRST, 1, proven=False)


def test_registered_device_begins_its_first_generation(world: Any) -> None:
    facts = world.facts(device=world.device(DeviceState.REGISTERED))
    assert decide(world.request(), facts, RULES) == Begin(Kind.FIRST, 1, proven=False)


def test_reinstated_device_goes_on_counting(world: Any) -> None:
    facts = world.facts(device=world.device(DeviceState.REGISTERED, generation=4))
    assert decide(world.request(), facts, RULES) == Begin(Kind.FIRST, 5, proven=False)


def test_registration_with_a_voucher_makes_the_device_proven(world: Any) -> None:
    facts = world.facts(device=world.device(DeviceState.REGISTERED, voucher_hash=world.digest("v")))
    with pytest.raises(VoucherRequired):
        decide(world.request(), facts, RULES)
    assert decide(world.request(voucher_hash=world.digest("v")), facts, RULES) == Begin(Kind.FIRST, 1, proven=True)


def test_wireguard_key_of_somebody_else_is_refused_only_once_admitted(world: Any) -> None:
    held = world.facts(device=world.device(DeviceState.REGISTERED), wg_owner=world.wg_owner("other"))
    with pytest.raises(WireGuardKeyInUse):
        decide(world.request(wg_key=world.wg("a")), held, RULES)
    with pytest.raises(NotAdmitted):
        decide(world.request(wg_key=world.wg("a")), world.facts(wg_owner=world.wg_owner("other")), RULES)


def test_wireguard_key_of_an_earlier_generation_of_the_same_id_is_refused(world: Any) -> None:
    back = world.device(DeviceState.REGISTERED, generation=1)
    request = world.request(wg_key=world.wg("a"))
    with pytest.raises(WireGuardKeyInUse):
        decide(request, world.facts(device=back, wg_owner=world.wg_owner(generation=1)), RULES)
    own_try = world.facts(device=back, wg_owner=world.wg_owner(generation=2))
    assert decide(request, own_try, RULES) == Begin(Kind.FIRST, 2, proven=False)
