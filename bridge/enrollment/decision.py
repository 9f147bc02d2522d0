"""Who gets what: the decision table of the wire protocol, section 2, and activation, section 4, as pure functions.

Decided by the registry's facts, never by the client's word. Rows are tried in the table's order. Responsible for the
decision only: it reads nothing, writes nothing, and asks no clock (``facts.now`` is the time).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from bridge.errors import (
    AttemptOpen,
    Expired,
    IdentityExists,
    IdSpelling,
    KeyInUse,
    Retired,
    Superseded,
    WireGuardKeyDiffers,
    WireGuardKeyInUse,
)
from bridge.model.facts import (
    Activate,
    AnswerStored,
    AwaitAttempt,
    Begin,
    Decision,
    EnrollmentRequest,
    Facts,
    LeafFacts,
)
from bridge.model.identity import WireGuardKey
from bridge.model.records import Device, DeviceState, Issuance, IssuanceState, Kind
from bridge.ports.admission import AdmissionPolicy, Candidate

_ANSWERABLE = frozenset({IssuanceState.CURRENT, IssuanceState.PENDING})


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator configured that the table depends on."""

    policy: AdmissionPolicy
    reenrollment_allowed: bool = False
    """``BRIDGE_REENROLLMENT=allow``: an active id may come with a new key without a window."""
    renew_grace: timedelta = timedelta(days=30)
    """``BRIDGE_RENEW_GRACE``: how long after its end a current leaf still proves."""


def decide(request: EnrollmentRequest, facts: Facts, rules: Rules) -> Decision:
    """Return what to do with the request.

    Total: every combination of facts and request ends in a decision or a refusal.

    :raises bridge.errors.Refused: the request is turned down, and nothing changes.
    """
    device = facts.device
    if device is not None and device.state is DeviceState.TOMBSTONE:
        raise Retired(f"the device {device.id} was decommissioned")
    if device is not None and device.id != request.device:
        raise IdSpelling("this id is known under another spelling")
    _refuse_foreign_key(request, facts)
    if facts.stored is not None and facts.stored.state in _ANSWERABLE:
        return _stored_answer(request, facts, facts.stored)
    if facts.attempt is not None and facts.attempt.is_open(facts.now):
        return _beside_open_attempt(request, facts, rules, facts.attempt)
    return _new_attempt(request, facts, rules)


def _refuse_foreign_key(request: EnrollmentRequest, facts: Facts) -> None:
    """Refuse a key of another id, of an earlier generation, or whose certificate is neither current nor pending."""
    owner, stored = facts.key_owner, facts.stored
    if owner is not None:
        if owner.device.folded != request.device.folded:
            raise KeyInUse("this key belongs to another identity")
        reached = facts.device.generation if facts.device is not None else 0
        if owner.generation is not None and owner.generation < reached:
            raise KeyInUse("this key belongs to an earlier identity of this device")
    if stored is not None and stored.state not in _ANSWERABLE:
        raise KeyInUse("the certificate of this key is no longer valid")


def _stored_answer(request: EnrollmentRequest, facts: Facts, stored: Issuance) -> AnswerStored:
    if request.wg_key is not None and request.wg_key != _wireguard_key_of(stored, facts):
        raise WireGuardKeyDiffers("the certificate of this key was issued with another WireGuard key, or with none")
    if stored.not_after is not None and stored.not_after <= facts.now:
        raise Expired("the certificate of this key has expired")
    return AnswerStored(stored, facts.lease)


def _wireguard_key_of(issuance: Issuance, facts: Facts) -> WireGuardKey | None:
    """Return the key that goes with a certificate: a renewal that left it out keeps the device's."""
    if issuance.wg_key is None and issuance.kind is Kind.RENEW and facts.lease is not None:
        return facts.lease.wg_key
    return issuance.wg_key


def _beside_open_attempt(request: EnrollmentRequest, facts: Facts, rules: Rules, attempt: Issuance) -> AwaitAttempt:
    if attempt.spki == request.csr.spki:
        return AwaitAttempt(attempt.deadline)
    _new_attempt(request, facts, rules)  # only a key that would get an attempt is told to wait for this one
    raise AttemptOpen(
        "an attempt with another key is under way for this id",
        retry_after=(attempt.deadline - facts.now).total_seconds(),
    )


def _new_attempt(request: EnrollmentRequest, facts: Facts, rules: Rules) -> Begin:
    device = facts.device
    if device is None or device.state is DeviceState.REGISTERED:
        return _first(request, facts, rules, device)
    current = facts.current
    if current is not None and _proves(request, current, facts, rules):
        return _renewal(request, facts, device, current)
    if facts.window is not None or rules.reenrollment_allowed:
        return _reenrollment(request, facts, rules, device)
    raise IdentityExists("this id is active under another key")


def _proves(request: EnrollmentRequest, current: Issuance, facts: Facts, rules: Rules) -> bool:
    """Tell whether the request is proven by the current leaf: compare-and-swap, for no other leaf proves anything."""
    if request.proven_leaf is None or request.proven_leaf != current.leaf_sha256:
        return False
    return current.not_after is None or current.not_after + rules.renew_grace > facts.now


def _first(request: EnrollmentRequest, facts: Facts, rules: Rules, device: Device | None) -> Begin:
    admitted = rules.policy.admit(Candidate(request, device, None, facts.now))
    generation = (device.generation if device is not None else 0) + 1
    owner = facts.wg_owner
    if owner is not None and (owner.device.folded != request.device.folded or owner.generation != generation):
        raise WireGuardKeyInUse("this WireGuard key is held by another identity")
    return Begin(Kind.FIRST, generation, admitted.proven)


def _renewal(request: EnrollmentRequest, facts: Facts, device: Device, current: Issuance) -> Begin:
    if request.wg_key is not None and request.wg_key != _wireguard_key_of(current, facts):
        raise WireGuardKeyDiffers("a renewal keeps the WireGuard key; leave it out or send the stored one")
    return Begin(Kind.RENEW, device.generation, device.proven)


def _reenrollment(request: EnrollmentRequest, facts: Facts, rules: Rules, device: Device) -> Begin:
    admitted = rules.policy.admit(Candidate(request, device, facts.window, facts.now))
    generation = device.generation + 1
    owner = facts.wg_owner
    # The key of an earlier try for this same new generation is the device's own; any other holder is not.
    if owner is not None and (owner.device.folded != request.device.folded or owner.generation != generation):
        raise WireGuardKeyInUse("a new identity needs a new WireGuard key, or none")
    return Begin(Kind.REENROLL, generation, admitted.proven)


def decide_activation(facts: LeafFacts) -> Activate | AnswerStored:
    """Return what to do for the holder of a leaf's key who wants that leaf to be the current one.

    Total, as :func:`decide` is. That the leaf's key signed for it is taken for granted.

    :raises bridge.errors.Refused: it is turned down, and nothing changes.
    """
    device, leaf = facts.device, facts.issuance
    if device is not None and device.state is DeviceState.TOMBSTONE:
        raise Retired(f"the device {device.id} was decommissioned")
    if device is None or leaf is None:
        raise Superseded("this certificate is not the device's")
    if leaf.state is IssuanceState.CURRENT:
        return AnswerStored(leaf, facts.lease)
    if leaf.state is not IssuanceState.PENDING:
        raise Superseded("this certificate is neither pending nor current")
    if leaf.not_after is not None and leaf.not_after <= facts.now:
        raise Superseded("this certificate ended before it was activated")
    attempt = facts.attempt
    if attempt is not None and attempt.kind is Kind.REENROLL and attempt.is_open(facts.now):
        raise AttemptOpen(
            "the device is being re-enrolled under another key",
            retry_after=(attempt.deadline - facts.now).total_seconds(),
        )
    return Activate(leaf, device.epoch)
