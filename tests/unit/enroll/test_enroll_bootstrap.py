"""From fingerprints to the anchor: what is fetched, what is passed over, what ends the run."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from enroll import bootstrap
from enroll.certificates import pem, sha256, validity
from enroll.clock import Timekeeper
from enroll.config import Settings, TlsTrust
from enroll.errors import ForeignAnswerError, RefusedError, RootMismatchError, UnreachableError
from enroll.events import Event
from enroll.names import BridgeUrl, DeviceId, Fingerprint
from enroll.transport import Heard
from enroll.trust import Anchor
from enroll.wire import Code

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


def pin(authority: Any) -> Fingerprint:
    return sha256(authority.certificate)


def anchor(*roots: Any, issuers: Sequence[Any] = ()) -> Anchor:
    return Anchor(tuple(certificates_of(*roots)), tuple(certificates_of(*issuers)))


def certificates_of(*authorities: Any) -> list[x509.Certificate]:
    return [authority.certificate for authority in authorities]


@dataclass
class StoppedClock:
    shows: datetime = NOW

    def now(self) -> datetime:
        return self.shows

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


class Bridge:
    """What ``Network`` would get from a bridge that serves these certificates; it keeps the calls."""

    def __init__(self, roots: Mapping[Fingerprint, x509.Certificate | Exception], crts: Sequence[bytes] = ()) -> None:
        self.roots = roots
        self.crts = list(crts)
        self.calls: list[str] = []

    def fetch_unverified_root(self, base: str, pin: Fingerprint, seconds: float) -> bytes:
        return self._root("unverified", pin)

    def fetch_root(self, base: str, pin: Fingerprint, context: ssl.SSLContext, seconds: float) -> bytes:
        assert context.verify_mode is ssl.CERT_REQUIRED
        return self._root("verified", pin)

    def _root(self, how: str, pin: Fingerprint) -> bytes:
        self.calls.append(f"{how} {pin.value[:4]}")
        found = self.roots.get(pin, RefusedError(Code.NOT_FOUND, "no such root"))
        if isinstance(found, Exception):
            raise found
        return pem([found])

    def fetch_intermediates(self, base: str, context: ssl.SSLContext, seconds: float) -> list[bytes]:
        self.calls.append("intermediates")
        return self.crts

    def enroll(self, *_: Any) -> Heard:
        raise AssertionError

    activate = enroll


@dataclass
class Run:
    network: Bridge
    pins: tuple[Fingerprint, ...]
    issuer_pins: tuple[Fingerprint, ...] = ()
    tls_trust: TlsTrust = TlsTrust.PINNED
    stored: Sequence[x509.Certificate] = ()
    again: bool = False
    keeper: Timekeeper = field(default_factory=lambda: Timekeeper(StoppedClock(), NOW - 90 * DAY))
    events: list[Event] = field(default_factory=list)

    def __call__(self) -> Anchor:
        settings = Settings(
            bridge=BridgeUrl.parse("https://bridge.example"),
            device_id=DeviceId("dev-1"),
            folder=Path("/nowhere"),
            root_pins=self.pins,
            issuer_pins=self.issuer_pins,
            tls_trust=self.tls_trust,
        )
        return bootstrap.establish(
            self.network, settings, self.stored, self.keeper, lambda: 5.0, self.events.append, again=self.again
        )


def serving(*roots: Any) -> dict[Fingerprint, x509.Certificate | Exception]:
    return {pin(root): root.certificate for root in roots}


def test_the_root_is_fetched_unverified_and_compared(pki: Any) -> None:
    run = Run(Bridge(serving(pki.root)), (pin(pki.root),))
    assert run() == anchor(pki.root)
    assert run.network.calls == [f"unverified {pin(pki.root).value[:4]}"]
    assert [event.fields["source"] for event in run.events] == ["bridge"]


def test_a_stored_root_asks_nobody(pki: Any) -> None:
    other = pki.new_root("Not Pinned")
    run = Run(Bridge({}), (pin(pki.root),), stored=certificates_of(other, pki.sub, pki.root))
    assert run() == anchor(pki.root)
    assert run.network.calls == []
    assert [event.fields["source"] for event in run.events] == ["disk"]


def test_root_and_issuer_tell_the_keeper_of_the_time(pki: Any) -> None:
    run = Run(Bridge(serving(pki.root)), (pin(pki.root),))
    run()
    assert run.keeper.belief().floor == validity(pki.root.certificate).begin
    young = pki.ica.sub("Young", begin=NOW - timedelta(minutes=1))
    texts = [pem(certificates_of(young)), pem(certificates_of(pki.ica))]
    pinned = Run(Bridge(serving(pki.root), texts), (pin(pki.root),), (pin(young),))
    assert pinned() == anchor(pki.root, issuers=[young])
    assert pinned.keeper.belief().floor == NOW - timedelta(minutes=1)
    assert [event.name for event in pinned.events] == ["root", "issuer"]


def test_a_clock_beyond_the_root_is_not_believed_for_the_next_connection(pki: Any) -> None:
    far = Timekeeper(StoppedClock(datetime(2106, 2, 8, tzinfo=UTC)), NOW - 90 * DAY)
    run = Run(Bridge(serving(pki.root)), (pin(pki.root),), keeper=far)
    assert far.belief().trusted
    assert run() == anchor(pki.root)
    assert not far.belief().trusted
    assert bootstrap.connection(run(), TlsTrust.PINNED, far.belief()).verify_flags & 0x200000


def test_in_a_rotation_a_pin_that_the_bridge_does_not_know_is_passed_over(pki: Any) -> None:
    new = pki.new_root("New")
    for pins in ((pin(pki.root), pin(new)), (pin(new), pin(pki.root))):
        run = Run(Bridge(serving(pki.root)), pins)
        assert run() == anchor(pki.root)
    everything = Run(Bridge(serving(pki.root, new)), (pin(new), pin(pki.root)))
    assert everything() == anchor(new, pki.root)


@pytest.mark.parametrize("unknown", [ForeignAnswerError("404 page not found"), RefusedError(Code.NOT_FOUND, "no")])
def test_without_any_root_the_first_reason_is_told(unknown: Exception) -> None:
    pins = (Fingerprint("ab" * 32), Fingerprint("cd" * 32))
    with pytest.raises(type(unknown)):
        Run(Bridge(dict.fromkeys(pins, unknown)), pins)()


def test_who_cannot_be_reached_is_asked_once(pki: Any) -> None:
    pins = (Fingerprint("ab" * 32), Fingerprint("cd" * 32))
    run = Run(Bridge(dict.fromkeys(pins, UnreachableError("no route"))), pins)
    with pytest.raises(UnreachableError):
        run()
    assert len(run.network.calls) == 1
    known = Run(Bridge(run.network.roots), (pin(pki.root), *pins), again=True)
    known.stored = certificates_of(pki.root)
    assert known() == anchor(pki.root)


def test_after_a_rotation_only_the_missing_pins_are_fetched(pki: Any) -> None:
    new = pki.new_root("New")
    pins = (pin(pki.root), pin(new))
    run = Run(Bridge(serving(pki.root, new)), pins, stored=certificates_of(pki.root))
    assert run() == anchor(pki.root)
    assert run.network.calls == []
    run.again = True
    assert run() == anchor(pki.root, new)
    assert run.network.calls == [f"unverified {pin(new).value[:4]}"]


def test_another_root_ends_the_run_even_beside_a_good_one(pki: Any) -> None:
    wrong = Fingerprint("ab" * 32)
    roots = serving(pki.root) | {wrong: pki.new_root("Portal").certificate}
    for pins in ((wrong,), (wrong, pin(pki.root)), (pin(pki.root), wrong)):
        with pytest.raises(RootMismatchError):
            Run(Bridge(roots), pins)()


def test_with_the_systems_trust_the_root_too_comes_over_a_verified_connection(pki: Any) -> None:
    run = Run(Bridge(serving(pki.root)), (pin(pki.root),), tls_trust=TlsTrust.SYSTEM)
    assert run() == anchor(pki.root)
    assert run.network.calls[0].startswith("verified")


def test_stored_issuers_ask_nobody_and_are_completed_after_a_rotation(pki: Any) -> None:
    neighbour = pki.ica.sub("Neighbour")
    texts = [pem(certificates_of(neighbour)), pem(certificates_of(pki.ica))]
    stored = [pki.root.certificate, *pki.chain]
    run = Run(Bridge({}, texts), (pin(pki.root),), (pin(pki.sub), pin(neighbour)), stored=stored)
    assert run() == anchor(pki.root, issuers=[pki.sub])
    assert run.network.calls == []
    run.again = True
    assert set(run().issuers) == set(certificates_of(pki.sub, neighbour))
    assert run.network.calls == ["intermediates"]


def test_intermediates_that_are_none_are_somebody_elses(pki: Any) -> None:
    run = Run(Bridge(serving(pki.root), [b"<html>"]), (pin(pki.root),), (pin(pki.sub),))
    with pytest.raises(ForeignAnswerError):
        run()
