"""What happens in a victim's life, and what device and operator do about its death.

A scenario has three parts: what was before (no deaths there), the act (deaths before and after each of its effects),
and the repetition: device and operator come again, knowing nothing of how far the act got.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm

from bridge.enrollment.csr import parse_csr
from bridge.enrollment.proof import Proof
from bridge.enrollment.service import Enrolled, Enrollment
from bridge.errors import BridgeError, CaRefused, CaUnreachable, InProgress
from bridge.lifecycle.service import OrderRefused, WindowTerms
from bridge.model.facts import EnrollmentRequest, SignedLeaf
from bridge.model.identity import WireGuardKey
from bridge.model.records import System
from bridge.ports.authority import SigningOrder
from tests.crash.house import DEADLINE, House

Part = Callable[[House], Awaitable[None]]
Repeat = Callable[[House, "Seen"], Awaitable[None]]
_TRIES: Final = 4
FIRST, SECOND, THIRD = 0, 1, 2


@dataclass(slots=True)
class Seen:
    """What device and operator got for an answer when they came again."""

    answers: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    """Codes, in order."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One story, told once without a death, and once for each effect with a death before or after it."""

    before: Part
    act: Part
    repeat: Repeat
    generation: int = 1
    current_key: int | None = FIRST
    """Whose certificate is current in the end; ``None`` where the device is retired."""
    pending_key: int | None = None
    activations: int = 0
    """How many renewed certificates were put into use."""
    renews: bool = False
    """The device has a certificate before, and at each moment must hold one that opens the doors."""


async def request_of(house: House, number: int, proven_by: int | None = None) -> EnrollmentRequest:
    """Return the device's request with the keys of that number; a renewal is proven by an earlier key's leaf."""
    keys = house.plan.keys[number]
    csr = parse_csr(keys.csr_pem, house.device)
    if proven_by is None:
        return EnrollmentRequest(house.device, csr, WireGuardKey(keys.wg_key))
    return await house.renewal().prove(await proof_by(house, proven_by), EnrollmentRequest(house.device, csr))


async def proof_by(house: House, number: int) -> Proof:
    """Return a proof by the key of that number; its claims are the door's to read, and not looked at here."""
    key = load_pem_private_key(house.plan.keys[number].key_pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    spki = parse_csr(house.plan.keys[number].csr_pem, house.device).spki
    issuances = await house.store.read(lambda tx: tx.issuances(house.device))
    (leaf,) = [one.leaf_sha256 for one in issuances if one.spki == spki and one.leaf_sha256 is not None]
    return Proof(leaf, "ES256", b"claims", ECAlgorithm(ECAlgorithm.SHA256).sign(b"claims", key))


async def come_back(house: House, number: int, seen: Seen, *, proven_by: int | None = None) -> None:
    """Ask until there is an answer, waiting as long as one is told to; then ask once more."""
    enrollment = house.enrollment()
    for _ in range(_TRIES):
        try:
            seen.answers.append(_told(await enrollment.enroll(await request_of(house, number, proven_by))))
            break
        except InProgress as e:
            seen.refusals.append(e.code)
            house.clock.advance(e.retry_after)
    # In a process of its own, as far as this use case can know: nothing is remembered but in the registry.
    seen.answers.append(_told(await house.enrollment().enroll(await request_of(house, number, proven_by))))


async def activate_twice(house: House, number: int, seen: Seen) -> None:
    """Put the pending certificate into use, and once more, as after a lost answer."""
    for _ in range(2):
        done = await house.renewal().activate(house.device, await proof_by(house, number))
        seen.answers.append(_told(Enrolled(done.issuance, done.lease, created=done.changed)))


async def be_refused(house: House, number: int, seen: Seen) -> None:
    """Ask and note by which word one is turned down."""
    try:
        seen.answers.append(_told(await house.enrollment().enroll(await request_of(house, number))))
    except BridgeError as e:
        seen.refusals.append(e.code)


def _told(enrolled: Enrolled) -> dict[str, Any]:
    issuance, lease = enrolled.issuance, enrolled.lease
    return {
        "created": enrolled.created,
        "serial": str(issuance.serial),
        "leaf": str(issuance.leaf_sha256),
        "spki": issuance.spki.hex,
        "generation": issuance.generation,
        "state": issuance.state.value,
        "address": None if lease is None else str(lease.address),
    }


async def connect_device(house: House) -> None:
    """Let the device connect, if ThingsBoard would admit it, and the webhook's hint be taken."""
    found = await house.raw_platform.find(house.device)
    if found is None or found.credential is None:
        return
    await house.raw_platform.write_attributes(found, {"lastConnectTime": time.time_ns() // 1_000_000})
    await house.registry.write(lambda tx: tx.hint((house.device,), house.clock.now()))


# -- what was before ---------------------------------------------------------------------------------------------
async def nothing(_house: House) -> None:
    """A new device."""


async def in_service(house: House) -> None:
    """An active device, everywhere in agreement, that was seen connected."""
    await house.enrollment().enroll(await request_of(house, FIRST))
    await house.reconcile()
    await connect_device(house)
    await house.reconcile()


async def renewed(house: House) -> None:
    """A device in service that holds a second certificate, not yet in use."""
    await in_service(house)
    await renew(house)


# -- the acts ----------------------------------------------------------------------------------------------------
async def enroll_first(house: House) -> None:
    await house.enrollment().enroll(await request_of(house, FIRST))


async def enroll_and_link(house: House) -> None:
    await in_service(house)


async def reenroll(house: House) -> None:
    await house.lifecycle().open_window(house.device, WindowTerms())
    await house.enrollment().enroll(await request_of(house, SECOND))
    await house.reconcile()


async def decommission(house: House) -> None:
    await house.lifecycle().decommission(house.device, "crash test")
    await house.reconcile()


async def renew(house: House) -> None:
    await house.enrollment().enroll(await request_of(house, SECOND, FIRST))
    await house.reconcile()


async def activate(house: House) -> None:
    await house.renewal().activate(house.device, await proof_by(house, SECOND))
    await house.reconcile()


async def renew_and_activate(house: House) -> None:
    await renew(house)
    await activate(house)


async def activate_without_platform(house: House) -> None:
    await house.renewal().activate(house.device, await proof_by(house, SECOND))
    await house.reconcile(System.CA, System.HAWKBIT, System.WIREGUARD)
    await house.reconcile()


async def activate_and_decommission(house: House) -> None:
    await house.renewal().activate(house.device, await proof_by(house, SECOND))
    await decommission(house)


async def reenroll_over_renewal(house: House) -> None:
    await house.lifecycle().open_window(house.device, WindowTerms())
    await house.enrollment().enroll(await request_of(house, THIRD))
    await house.reconcile()


async def _fails_then_enrolls(house: House, enrollment: Enrollment, error: type[BridgeError]) -> None:
    try:
        await enrollment.enroll(await request_of(house, FIRST))
    except error as e:
        if isinstance(e, InProgress):
            house.clock.advance(e.retry_after)
    else:
        raise AssertionError(f"the scenario expects {error.__name__}")
    await house.enrollment().enroll(await request_of(house, FIRST))
    await house.reconcile(System.CA)


class Between:
    """A CA to which something happens before or after it signs for the first time."""

    def __init__(self, house: House, before: Part = nothing, after: Part = nothing) -> None:
        self._house, self._before, self._after = house, before, after

    async def sign(self, order: SigningOrder) -> SignedLeaf:
        await self._before(self._house)
        leaf: SignedLeaf = await self._house.authority.sign(order)
        await self._after(self._house)
        return leaf


async def _too_late(house: House) -> None:
    house.clock.advance(DEADLINE.total_seconds() + 1)


async def _swept(house: House) -> None:
    await _too_late(house)
    await house.reconcile(System.CA)


async def _refuses(_house: House) -> None:
    raise CaRefused("the provisioner was renamed")


async def _unreachable(_house: House) -> None:
    raise CaUnreachable("connection refused", surely_not_sent=True)


async def _falls_silent(_house: House) -> None:
    raise CaUnreachable("no answer")


def with_ca(error: type[BridgeError], *, before: Part = nothing, after: Part = nothing) -> Part:
    """Return the act of a first try that fails so, and a second one."""

    async def act(house: House) -> None:
        ca: Any = Between(house, before, after)
        await _fails_then_enrolls(house, house.enrollment(ca), error)

    return act


async def falls_silent(house: House) -> None:
    ca: Any = Between(house, after=_falls_silent)
    try:
        await house.enrollment(ca).enroll(await request_of(house, FIRST))
    except CaUnreachable:
        await _too_late(house)
    await house.enrollment().enroll(await request_of(house, FIRST))
    await house.reconcile(System.CA)


async def abandon(house: House) -> None:
    ca: Any = Between(house, after=_falls_silent)
    try:
        await house.enrollment(ca).enroll(await request_of(house, FIRST))
    except CaUnreachable:
        await house.lifecycle().abandon(house.device)
    await house.reconcile(System.CA)


async def _forgotten(house: House) -> None:
    await house.lifecycle().abandon(house.device)
    await house.reconcile(System.CA)
    await house.registry.write(lambda tx: tx.sweep_attempts(house.clock.now(), 100))
    assert await house.store.read(lambda tx: tx.device(house.device)) is None


async def abandon_under_way(house: House) -> None:
    ca: Any = Between(house, before=_forgotten)
    try:
        await house.enrollment(ca).enroll(await request_of(house, FIRST))
    except InProgress:
        return
    raise AssertionError("the leaf of a forgotten attempt was delivered")


# -- device and operator come again ------------------------------------------------------------------------------
async def first_again(house: House, seen: Seen) -> None:
    await come_back(house, FIRST, seen)
    await _into_service(house)


async def reenroll_again(house: House, seen: Seen) -> None:
    view = await house.lifecycle().show(house.device)
    if view.device.generation == 1 and view.window is None:
        await house.lifecycle().open_window(house.device, WindowTerms())
    await come_back(house, SECOND, seen)
    await _into_service(house)
    await be_refused(house, FIRST, seen)


async def renew_again(house: House, seen: Seen) -> None:
    await come_back(house, SECOND, seen, proven_by=FIRST)
    await _into_service(house)


async def activate_again(house: House, seen: Seen) -> None:
    await activate_twice(house, SECOND, seen)
    await _into_service(house)
    await be_refused(house, FIRST, seen)


async def renew_and_activate_again(house: House, seen: Seen) -> None:
    # Its request is the same whether the certificate was signed, stored, or activated already.
    renewal = Seen()
    await come_back(house, SECOND, renewal, proven_by=FIRST)
    seen.refusals += renewal.refusals
    await activate_again(house, seen)


async def activate_and_decommission_again(house: House, seen: Seen) -> None:
    await decommission_again(house, seen)
    try:
        await house.renewal().activate(house.device, await proof_by(house, SECOND))
    except BridgeError as e:
        seen.refusals.append(e.code)


async def reenroll_over_renewal_again(house: House, seen: Seen) -> None:
    view = await house.lifecycle().show(house.device)
    if view.device.generation == 1 and view.window is None:
        await house.lifecycle().open_window(house.device, WindowTerms())
    await come_back(house, THIRD, seen)
    await _into_service(house)
    try:
        await house.renewal().activate(house.device, await proof_by(house, SECOND))
    except BridgeError as e:
        assert e.code == "superseded"  # noqa: PT017 - the victim has no pytest
    await be_refused(house, SECOND, seen)
    await be_refused(house, FIRST, seen)


async def decommission_again(house: House, seen: Seen) -> None:
    await house.lifecycle().decommission(house.device, "crash test")
    await house.reconcile()
    for number in (FIRST, SECOND):
        await be_refused(house, number, seen)


async def abandon_again(house: House, seen: Seen) -> None:
    try:
        await house.lifecycle().abandon(house.device)
    except OrderRefused:
        seen.refusals.append("unknown")
    await house.reconcile()
    await first_again(house, seen)


async def _into_service(house: House) -> None:
    await house.reconcile()
    await connect_device(house)
    await house.reconcile()


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "first enrollment": Scenario(nothing, enroll_first, first_again),
    "enrollment with links": Scenario(nothing, enroll_and_link, first_again),
    "re-enrollment": Scenario(in_service, reenroll, reenroll_again, generation=2, current_key=SECOND),
    "renewal": Scenario(in_service, renew, renew_again, pending_key=SECOND, renews=True),
    "activation": Scenario(renewed, activate, activate_again, current_key=SECOND, activations=1, renews=True),
    "renewal and activation": Scenario(
        in_service, renew_and_activate, renew_and_activate_again, current_key=SECOND, activations=1, renews=True
    ),
    "activation while ThingsBoard is down": Scenario(
        renewed, activate_without_platform, activate_again, current_key=SECOND, activations=1, renews=True
    ),
    "activation and decommission": Scenario(
        renewed, activate_and_decommission, activate_and_decommission_again, current_key=None, renews=True
    ),
    "re-enrollment over a renewal": Scenario(
        renewed, reenroll_over_renewal, reenroll_over_renewal_again, generation=2, current_key=THIRD
    ),
    "decommission": Scenario(in_service, decommission, decommission_again, current_key=None),
    "CA answers after the deadline": Scenario(nothing, with_ca(InProgress, after=_too_late), first_again),
    "CA answers after the sweep": Scenario(nothing, with_ca(InProgress, after=_swept), first_again),
    "CA signs after the revocation": Scenario(nothing, with_ca(InProgress, before=_swept), first_again),
    "CA refuses": Scenario(nothing, with_ca(CaRefused, before=_refuses), first_again),
    "CA is unreachable": Scenario(nothing, with_ca(CaUnreachable, before=_unreachable), first_again),
    "CA falls silent": Scenario(nothing, falls_silent, first_again),
    "abandoned attempt": Scenario(nothing, abandon, abandon_again),
    "abandoned while the CA signs": Scenario(nothing, abandon_under_way, abandon_again),
}
