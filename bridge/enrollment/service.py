"""The use case of enrollment: record the intent, ask the CA, record the result, answer.

Responsible for the order of effects (design, section 5.1): an attempt with our own serial is committed before the CA is
asked, its certificate and the links before anyone is answered. So every certificate that can exist is known.
Not responsible for HTTP, for SQL, or for deciding (:mod:`bridge.enrollment.decision`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from bridge.enrollment.decision import Rules, decide
from bridge.errors import BridgeError, CaRefused, CaUnreachable, InProgress, PoolEmpty, Refused
from bridge.model.facts import (
    AnswerStored,
    AwaitAttempt,
    Begin,
    EnrollmentRequest,
    Lost,
    NewAttempt,
    SignedLeaf,
    Stored,
)
from bridge.model.identity import Serial
from bridge.model.records import Issuance, Lease
from bridge.ports.authority import CertificateAuthority, SigningOrder
from bridge.ports.registry import Entry, Registry, Transaction, UnknownAttempt
from bridge.ports.runtime import Clock, Randomness


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A certificate that is safe in the registry, ready to be answered."""

    issuance: Issuance
    lease: Lease | None
    created: bool
    """True if the certificate was issued for this request."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the operator configured about issuing."""

    rules: Rules
    lifetime: timedelta
    """Of a leaf."""
    sign_deadline: timedelta
    """How long an attempt stays open; longer than the CA client's total time-out."""
    tunnels: bool = True
    """Whether there is a VPN; without one a WireGuard key is not looked at, and no address is leased."""
    patience: timedelta = timedelta(seconds=10)
    """How long a repeated request waits for the attempt that is under way in this process."""


class Enrollment:
    """``POST /devices/{device_id}/enroll``, without the HTTP."""

    def __init__(
        self,
        registry: Registry,
        authority: CertificateAuthority,
        terms: Terms,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._registry = registry
        self._authority = authority
        self._terms = terms
        self._clock = clock
        self._randomness = randomness
        self._under_way: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[Enrolled]] = set()

    async def enroll(self, request: EnrollmentRequest, request_id: str | None = None) -> Enrolled:
        """Return the one certificate of the request's public key.

        :raises bridge.errors.Refused: the decision table turned the request down; nothing changed.
        :raises bridge.errors.Unavailable: nothing is wrong with the request; repeat it.
        """
        if not self._terms.tunnels and request.wg_key is not None:
            request = replace(request, wg_key=None)
        key = request.csr.spki.hex
        while True:
            outcome = await self._registry.write(lambda tx: self._decide(tx, request))
            if isinstance(outcome, BridgeError):
                raise outcome
            if isinstance(outcome, AnswerStored):
                return Enrolled(outcome.issuance, outcome.lease, created=False)
            if isinstance(outcome, AwaitAttempt):
                await self._await_attempt(key, outcome)
                continue
            return await self._carry_out(outcome, key, request_id)

    async def drain(self) -> None:
        """Wait until every attempt that is under way has ended."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _decide(
        self, tx: Transaction, request: EnrollmentRequest
    ) -> AnswerStored | AwaitAttempt | NewAttempt | BridgeError:
        # A refusal is a value here: raised inside a unit it would undo the batch that it shares a commit with.
        now = self._clock.now()
        try:
            decision = decide(request, tx.facts(request, now), self._terms.rules)
            if not isinstance(decision, Begin):
                return decision
            attempt = self._new_attempt(request, decision, now)
            tx.begin_attempt(attempt)
        except (Refused, PoolEmpty) as e:
            return e.with_traceback(None)
        return attempt

    def _new_attempt(self, request: EnrollmentRequest, decision: Begin, now: datetime) -> NewAttempt:
        return NewAttempt(
            request=request,
            kind=decision.kind,
            generation=decision.generation,
            proven=decision.proven,
            serial=Serial.from_random(self._randomness.octets(16)),
            deadline=now + self._terms.sign_deadline,
            now=now,
        )

    async def _await_attempt(self, key: str, attempt: AwaitAttempt) -> None:
        """Wait for the attempt if it runs in this process, else tell the caller to come back."""
        left = (attempt.deadline - self._clock.now()).total_seconds()
        done = self._under_way.get(key)
        busy = InProgress("this request is being worked on", retry_after=max(left, 1.0))
        if done is None:
            raise busy
        try:
            async with asyncio.timeout(min(left, self._terms.patience.total_seconds())):
                await done.wait()
        except TimeoutError as e:
            raise busy from e

    async def _carry_out(self, attempt: NewAttempt, key: str, request_id: str | None) -> Enrolled:
        # A task of its own: a device that hangs up must not leave a signed certificate unrecorded.
        done = self._under_way[key] = asyncio.Event()
        task = asyncio.create_task(self._sign_and_store(attempt, request_id))
        self._tasks.add(task)

        def finished(ended: asyncio.Task[Enrolled]) -> None:
            self._tasks.discard(ended)
            done.set()
            if self._under_way.get(key) is done:
                del self._under_way[key]
            if not ended.cancelled():
                ended.exception()  # seen, also where nobody waits for it any more

        task.add_done_callback(finished)
        return await asyncio.shield(task)

    async def _sign_and_store(self, attempt: NewAttempt, request_id: str | None) -> Enrolled:
        signed = await self._sign(attempt)
        stored = await self._registry.write(lambda tx: self._store(tx, attempt, signed, request_id))
        if isinstance(stored, Lost):
            raise InProgress("the attempt was overtaken; its certificate is being revoked", retry_after=1.0)
        return Enrolled(stored.issuance, stored.lease, created=True)

    async def _sign(self, attempt: NewAttempt) -> SignedLeaf:
        request = attempt.request
        order = SigningOrder(request.device, request.csr, attempt.serial, self._terms.lifetime)
        try:
            return await self._authority.sign(order)
        except CaUnreachable as e:
            if e.surely_not_sent:
                await self._registry.write(lambda tx: tx.forget_attempt(attempt.serial))
            raise
        except CaRefused:
            await self._registry.write(lambda tx: tx.refuse_attempt(attempt.serial))
            raise

    def _store(self, tx: Transaction, attempt: NewAttempt, signed: SignedLeaf, request_id: str | None) -> Stored | Lost:
        now = self._clock.now()
        try:
            stored = tx.store_certificate(attempt.serial, signed, now)
        except UnknownAttempt:
            # Abandoned while the CA signed, and forgotten: not before this serial stood on the CRL.
            stored = Lost(signed.serial)
        action = "certificate.lost" if isinstance(stored, Lost) else f"certificate.{attempt.kind}"
        detail = {
            "serial": str(signed.serial),
            "generation": attempt.generation,
            "spki": attempt.request.csr.spki.hex,
            "leaf": signed.leaf_sha256.hex,
            "proven": attempt.proven,
        }
        tx.audit(Entry(now, "device", action, attempt.request.device, detail, request_id))
        if isinstance(stored, Stored) and stored.window_used:
            used = {"serial": str(signed.serial), "generation": attempt.generation}
            tx.audit(Entry(now, "device", "window.used", attempt.request.device, used, request_id))
        return stored
