"""A device's life on the embedded stack: every act is in the trail once, sealed, with its actor and request id."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bridge.adapters.runtime import SystemClock
from bridge.audit.trail import Against, verify_registry
from bridge.lifecycle.service import Lifecycle, OrderRefused, WindowTerms
from bridge.lifecycle.view import ShownState
from bridge.model.identity import DeviceId, Fingerprint
from bridge.model.records import DeviceState, IssuanceState
from bridge.ports.trail import Wanted
from tests.races.contenders import Activation, Answer, Contender, Renewal

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECONDS = 60.0
ACTS = Counter(
    {
        "device.registered": 1,
        "certificate.first": 1,
        "certificate.renew": 1,
        "certificate.activated": 1,
        "window.opened": 1,
        "window.used": 1,
        "certificate.reenroll": 1,
        "device.decommissioned": 1,
        "link.cut": 3,
        "device.reinstated": 1,
    }
)


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SECONDS):
        done = await look()
        while not done:
            await asyncio.sleep(0.01)
            done = await look()


def certificate(answer: Answer) -> str:
    assert answer.status == 201, answer
    return str(answer.content["cert"])


async def test_every_act_of_a_life_has_its_entry(bridge: Any) -> None:
    device = Contender(bridge.name("life"))
    named = DeviceId(device.name)
    operator = Lifecycle(bridge.store, SystemClock(), "operator:ann", request_id="cli-1")

    async def revoked(number: int) -> bool:
        states = [one.state for one in await bridge.issuances(device.name)]
        return states.count(IssuanceState.REVOKED) == number

    await operator.register(named)
    leaf = certificate(await bridge.crowd.ask(device))
    renewal = Renewal(device, leaf, bridge.root_sha256, Contender(device.name, wg_key=None))
    renewed = certificate(await bridge.crowd.ask(renewal))
    activated = await bridge.crowd.ask(Activation(renewal.wanted, renewed, bridge.root_sha256))
    assert activated.status == 200
    await until(lambda: revoked(1))
    await operator.open_window(named, WindowTerms())
    certificate(await bridge.crowd.ask(Contender(device.name)))
    await until(lambda: revoked(2))
    await operator.decommission(named, "stolen")

    async def retired() -> bool:
        view = await operator.show(named)
        return view.state(SystemClock().now()) is ShownState.RETIRED

    await until(retired)
    await operator.reinstate(named)
    view = await operator.show(named)
    assert view.device.state is DeviceState.REGISTERED

    lines = await bridge.store.read(lambda tx: tx.entries(Wanted(named), 1000))
    found = Counter(line["action"] for line in lines)
    assert found.pop("certificate.revoked") in {2, 3}
    assert found == ACTS
    by_actor = {line["action"]: (line["actor"], line["request_id"]) for line in lines}
    for action, (actor, request) in by_actor.items():
        if action in {"certificate.revoked", "link.cut"}:
            assert (actor, request) == ("reconciler", None)
        elif action.startswith(("device.", "window.opened")):
            assert (actor, request) == ("operator:ann", "cli-1")
        else:
            assert actor == "device"
            assert request

    async def sealed() -> bool:
        return bool((await verify_registry(bridge.store, Against())).unsealed == 0)

    await until(sealed)
    assert (await verify_registry(bridge.store, Against())).good


async def test_what_an_operator_does_to_no_certificate_has_its_entry_too(bridge: Any) -> None:
    named, digest = DeviceId(bridge.name("left")), Fingerprint.of(b"another issuing CA")
    operator = Lifecycle(bridge.store, SystemClock(), "operator:ann", request_id="cli-2")
    await operator.register(named)
    await operator.abandon(named)
    with pytest.raises(OrderRefused):
        await operator.abandon(named)
    await operator.trust_issuer(digest)
    lines = await bridge.store.read(lambda tx: tx.entries(Wanted(), 1000))
    mine = [(line["action"], line["device"]) for line in reversed(lines) if line["request_id"] == "cli-2"]
    assert mine == [("device.registered", named.value), ("device.abandoned", named.value), ("ca.trusted", None)]
