"""A renewal against a hostile bridge: the identity in use is untouched, and the next key is still good for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from enroll.config import TlsTrust
from enroll.errors import AnswerRejectedError, ForeignAnswerError, RefusedError, TryAgainError, UnreachableError
from enroll.names import Fingerprint
from tests.unit.enroll.hostility import (
    ADDRESSES,
    ANSWERS,
    CHAINS,
    CONTROLS,
    FIELDS,
    LEAVES,
    TEXTS,
    Make,
    beside,
    changed,
    neighbour,
    picture,
)

GROUPS = {"leaf": LEAVES, "chain": CHAINS, "fields": FIELDS, "address": ADDRESSES}

PORTALS = {
    "a page": (b"<html>", 200, "a web page"),
    "a redirect": (b"", 302, "redirect"),
    "a login": (b"<html>", 511, "wants a login"),
    "truncated": (b'{"device_id":"dev-1","ge', 200, "cut short"),
    "too large": (b" " * (1024 * 1024 + 1), 200, "larger than"),
}


@pytest.fixture
def renewing(device: Any, problem: Any) -> Any:
    """An enrolled device with the next key on disk, whose renewal the bridge did not take yet."""
    device.run()
    device.bridge.script = [lambda _: problem(503, "ca_unreachable")]
    with pytest.raises(RefusedError):
        device.run(renew_now=True)
    assert {path.name for path in (device.folder / "next").iterdir()} == {"device.key", "device.csr"}
    return device


@pytest.fixture
def activating(renewing: Any, problem: Any) -> Any:
    """The same with a whole new pair that the bridge did not confirm yet."""
    right = renewing.bridge.activate
    renewing.bridge.activate = lambda _: problem(503, "store_unavailable")
    with pytest.raises(RefusedError):
        renewing.run(renew_now=True)
    renewing.bridge.activate = right
    assert "enrolled" in {path.name for path in (renewing.folder / "next").iterdir()}
    return renewing


def held_on(device: Any, kind: type[TryAgainError], words: str, **settings: Any) -> None:
    """See the answer refused in these words, the folder as it was, and the doors of the old identity tried."""
    before, told = picture(device.folder), len(device.events)
    with pytest.raises(kind, match=words):
        device.run(renew_now=True, **settings)
    assert picture(device.folder) == before
    names = [event.name for event in device.events[told:]]
    assert names.count("already_enrolled") == 1
    assert {"postponed", "mqtt", "tunnel"} <= set(names)


def finishes(device: Any) -> None:
    """See an honest bridge end it, with the key that was there."""
    key = (device.folder / "next" / "device.key").read_bytes()
    device.run(renew_now=True)
    assert "renewed" in device.names()
    assert device.read("device.key") == key
    assert not (device.folder / "next" / "device.key").exists()


@pytest.mark.parametrize("group", GROUPS)
def test_a_renewal_that_does_not_hold_is_refused_whole(
    renewing: Any, pki: Any, reply: Any, group: str, count: Callable[[str, int], None]
) -> None:
    right = renewing.bridge.enroll
    for make, words in GROUPS[group].values():
        renewing.bridge.enroll = lambda request, make=make: reply(make(renewing.bridge, pki, request), 201)
        held_on(renewing, AnswerRejectedError, words)
    renewing.bridge.enroll = right
    finishes(renewing)
    count("hostile answers to a renewal", len(GROUPS[group]))


def for_activation(device: Any, make: Make, pki: Any) -> Any:
    """The answer to the renewal, as if it were one to the activation."""
    renewal = next(post for post in reversed(device.bridge.posts) if "csr_pem" in post)
    answer = make(device.bridge, pki, renewal)
    return answer | {"state": "current"} if isinstance(answer, dict) and answer["state"] == "pending" else answer


@pytest.mark.parametrize("group", GROUPS)
def test_an_activation_that_does_not_hold_is_refused_whole(
    activating: Any, pki: Any, reply: Any, group: str, count: Callable[[str, int], None]
) -> None:
    right = activating.bridge.activate
    for make, words in GROUPS[group].values():
        answer = for_activation(activating, make, pki)
        activating.bridge.activate = lambda _, answer=answer: reply(answer)
        held_on(activating, AnswerRejectedError, words)
    still_pending = for_activation(activating, changed(), pki) | {"state": "pending"}
    activating.bridge.activate = lambda _: reply(still_pending)
    held_on(activating, AnswerRejectedError, "pending, which is no answer to what was asked")
    activating.bridge.activate = right
    finishes(activating)
    count("hostile answers to an activation", len(GROUPS[group]) + 1)


@pytest.mark.parametrize("field", TEXTS)
def test_no_control_character_comes_through_a_renewals_text(renewing: Any, pki: Any, reply: Any, field: str) -> None:
    for bad in CONTROLS:
        make = TEXTS[field](bad)
        renewing.bridge.enroll = lambda request, make=make: reply(make(renewing.bridge, pki, request), 201)
        held_on(renewing, AnswerRejectedError, re.escape(field.partition(",")[0]))


@pytest.mark.parametrize("name", PORTALS)
def test_a_captive_portal_during_a_renewal_costs_nothing(activating: Any, reply: Any, name: str) -> None:
    body, status, words = PORTALS[name]
    right = activating.bridge.activate
    activating.bridge.activate = lambda _: reply(body, status)
    held_on(activating, ForeignAnswerError, words)
    activating.bridge.activate = right
    finishes(activating)


def test_another_tenants_renewal_is_refused_with_the_second_pin(renewing: Any, pki: Any, reply: Any) -> None:
    right = renewing.bridge.enroll
    renewing.bridge.enroll = lambda r: reply(beside(neighbour)(renewing.bridge, pki, r))
    held_on(
        renewing,
        AnswerRejectedError,
        "pinned issuing CA",
        issuer_pins=(Fingerprint(pki.digest(pki.sub.certificate)),),
    )
    renewing.bridge.enroll = right
    finishes(renewing)


@pytest.mark.parametrize("name", [*LEAVES, "not a JSON object", "a renewal before all"])
def test_a_stored_answer_that_does_not_hold_changes_nothing(device: Any, pki: Any, reply: Any, name: str) -> None:
    """A device without a clock asks again at each start; what it holds stays."""
    device.run()
    device.clock.belief = pki.now.replace(year=1970)
    make, words = ANSWERS[name]
    device.bridge.enroll = lambda request: reply(make(device.bridge, pki, request))
    before = picture(device.folder)
    device.run()
    assert picture(device.folder) == before
    why = device.event("postponed")["why"]
    assert re.search(words, why) or "does not hold against its own certificates" in why


# -- ENROLL_TLS_TRUST=system -----------------------------------------------------------------------------------------


@pytest.fixture
def public(device: Any, start_bridge: Any, pki: Any, tmp_path: Any, monkeypatch: Any) -> Any:
    """The device's bridge behind a certificate that the system trusts, and the pinned root does not know."""
    authority = pki.new_root("Public CA")
    file = tmp_path / "system.pem"
    file.write_text(pki.pem(authority.certificate))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    device.bridge = start_bridge(pki.server_context(tmp_path, issuer=authority))
    device.settings |= {"bridge": type(device.settings["bridge"]).parse(device.bridge.url)}
    device.settings["tls_trust"] = TlsTrust.SYSTEM
    return device


def test_the_systems_trust_is_for_the_connection_alone(public: Any, pki: Any, reply: Any, problem: Any) -> None:
    """What is answered is held to the pinned root all the same: at enrollment, renewal and activation."""
    names = ("another root", "self-signed issuer", "another key's certificate", "expired", "serverAuth", "wrong order")
    bridge = public.bridge
    right, activate = bridge.enroll, bridge.activate
    bridge.script = [lambda _: problem(403, "not_admitted")]
    with pytest.raises(RefusedError):
        public.run(budget=1.0)
    before = picture(public.folder)
    for name in names:
        make, words = ANSWERS[name]
        bridge.enroll = lambda request, make=make: reply(make(bridge, pki, request), 201)
        with pytest.raises(AnswerRejectedError, match=words):
            public.run(budget=1.0)
        assert picture(public.folder) == before
    bridge.enroll = right
    public.run()
    bridge.script = [lambda _: problem(503, "ca_unreachable")]
    with pytest.raises(RefusedError):
        public.run(renew_now=True)
    for name in names:
        make, words = ANSWERS[name]
        bridge.enroll = lambda request, make=make: reply(make(bridge, pki, request), 201)
        held_on(public, AnswerRejectedError, words)
    bridge.enroll = right
    bridge.activate = lambda _: problem(503, "store_unavailable")
    with pytest.raises(RefusedError):
        public.run(renew_now=True)
    for name in names:
        answer = for_activation(public, ANSWERS[name][0], pki)
        bridge.activate = lambda _, answer=answer: reply(answer)
        held_on(public, AnswerRejectedError, ANSWERS[name][1])
    bridge.activate = activate
    finishes(public)


def test_a_root_that_is_not_pinned_is_refused_also_over_a_trusted_connection(public: Any, pki: Any) -> None:
    with pytest.raises(TryAgainError, match="nothing was stored") as mismatch:
        public.run(root_pins=(Fingerprint("ab" * 32),))
    assert pki.sha256 in str(mismatch.value)
    assert public.files() == {"device.key", "device.csr", "wg.key"}


def test_a_server_that_neither_the_system_nor_the_pin_knows_is_refused(
    public: Any, start_bridge: Any, pki: Any, tmp_path: Any
) -> None:
    other = start_bridge(pki.server_context(tmp_path, issuer=pki.new_root("Public CA")))
    with pytest.raises(UnreachableError, match="its certificate does not hold"):
        public.run(budget=1.0, bridge=type(public.settings["bridge"]).parse(other.url))
    assert other.requests == []
