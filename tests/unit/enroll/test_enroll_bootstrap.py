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
from enroll.config import Settings, TlsTrust
from enroll.errors import ForeignAnswerError, RefusedError, RootMismatchError, UnreachableError
from enroll.events import Event
from enroll.names import BridgeUrl, DeviceId, Fingerprint
from enroll.network.transport import Heard
from enroll.trust.certificates import pem, sha256, validity
from enroll.trust.clock import Timekeeper
from enroll.trust.paths import Anchor
from enroll.wire import Code

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
NO_CHECK_TIME = 0x200000


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
        self.shown: x509.Certificate | Exception = UnreachableError("nobody there")

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
        if isinstance(self.shown, x509.Certificate) and not context.verify_flags & NO_CHECK_TIME:
            raise UnreachableError("certificate is not yet valid", untrusted=True)
        return self.crts

    def server_chain(self, base: str, context: ssl.SSLContext, seconds: float) -> tuple[x509.Certificate, ...]:
        self.calls.append("server_chain")
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.verify_flags & NO_CHECK_TIME
        if isinstance(self.shown, Exception):
            raise self.shown
        return (self.shown,)

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
        return bootstrap.establish(
            self.network, self.settings(), self.stored, self.keeper, lambda: 5.0, self.events.append, again=self.again
        )

    def catches_up(self, pki: Any) -> bool:
        return bootstrap.catch_up(self.network, self.settings(), anchor(pki.root), self.keeper, 5.0)

    def settings(self) -> Settings:
        return Settings(
            bridge=BridgeUrl.parse("https://bridge.example"),
            device_id=DeviceId("dev-1"),
            folder=Path("/nowhere"),
            root_pins=self.pins,
            issuer_pins=self.issuer_pins,
            tls_trust=self.tls_trust,
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
    assert bootstrap.connection(run(), TlsTrust.PINNED, far.belief()).verify_flags & NO_CHECK_TIME


def test_in_a_rotation_a_pin_that_the_bridge_does_not_know_is_passed_over(pki: Any) -> None:
    new = pki.new_root("New")
    for pins in ((pin(pki.root), pin(new)), (pin(new), pin(pki.root))):
        run = Run(Bridge(serving(pki.root)), pins)
        assert run() == anchor(pki.root)
    everything = Run(Bridge(serving(pki.root, new)), (pin(new), pin(pki.root)))
    assert everything() == anchor(new, pki.root)


@pytest.mark.parametrize(
    ("unknown", "told"),
    [
        (ForeignAnswerError("404 page not found"), ForeignAnswerError),
        (RefusedError(Code.TOO_MANY, "not now"), RefusedError),
        (RefusedError(Code.NOT_FOUND, "the root here is SHA-256 ef"), RootMismatchError),
    ],
)
def test_without_any_root_the_first_reason_is_told(unknown: Exception, told: type[Exception]) -> None:
    pins = (Fingerprint("ab" * 32), Fingerprint("cd" * 32))
    with pytest.raises(told, match=str(unknown)):
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


# A clock that is behind


def server_of(pki: Any, begin: datetime) -> x509.Certificate:
    certificate: x509.Certificate = pki.sub.leaf(
        pki.sub.key.public_key(), "bridge.example", usages=[pki.server_auth], begin=begin, end=begin + DAY
    )
    return certificate


def test_a_server_certified_in_our_future_shows_that_the_clock_is_behind(pki: Any) -> None:
    """As fake-hwclock leaves it: above the floor, below everything that was certified since."""
    run = Run(Bridge(serving(pki.root)), (pin(pki.root),))
    run.network.shown = server_of(pki, NOW + 3 * DAY)
    assert run.keeper.belief().trusted
    assert run.catches_up(pki)
    belief = run.keeper.belief()
    assert (belief.trusted, belief.now) == (False, NOW + 3 * DAY)
    assert not run.catches_up(pki)
    assert run.keeper.hear(NOW + 3.5 * DAY, validity(run.network.shown), [validity(run.network.shown)])


@pytest.mark.parametrize("days", [-20, -1, 0])
def test_an_older_certificate_of_a_server_proves_nothing(pki: Any, days: int) -> None:
    run = Run(Bridge(serving(pki.root)), (pin(pki.root),))
    before = run.keeper.belief()
    run.network.shown = server_of(pki, NOW + days * DAY)
    assert not run.catches_up(pki)
    run.network.shown = UnreachableError("self-signed", untrusted=True)
    assert not run.catches_up(pki)
    assert run.keeper.belief() == before


def test_issuers_are_fetched_although_the_clock_is_behind(pki: Any) -> None:
    texts = [pem(certificates_of(pki.sub)), pem(certificates_of(pki.ica))]
    run = Run(Bridge(serving(pki.root), texts), (pin(pki.root),), (pin(pki.sub),))
    run.network.shown = server_of(pki, NOW + 3 * DAY)
    assert run() == anchor(pki.root, issuers=[pki.sub])
    assert run.network.calls[1:] == ["intermediates", "server_chain", "intermediates"]
    stuck = Run(Bridge(serving(pki.root), texts), (pin(pki.root),), (pin(pki.sub),))
    stuck.network.shown = server_of(pki, NOW - DAY)
    with pytest.raises(UnreachableError):
        stuck()
