"""The use case of renewal: what proves that a device holds its certificate's key, and the activation of a new one.

Asking for the new certificate is an enrollment like any other (:mod:`bridge.enrollment.service`), with a proof.
Responsible for finding the leaf that a proof names, for having the proof checked outside of any transaction, and for
the one transaction that makes a pending certificate the current one. Not responsible for what follows in outside
systems: that hangs on the links, and on the order in which the store lets go of the replaced leaf.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from bridge.enrollment.decision import decide_activation
from bridge.enrollment.proof import Proof
from bridge.errors import BadProof, BridgeError, Refused, Retired
from bridge.model.facts import Activate, AnswerStored, EnrollmentRequest
from bridge.model.identity import DeviceId, Fingerprint
from bridge.model.records import DeviceState, Issuance, Lease
from bridge.ports.registry import Entry, Registry, Transaction
from bridge.ports.runtime import Clock


@dataclass(frozen=True, slots=True)
class Activated:
    """The certificate is the device's current one."""

    issuance: Issuance
    lease: Lease | None
    changed: bool
    """False if it was current already: the answer to an earlier request was lost."""


class Renewal:
    """Proofs, and ``POST /devices/{device_id}/activate`` without the HTTP."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock

    async def prove(self, proof: Proof, request: EnrollmentRequest) -> EnrollmentRequest:
        """Return the request with the leaf that its proof is by. Whether that leaf may renew is decided later.

        Costs one read of the registry.

        :raises BadProof: it does not hold.
        :raises bridge.errors.Retired: the device was decommissioned.
        """
        await self._check(proof, request.device)
        return replace(request, proven_leaf=proof.leaf)

    async def activate(self, device: DeviceId, proof: Proof, request_id: str | None = None) -> Activated:
        """Make the pending certificate whose key signed the proof the device's current one; done again, answer again.

        :raises BadProof: the proof does not hold; that costs one read of the registry, and no write.
        :raises bridge.errors.Refused: the device was retired, its leaf superseded, or it is being re-enrolled.
        """
        await self._check(proof, device)
        while True:
            outcome = await self._registry.write(lambda tx: self._activate(tx, device, proof.leaf, request_id))
            if isinstance(outcome, BridgeError):
                raise outcome
            if outcome is not None:
                return outcome

    async def _check(self, proof: Proof, device: DeviceId) -> None:
        facts = await self._registry.read(lambda tx: tx.leaf_facts(device, proof.leaf, self._clock.now()))
        if facts.device is not None and facts.device.state is DeviceState.TOMBSTONE:
            raise Retired(f"the device {facts.device.id} was decommissioned")
        named = facts.issuance
        if facts.device is None or facts.device.id != device or named is None or named.leaf is None:
            raise BadProof("the proof names a certificate that this device does not have")
        proof.check(named.leaf)

    def _activate(
        self, tx: Transaction, device: DeviceId, leaf: Fingerprint, request_id: str | None
    ) -> Activated | BridgeError | None:
        # A refusal is a value here: raised inside a unit it would undo the batch that it shares a commit with.
        now = self._clock.now()
        facts = tx.leaf_facts(device, leaf, now)
        try:
            decision = decide_activation(facts)
        except Refused as e:
            return e.with_traceback(None)
        if isinstance(decision, AnswerStored):
            return Activated(decision.issuance, decision.lease, changed=False)
        return _carry_out(tx, decision, now, request_id)


def _carry_out(tx: Transaction, decision: Activate, now: datetime, request_id: str | None) -> Activated | None:
    stored = tx.activate(decision, now)
    if stored is None:
        return None  # the device's fate changed in between: look again
    issuance = stored.issuance
    detail = {
        "serial": str(issuance.serial),
        "generation": issuance.generation,
        "spki": issuance.spki.hex,
        "leaf": None if issuance.leaf_sha256 is None else issuance.leaf_sha256.hex,
    }
    tx.audit(Entry(now, "device", "certificate.activated", issuance.device, detail, request_id))
    return Activated(issuance, stored.lease, changed=True)
