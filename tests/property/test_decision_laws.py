"""Laws of the decision table: it is total, agrees with a second telling of it, and looks at nothing too early."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.admission.policies import OpenDoor, RegisteredOnly
from bridge.enrollment.decision import Rules, decide, decide_activation
from bridge.errors import Refused
from bridge.model.facts import Activate, AnswerStored, AwaitAttempt, Begin, Csr, EnrollmentRequest, Facts, LeafFacts
from bridge.model.identity import DeviceId, Fingerprint, Pem, Serial, WireGuardKey
from bridge.model.records import (
    LIVE_STATES,
    Device,
    DeviceState,
    Issuance,
    IssuanceState,
    KeyOwner,
    Kind,
    Lease,
    Window,
    WireGuardKeyOwner,
)

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
ANSWERABLE = {IssuanceState.CURRENT, IssuanceState.PENDING}


def digest(text: str) -> Fingerprint:
    return Fingerprint.of(text.encode())


def wg(text: str) -> WireGuardKey:
    return WireGuardKey(base64.b64encode(b"\x00" + hashlib.sha256(text.encode()).digest()[1:31] + b"\x11").decode())


# Few values each, so that equal and different ones meet.
ids = st.sampled_from(["dev-1", "DEV-1", "other"]).map(DeviceId)
keys = st.sampled_from(["a", "b", "c"])
spkis = keys.map(lambda key: digest(f"key {key}"))
leaves = keys.map(lambda key: digest(f"leaf {key}"))
vouchers = st.none() | st.sampled_from(["v", "w"]).map(digest)
wg_keys = st.none() | st.sampled_from(["x", "y"]).map(wg)
moments = st.sampled_from([-3600, -1, 0, 1, 3600]).map(lambda seconds: NOW + timedelta(seconds=seconds))
generations = st.integers(0, 3)
digests = st.none() | spkis


def maybe(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


devices = st.builds(
    Device,
    id=ids,
    state=st.sampled_from(DeviceState),
    epoch=st.integers(1, 5),
    generation=generations,
    proven=st.booleans(),
    name=st.none(),
    type=st.none(),
    key_digest=digests,
    voucher_hash=vouchers,
    admission_expires_at=maybe(moments),
    registered=st.booleans(),
    created_at=st.just(NOW),
    first_connected_at=st.none(),
)


def issuances(states: list[IssuanceState]) -> st.SearchStrategy[Issuance]:
    return st.builds(
        Issuance,
        serial=st.integers(1, 5).map(Serial),
        device=ids,
        epoch=st.integers(1, 5),
        generation=generations,
        kind=st.sampled_from(Kind),
        spki=spkis,
        state=st.sampled_from(states),
        deadline=moments,
        refused=st.booleans(),
        wg_key=wg_keys,
        leaf=maybe(st.just(Pem("leaf"))),
        chain=maybe(st.just(Pem("chain"))),
        leaf_sha256=maybe(leaves),
        not_before=maybe(moments),
        not_after=maybe(moments),
    )


windows = st.builds(
    Window,
    device=ids,
    generation=generations,
    opened_by=st.just("operator:x"),
    opened_at=st.just(NOW),
    expires_at=moments,
    voucher_hash=vouchers,
    key_digest=digests,
    compromised=st.booleans(),
)
leases = st.builds(Lease, address=st.just(IPv4Address("10.8.0.7")), device=ids, wg_key=wg_keys)
facts_of_all_kinds = st.builds(
    Facts,
    now=st.just(NOW),
    device=maybe(devices),
    key_owner=maybe(st.builds(KeyOwner, device=ids, generation=maybe(generations))),
    stored=maybe(issuances(list(IssuanceState))),
    attempt=maybe(issuances([IssuanceState.INTENT])),
    current=maybe(issuances([IssuanceState.CURRENT])),
    window=maybe(windows),
    lease=maybe(leases),
    wg_owner=maybe(st.builds(WireGuardKeyOwner, device=ids, generation=generations)),
)
ours = st.just(DeviceId("dev-1"))
living = st.sampled_from([DeviceState.REGISTERED, DeviceState.ACTIVE])
late_facts = st.builds(
    replace,
    facts_of_all_kinds,
    device=maybe(st.builds(replace, devices, id=ours, state=living)),
    key_owner=st.none(),
    stored=st.none(),
)
"""Those that the first rows let pass: by chance alone few would."""

any_facts = facts_of_all_kinds | late_facts
requests = st.builds(
    EnrollmentRequest,
    device=ours | st.just(DeviceId("DEV-1")),
    csr=spkis.map(lambda spki: Csr(Pem("csr"), digest("csr"), spki, b"", b"")),
    wg_key=wg_keys,
    name=st.none(),
    type=st.none(),
    voucher_hash=vouchers,
    inventory=st.none(),
    proven_leaf=maybe(leaves),
)
all_rules = st.builds(
    Rules,
    policy=st.sampled_from([RegisteredOnly(), OpenDoor()]),
    reenrollment_allowed=st.booleans(),
    renew_grace=st.sampled_from([1, 3600, 7200]).map(lambda seconds: timedelta(seconds=seconds)),
)

Answer = str | tuple[object, ...]


def told(request: EnrollmentRequest, facts: Facts, rules: Rules) -> Answer:
    """Return what ``decide`` said, as a value."""
    try:
        decision = decide(request, facts, rules)
    except Refused as refused:
        return refused.code
    match decision:
        case AnswerStored(issuance, lease):
            return ("answer", issuance, lease)
        case AwaitAttempt(deadline):
            return ("wait", deadline)
        case Begin(kind, generation, proven):
            return ("begin", kind, generation, proven)


# -- the same table, told a second time --------------------------------------------------------------------------
class Case:
    """One question, with the words that the table's rows use."""

    def __init__(self, request: EnrollmentRequest, facts: Facts, rules: Rules) -> None:
        self.r, self.f, self.rules = request, facts, rules
        self.d, self.stored, self.attempt = facts.device, facts.stored, facts.attempt
        self.state = facts.device.state if facts.device else None
        self.generation = facts.device.generation if facts.device else 0
        self.has_open_attempt = bool(
            self.attempt
            and self.attempt.state is IssuanceState.INTENT
            and not self.attempt.refused
            and self.attempt.deadline > NOW
        )
        self.new = self.state in {None, DeviceState.REGISTERED}
        self.renewal = bool(
            facts.current and request.proven_leaf and request.proven_leaf == facts.current.leaf_sha256 and not self.new
        )
        if self.renewal and facts.current.not_after is not None:
            self.renewal = NOW - facts.current.not_after < rules.renew_grace
        self.reenrollable = facts.window is not None or rules.reenrollment_allowed

    def other_spelling(self) -> bool:
        return self.d is not None and self.d.id.value != self.r.device.value

    def key_elsewhere(self) -> bool:
        owner = self.f.key_owner
        elsewhere = owner is not None and owner.device.value.lower() != self.r.device.value.lower()
        earlier = owner is not None and owner.generation is not None and owner.generation < self.generation
        return elsewhere or earlier or (self.stored is not None and self.stored.state not in ANSWERABLE)

    def wg_of(self, issuance: Issuance) -> WireGuardKey | None:
        kept = self.f.lease.wg_key if self.f.lease else None
        return kept if issuance.kind is Kind.RENEW and issuance.wg_key is None else issuance.wg_key

    def wg_differs(self, issuance: Issuance | None) -> bool:
        return issuance is not None and self.r.wg_key not in {None, self.wg_of(issuance)}

    def expired(self) -> bool:
        return self.stored is not None and self.stored.not_after is not None and self.stored.not_after <= NOW

    def admission(self) -> str | bool:
        """Return a refusal's code, or whether the device is proven."""
        window, device = (None, self.d) if self.new else (self.f.window, self.d)
        asked: tuple[Fingerprint | None, Fingerprint | None, datetime | None]
        if window is not None:
            asked = (window.voucher_hash, window.key_digest, window.expires_at)
        elif device is None or not device.registered:
            return False if self.rules.policy.name == "open" else "not_admitted"
        elif self.new:
            asked = (device.voucher_hash, device.key_digest, device.admission_expires_at)
        elif device.voucher_hash:
            return "voucher_required"  # spent
        else:
            asked = (None, device.key_digest, None)
        voucher, key, end = asked
        if end is not None and end <= NOW:
            return "not_admitted"
        if voucher is not None and self.r.voucher_hash != voucher:
            return "voucher_required"
        if key is not None and self.r.csr.spki != key:
            return "not_admitted"
        return voucher is not None or key is not None

    def wg_held(self) -> bool:
        owner = self.f.wg_owner
        mine = owner is not None and owner.device.value.lower() == self.r.device.value.lower()
        return owner is not None and not (mine and owner.generation == self.generation + 1)

    def begin(self) -> Answer:
        kind = Kind.FIRST if self.new else Kind.REENROLL
        return ("begin", kind, self.generation + 1, self.admission())


Row = tuple[Callable[[Case], object], Callable[[Case], Answer]]

ATTEMPTS: Final[list[Row]] = [
    (lambda c: c.renewal and c.wg_differs(c.f.current), lambda _: "wg_key_differs"),
    (lambda c: c.renewal, lambda c: ("begin", Kind.RENEW, c.generation, c.d.proven)),
    (lambda c: not c.new and not c.reenrollable, lambda _: "identity_exists"),
    (lambda c: isinstance(c.admission(), str), lambda c: c.admission()),
    (lambda c: c.wg_held(), lambda _: "wg_key_in_use"),
    (lambda _: True, lambda c: c.begin()),
]
ROWS: Final[list[Row]] = [
    (lambda c: c.state is DeviceState.TOMBSTONE, lambda _: "retired"),
    (lambda c: c.other_spelling(), lambda _: "id_spelling"),
    (lambda c: c.key_elsewhere(), lambda _: "key_in_use"),
    (lambda c: c.stored and c.wg_differs(c.stored), lambda _: "wg_key_differs"),
    (lambda c: c.stored and c.expired(), lambda _: "expired"),
    (lambda c: c.stored, lambda c: ("answer", c.stored, c.f.lease)),
    (lambda c: c.has_open_attempt and c.attempt.spki == c.r.csr.spki, lambda c: ("wait", c.attempt.deadline)),
    (lambda c: c.has_open_attempt, lambda c: refusal_or(first(ATTEMPTS, c), "in_progress")),
    (lambda _: True, lambda c: first(ATTEMPTS, c)),
]


def first(rows: list[Row], case: Case) -> Answer:
    return next(answer(case) for condition, answer in rows if condition(case))


def refusal_or(answer: Answer, otherwise: str) -> str:
    return answer if isinstance(answer, str) else otherwise


@settings(max_examples=400, deadline=None)
@given(requests, any_facts, all_rules)
def test_every_question_has_the_answer_of_the_table(request: EnrollmentRequest, facts: Facts, rules: Rules) -> None:
    assert told(request, facts, rules) == first(ROWS, Case(request, facts, rules))


@settings(max_examples=60, deadline=None)
@given(requests, any_facts, devices, all_rules)
def test_tombstone_is_always_retired(request: EnrollmentRequest, facts: Facts, device: Device, rules: Rules) -> None:
    grave = replace(facts, device=replace(device, state=DeviceState.TOMBSTONE))
    assert told(request, grave, rules) == "retired"


class Counting:
    """A policy that tells whether it was asked."""

    def __init__(self, inner: RegisteredOnly | OpenDoor) -> None:
        self.inner, self.asked, self.name = inner, 0, inner.name

    def admit(self, candidate):  # noqa: ANN001, ANN201 - as the port's
        self.asked += 1
        return self.inner.admit(candidate)


@settings(max_examples=60, deadline=None)
@given(requests, any_facts, all_rules, vouchers)
def test_where_an_earlier_row_decides_the_voucher_changes_nothing(
    request: EnrollmentRequest, facts: Facts, rules: Rules, other: Fingerprint | None
) -> None:
    policy = Counting(rules.policy)
    said = told(request, facts, replace(rules, policy=policy))
    if policy.asked == 0:
        assert told(replace(request, voucher_hash=other), facts, rules) == said
    else:
        assert policy.asked == 1
        assert isinstance(said, str) or said[0] == "begin"


@settings(max_examples=60, deadline=None)
@given(requests, any_facts, all_rules)
def test_no_key_with_a_certificate_gets_another(request: EnrollmentRequest, facts: Facts, rules: Rules) -> None:
    said = told(request, facts, rules)
    if facts.stored is not None:
        assert isinstance(said, str) or said[0] == "answer"


@settings(max_examples=60, deadline=None)
@given(requests, any_facts, all_rules)
def test_generation_rises_by_one_with_a_new_identity_and_never_by_a_renewal(
    request: EnrollmentRequest, facts: Facts, rules: Rules
) -> None:
    said = told(request, facts, rules)
    if said[0] != "begin":
        return
    reached = facts.device.generation if facts.device else 0
    assert said[2] == (reached if said[1] is Kind.RENEW else reached + 1)
    state = facts.device.state if facts.device else None
    assert (said[1] is Kind.FIRST) == (state in {None, DeviceState.REGISTERED})


@settings(max_examples=60, deadline=None)
@given(requests, any_facts, all_rules)
def test_nothing_begins_beside_an_open_attempt(request: EnrollmentRequest, facts: Facts, rules: Rules) -> None:
    if facts.attempt is not None and facts.attempt.is_open(NOW):
        assert told(request, facts, rules)[0] != "begin"


@settings(max_examples=60, deadline=None)
@given(requests, any_facts, all_rules)
def test_no_answer_is_a_certificate_that_is_over(request: EnrollmentRequest, facts: Facts, rules: Rules) -> None:
    said = told(request, facts, rules)
    if said[0] == "answer":
        assert said[1].state in ANSWERABLE
        assert said[1].not_after is None or said[1].not_after > NOW


# -- activation --------------------------------------------------------------------------------------------------
leaf_facts = st.builds(
    LeafFacts,
    now=st.just(NOW),
    device=maybe(devices),
    issuance=maybe(issuances([state for state in IssuanceState if state is not IssuanceState.INTENT])),
    attempt=maybe(issuances([IssuanceState.INTENT])),
    lease=maybe(leases),
)


def activation_told(facts: LeafFacts) -> Answer:
    try:
        decision = decide_activation(facts)
    except Refused as refused:
        return refused.code
    match decision:
        case AnswerStored(issuance, lease):
            return ("answer", issuance, lease)
        case Activate(pending, epoch):
            return ("activate", pending, epoch)


def activation_of_the_table(facts: LeafFacts) -> Answer:
    """Return the same, told a second time, in the order of the protocol's section 4."""
    leaf, attempt = facts.issuance, facts.attempt
    if facts.device is not None and facts.device.state is DeviceState.TOMBSTONE:
        return "retired"
    usable = facts.device is not None and leaf is not None
    if usable and leaf.state is IssuanceState.CURRENT:
        return ("answer", leaf, facts.lease)
    ended = usable and leaf.not_after is not None and leaf.not_after <= NOW
    if not usable or leaf.state is not IssuanceState.PENDING or ended:
        return "superseded"
    if attempt is not None and attempt.kind is Kind.REENROLL and not attempt.refused and attempt.deadline > NOW:
        return "in_progress"
    return ("activate", leaf, facts.device.epoch)


@settings(max_examples=400, deadline=None)
@given(leaf_facts)
def test_every_activation_has_the_answer_of_the_table(facts: LeafFacts) -> None:
    assert activation_told(facts) == activation_of_the_table(facts)


@settings(max_examples=100, deadline=None)
@given(leaf_facts)
def test_what_was_activated_is_answered_and_never_activated_again(facts: LeafFacts) -> None:
    said = activation_told(facts)
    if said[0] == "activate":
        after = replace(facts, issuance=said[1].with_state(IssuanceState.CURRENT))
        assert activation_told(after) == ("answer", after.issuance, facts.lease)


@pytest.mark.parametrize("state", sorted(LIVE_STATES))
def test_live_states_are_those_that_a_tombstone_cannot_have(state: IssuanceState) -> None:
    assert state in {IssuanceState.INTENT, *ANSWERABLE}
