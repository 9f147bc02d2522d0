"""Laws of the registry under any order of operations, on a real SQLite file."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bridge.enrollment.decision import decide_activation
from bridge.errors import BridgeError
from bridge.model.facts import Activate, Csr, EnrollmentRequest, NewAttempt, SignedLeaf, Stored
from bridge.model.identity import DeviceId, Fingerprint, Pem, Serial, WireGuardKey
from bridge.model.records import Installation, Kind, System, Window
from bridge.ports.registry import Claim, Registration, Settlement
from bridge.store.drivers import SqliteDriver
from bridge.store.schema import METADATA
from bridge.store.session import Rules
from bridge.store.sqlite import make_engine
from bridge.store.transaction import SqlTransaction

T = TypeVar("T")
START = datetime(2026, 3, 1, tzinfo=UTC)
SIGN = timedelta(seconds=15)
NAMES = st.sampled_from(["a", "b", "c", "d"])
KEYS = st.integers(0, 4)
POOL = 3


class RegistryLaws(RuleBasedStateMachine):
    """Operators, devices, the CA and the reconciler do whatever they like, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._engine = make_engine(Path(self._folder.name) / "r.db")
        METADATA.create_all(self._engine)
        self._connection = self._engine.connect()
        self._rows("PRAGMA synchronous=OFF")  # laws, not losses of power
        self._now = START
        self._serials: list[Serial] = []
        self._chosen = 0
        self._asked: set[str] = set()
        self._revoked: set[str] = set()
        self._claims: list[Claim] = []
        self._dead: set[str] = set()
        self._epochs: dict[str, int] = {}
        self._holders: dict[int, str] = {}
        row = Installation("i", "m", "t", Fingerprint.of(b"r"), ())
        first = IPv4Address(1)
        self._unit(lambda t: t.install(row, first, first + (POOL - 1), START))

    def teardown(self) -> None:
        self._connection.close()
        self._engine.dispose()
        self._folder.cleanup()

    def _unit(self, unit: Callable[[SqlTransaction], T]) -> T | None:
        """Run and commit; what is refused is undone, as the writer does it."""
        driver = self._connection.connection.driver_connection
        rules = Rules(frozenset(System), timedelta(minutes=10))
        with self._connection.begin() as transaction:
            session = SqlTransaction(self._connection, SqliteDriver(driver), rules, writing=True)
            try:
                return unit(session)
            except BridgeError:
                transaction.rollback()
                return None

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        driver: Any = self._connection.connection.driver_connection
        rows: list[tuple[Any, ...]] = driver.execute(query).fetchall()
        return rows

    # -- what may happen -----------------------------------------------------------------------------------------
    @rule(seconds=st.sampled_from([1, 16, 700]))
    def time_passes(self, seconds: int) -> None:
        self._now += timedelta(seconds=seconds)

    @rule(name=NAMES)
    def register(self, name: str) -> None:
        self._unit(lambda t: t.register(Registration(DeviceId(name), self._now)))

    @rule(name=NAMES, key=KEYS, wg=st.none() | KEYS, renew=st.booleans())
    def begin(self, name: str, key: int, wg: int | None, renew: bool) -> None:
        # Keys of the WireGuard kind are shared among all devices, so that they fight over them.
        spki = f"{name} {key}".encode()
        wg_key = None if wg is None else WireGuardKey(base64.b64encode(bytes([wg + 9]) * 32).decode())
        request = EnrollmentRequest(
            DeviceId(name), Csr(Pem("c"), Fingerprint.of(b"c"), Fingerprint.of(spki), b"", spki), wg_key
        )
        self._chosen += 1
        serial = Serial((1 << 127) + self._chosen)

        def unit(t: SqlTransaction) -> bool:
            facts = t.facts(request, self._now)
            active = facts.current is not None
            generation = 0 if facts.device is None else facts.device.generation
            kind = Kind.FIRST if not active else Kind.RENEW if renew else Kind.REENROLL
            generation += kind is not Kind.RENEW
            t.begin_attempt(NewAttempt(request, kind, generation, False, serial, self._now + SIGN, self._now))
            return True

        if self._unit(unit):
            self._serials.append(serial)
            self._asked.add(str(serial))

    @rule(data=st.data(), other=st.booleans())
    def store(self, data: st.DataObject, other: bool) -> None:
        if not self._serials:
            return
        serial = data.draw(st.sampled_from(self._serials))
        own = Serial(serial.value + (1 << 100)) if other else serial
        leaf = SignedLeaf(own, Pem("l"), Pem("c"), Fingerprint.of(str(own).encode()), START, START + timedelta(days=9))

        def unit(t: SqlTransaction) -> object:
            try:
                return t.store_certificate(serial, leaf, self._now)
            except LookupError:
                return None

        done = self._unit(unit)
        if done is not None:
            self._asked.add(str(own))
        if isinstance(done, Stored):
            assert done.issuance.device.value not in self._dead

    @rule(name=NAMES, data=st.data(), stale=st.booleans())
    def activate(self, name: str, data: st.DataObject, stale: bool) -> None:
        leaves = [one for one in self._unit(lambda t: t.issuances(DeviceId(name))) or () if one.leaf_sha256]
        if not leaves:
            return
        leaf = data.draw(st.sampled_from(leaves)).leaf_sha256
        assert leaf is not None

        def unit(t: SqlTransaction) -> Stored | None:
            decision = decide_activation(t.leaf_facts(DeviceId(name), leaf, self._now))
            if not isinstance(decision, Activate):
                return None
            return t.activate(replace(decision, epoch=decision.epoch - 1) if stale else decision, self._now)

        done = self._unit(unit)
        if done is not None:
            assert not stale
            assert name not in self._dead
            current = self._rows("SELECT device, leaf_sha256 FROM issuance WHERE state = 'current'")
            assert (name, leaf.hex) in current

    @rule(data=st.data(), forget=st.booleans())
    def refuse(self, data: st.DataObject, forget: bool) -> None:
        if not self._serials:
            return
        serial = data.draw(st.sampled_from(self._serials))
        intent = (str(serial), "intent") in self._rows("SELECT serial, state FROM issuance")
        if not forget:
            self._unit(lambda t: t.refuse_attempt(serial))
            return
        self._unit(lambda t: t.forget_attempt(serial))
        if intent:
            self._asked.discard(str(serial))
            self._serials.remove(serial)

    @rule()
    def sweep(self) -> None:
        self._unit(lambda t: t.sweep_attempts(self._now, 10))

    @rule(name=NAMES)
    def tombstone(self, name: str) -> None:
        if self._unit(lambda t: t.tombstone(DeviceId(name), self._now)):
            self._dead.add(name)

    @rule(name=NAMES)
    def reinstate(self, name: str) -> None:
        if self._unit(lambda t: t.reinstate(DeviceId(name), self._now)):
            assert name in self._dead
            self._dead.discard(name)

    @rule(name=NAMES)
    def abandon(self, name: str) -> None:
        if self._unit(lambda t: t.abandon(DeviceId(name), self._now)):
            assert name not in self._dead

    @rule(name=NAMES)
    def free_lease(self, name: str) -> None:
        self._unit(lambda t: t.free_lease(DeviceId(name), self._now + timedelta(minutes=5)))

    @rule(name=NAMES, generation=st.integers(0, 3))
    def open_window(self, name: str, generation: int) -> None:
        until = self._now + timedelta(hours=1)
        window = Window(DeviceId(name), generation, "o", self._now, until, None, None, compromised=False)
        self._unit(lambda t: t.open_window(window))

    @rule(system=st.sampled_from(System))
    def claim(self, system: System) -> None:
        until = self._now + timedelta(seconds=30)
        self._claims += self._unit(lambda t: t.claim_due(system, "me", self._now, until, 2)) or ()

    @rule(data=st.data(), agreed=st.booleans())
    def settle(self, data: st.DataObject, agreed: bool) -> None:
        if self._claims:
            claim = data.draw(st.sampled_from(self._claims))
            settlement = Settlement(self._now if agreed else None, None if agreed else self._now, external_id="x")
            self._unit(lambda t: t.settle(claim, settlement, self._now))

    @rule(name=NAMES, first=st.booleans())
    def connect(self, name: str, first: bool) -> None:
        if first:
            self._unit(lambda t: t.mark_connected(DeviceId(name), self._now, self._now))
        else:
            self._unit(lambda t: t.hint([DeviceId(name)], self._now))

    @rule()
    def peers(self) -> None:
        peers = self._unit(lambda t: t.peers()) or ()
        assert not {peer.device for peer in peers} & self._dead

    @rule(name=NAMES)
    def crl(self, name: str) -> None:
        picture = self._unit(lambda t: t.picture(DeviceId(name)))
        if picture is not None:
            self._unit(lambda t: t.mark_revoked(picture.revoking, self._now))
            self._revoked.update(map(str, picture.revoking))

    # -- what must always be true ---------------------------------------------------------------------------------
    @invariant()
    def the_dead_stay_dead(self) -> None:
        states = dict(self._rows("SELECT id, state FROM device"))
        assert {name for name, state in states.items() if state == "tombstone"} == self._dead
        living = self._rows("SELECT device FROM issuance WHERE state IN ('intent', 'pending', 'current')")
        living += self._rows("SELECT device FROM link WHERE wanted = 'present'")
        assert not {device for (device,) in living} & self._dead

    @invariant()
    def the_epoch_never_falls(self) -> None:
        epochs = dict(self._rows("SELECT id, epoch FROM device"))
        for name, epoch in epochs.items():
            assert epoch >= self._epochs.get(name, 0)
        self._epochs = epochs  # an id that was forgotten begins anew

    @invariant()
    def a_device_is_active_exactly_with_a_current_certificate(self) -> None:
        current = [device for (device,) in self._rows("SELECT device FROM issuance WHERE state = 'current'")]
        assert len(current) == len(set(current))
        assert set(current) == {device for (device,) in self._rows("SELECT id FROM device WHERE state = 'active'")}

    @invariant()
    def a_replaced_leaf_waits_for_the_platform_alone(self) -> None:
        stuck = self._rows(
            "SELECT device FROM issuance WHERE state = 'superseded' AND device NOT IN"
            " (SELECT device FROM link WHERE system = 'thingsboard' AND wanted = 'present' AND settled_at IS NULL)"
        )
        assert stuck == []

    @invariant()
    def every_serial_is_known_until_it_is_revoked(self) -> None:
        known = self._rows("SELECT serial, coalesce(requested, serial) FROM issuance")
        assert self._asked - self._revoked <= {one for pair in known for one in pair}

    @invariant()
    def an_address_changes_hands_only_after_its_rest(self) -> None:
        rows = self._rows("SELECT address, device, former_device, free_at FROM lease")
        assert len(rows) <= POOL
        now = (self._now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        for address, device, former, free_at in rows:
            if device is None:
                self._holders[address] = (former, free_at)
                continue
            last, rested = self._holders.get(address, (device, 0))
            assert device == last or rested is not None
            assert device == last or rested <= now
            self._holders[address] = (device, None)

    @invariant()
    def what_is_to_be_revoked_has_an_order(self) -> None:
        missing = self._rows(
            "SELECT device FROM issuance WHERE state = 'revoking' AND device NOT IN"
            " (SELECT device FROM link WHERE system = 'ca' AND wanted = 'absent')"
        )
        assert missing == []

    @invariant()
    def foreign_keys_hold(self) -> None:
        assert self._rows("PRAGMA foreign_key_check") == []


RegistryLaws.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    # What varies in a failure is not explained: that traces every line, at a hundredfold cost.
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)
test_the_registry_keeps_its_laws = RegistryLaws.TestCase
