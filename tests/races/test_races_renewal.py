"""Renewals, activations, operators and re-enrollments at the same moment: one certificate is current, or none."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from bridge.lifecycle.service import WindowTerms
from bridge.model.identity import DeviceId
from bridge.model.records import Issuance, IssuanceState
from tests.races.conftest import Bridge
from tests.races.contenders import Activation, Answer, Contender, Renewal
from thingsboard.models import Leaf

pytestmark = pytest.mark.asyncio(loop_scope="module")

Count = Callable[[str, int], None]
IDS = 12
CREATED, STORED, REFUSED, CONFLICT = 201, 200, 403, 409
CURRENT, PENDING, REVOKED = IssuanceState.CURRENT, IssuanceState.PENDING, IssuanceState.REVOKED
SECONDS = 20.0


@dataclass(frozen=True)
class Owner:
    """A device with a certificate in use."""

    bridge: Bridge
    held: Contender
    leaf: str

    def renewal(self) -> Renewal:
        """Return a renewal with a key that nobody has seen."""
        return Renewal(self.held, self.leaf, self.bridge.root_sha256, Contender(self.held.name, wg_key=None))

    def activation(self, renewal: Renewal, answer: Answer) -> Activation:
        """Return the activation of what was answered."""
        return Activation(renewal.wanted, answer.content["cert"], self.bridge.root_sha256)

    async def renewed(self) -> Activation:
        """Get a pending certificate."""
        renewal = self.renewal()
        answer = await self.bridge.crowd.ask(renewal)
        assert (answer.status, answer.content["state"]) == (CREATED, "pending")
        return self.activation(renewal, answer)


async def owners(bridge: Bridge) -> list[Owner]:
    devices = [Contender(bridge.name("ren")) for _ in range(IDS)]
    answers = await bridge.crowd.rush(devices)
    return [Owner(bridge, one, answer.content["cert"]) for one, answer in zip(devices, answers, strict=True)]


async def settled(bridge: Bridge, name: str, *, pending: int = 0, retired: bool = False) -> list[Issuance]:
    """Wait until all that is not live is on the CRL; the platform admits the current leaf, and no other."""
    end = asyncio.get_running_loop().time() + SECONDS
    while True:
        issuances = list(await bridge.issuances(name))
        record = bridge.stack.thingsboard.state.by_name(name)
        states = Counter(one.state for one in issuances)
        current = [one for one in issuances if one.state is CURRENT]
        admitted = [Leaf.from_pem(one.leaf or "").credentials_id for one in current]
        if (
            states[REVOKED] + states[CURRENT] + states[PENDING] == len(issuances)
            and (states[CURRENT], states[PENDING]) == (int(not retired), pending)
            and ([] if record is None else [record.credentials_id]) == admitted
        ):
            break
        assert asyncio.get_running_loop().time() < end, (name, states)
        await asyncio.sleep(0.05)
    await bridge.certificates_of(name)
    return issuances


async def test_two_renewals_with_different_keys(bridge: Bridge, count: Count) -> None:
    devices = await owners(bridge)
    rush = [one.renewal() for one in devices for _ in range(2)]
    answers = await bridge.crowd.rush(rush)
    both = 0
    for number, device in enumerate(devices):
        pair = list(zip(rush, answers, strict=True))[2 * number : 2 * number + 2]
        told = [(one.status, one.code) for _, one in pair]
        assert min(told) == (CREATED, "")
        assert max(told) in {(CREATED, ""), (CONFLICT, "in_progress")}
        both += told == [(CREATED, "")] * 2
        await settled(bridge, device.held.name, pending=1)
        # One of them holds the certificate that can be put into use, whatever both were told.
        activations = [device.activation(renewal, one) for renewal, one in pair if one.status == CREATED]
        ended = await bridge.crowd.rush(activations)
        assert Counter(one.status for one in ended)[STORED] == 1
        assert {one.code for one in ended if one.status != STORED} <= {"superseded"}
        assert len(await settled(bridge, device.held.name)) == 2 + (len(activations) - 1)
    count("races: two renewals at once", IDS)
    count("races: two renewals, one after the other in the same moment", both)


async def test_one_activation_sixteen_times(bridge: Bridge, count: Count) -> None:
    device = (await owners(bridge))[0]
    activation = await device.renewed()
    before = (await bridge.operator.show(DeviceId(device.held.name))).device.epoch
    answers = await bridge.crowd.rush([activation] * 16)
    assert Counter(one.status for one in answers) == {STORED: 16}
    assert {(one.content["cert"], one.content["state"]) for one in answers} == {(activation.leaf, "current")}
    assert (await bridge.operator.show(DeviceId(device.held.name))).device.epoch == before + 1
    assert [one.state for one in await settled(bridge, device.held.name)] == [REVOKED, CURRENT]
    count("races: one activation at once", 16)


async def test_activation_and_decommission(bridge: Bridge, count: Count) -> None:
    devices = await owners(bridge)
    activations = [await one.renewed() for one in devices]
    orders = [bridge.operator.decommission(DeviceId(one.held.name), None) for one in devices]
    answers, *_ = await asyncio.gather(bridge.crowd.rush(activations), *orders)
    assert {(one.status, one.code) for one in answers} <= {(STORED, ""), (REFUSED, "retired")}
    for device in devices:
        assert {one.state for one in await settled(bridge, device.held.name, retired=True)} == {REVOKED}
    again = await bridge.crowd.rush(activations)
    assert {(one.status, one.code) for one in again} == {(REFUSED, "retired")}
    count("races: activation and decommission", IDS)


async def test_renewal_and_decommission(bridge: Bridge, count: Count) -> None:
    devices = await owners(bridge)
    orders = [bridge.operator.decommission(DeviceId(one.held.name), None) for one in devices]
    answers, *_ = await asyncio.gather(bridge.crowd.rush([one.renewal() for one in devices]), *orders)
    # Overtaken while the CA signed: its certificate is revoked, and the device is told to ask again.
    allowed = {(CREATED, ""), (REFUSED, "retired"), (503, "in_progress")}
    assert {(one.status, one.code) for one in answers} <= allowed
    for device in devices:
        assert {one.state for one in await settled(bridge, device.held.name, retired=True)} == {REVOKED}
    count("races: renewal and decommission", IDS)


async def test_renewal_and_reenrollment(bridge: Bridge, count: Count) -> None:
    devices = await owners(bridge)
    for one in devices:
        await bridge.operator.open_window(DeviceId(one.held.name), WindowTerms())
    rush = [ask for one in devices for ask in (one.renewal(), Contender(one.held.name))]
    answers = await bridge.crowd.rush(rush)
    for device, renewed, anew in zip(devices, answers[::2], answers[1::2], strict=True):
        assert (anew.status, anew.code) in {(CREATED, ""), (CONFLICT, "in_progress")}
        late = {(CONFLICT, "in_progress"), (CONFLICT, "identity_exists"), (503, "in_progress")}
        assert (renewed.status, renewed.code) in {(CREATED, ""), *late}
        assert CREATED in {renewed.status, anew.status}
        replaced = anew.status == CREATED
        issuances = await settled(bridge, device.held.name, pending=int(not replaced))
        (current,) = [one for one in issuances if one.state is CURRENT]
        assert current.generation == (2 if replaced else 1)
    count("races: renewal and re-enrollment", IDS)


async def test_activation_and_reenrollment(bridge: Bridge, count: Count) -> None:
    devices = await owners(bridge)
    activations = [await one.renewed() for one in devices]
    for one in devices:
        await bridge.operator.open_window(DeviceId(one.held.name), WindowTerms())
    rush = [ask for one, held in zip(devices, activations, strict=True) for ask in (held, Contender(one.held.name))]
    answers = await bridge.crowd.rush(rush)
    for device, activated, anew in zip(devices, answers[::2], answers[1::2], strict=True):
        # An activation closes no re-enrollment's attempt, so that one always ends with its certificate.
        assert anew.status == CREATED
        late = {(CONFLICT, "in_progress"), (CONFLICT, "superseded")}
        assert (activated.status, activated.code) in {(STORED, ""), *late}
        (current,) = [one for one in await settled(bridge, device.held.name) if one.state is CURRENT]
        assert current.generation == 2
    count("races: activation and re-enrollment", IDS)
