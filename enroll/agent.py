"""A first boot, from an empty folder to an accepted connection.

Responsible for performing the actions of ``enroll.plan`` in one run: it looks at the disk, asks what is
next, does it, and looks again; attempts are repeated within one budget with jittered waits.

Not responsible for configuration, printing or exit codes (``enroll.cli``), nor for any single rule.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from enroll import bootstrap, events, files, transport, tunnel
from enroll.answer import Expected, verify
from enroll.backoff import Backoff, Budget
from enroll.config import Settings, TunnelMode
from enroll.errors import BrokerError, ConfigurationError, StorageError, TryAgainError
from enroll.events import Event
from enroll.files import Disk
from enroll.folder import FLAG, Enrollment, Folder, Keys, NotEnrolledError
from enroll.plan import Action, Phase, Situation, next_action
from enroll.trust import Anchor
from enroll.tunnel import Machine
from enroll.wire import EnrollRequest

REQUEST_SECONDS: Final = 25.0
"""Longest total time of one request: more than the bridge takes for a signing attempt (15 s)."""

BROKER_SECONDS: Final = 10.0
HANDSHAKE_SECONDS: Final = 30.0
_LEAST_SECONDS: Final = 1.0
_BRIDGE_BACKOFF: Final = Backoff(base=1.0, cap=15.0)
_BROKER_BACKOFF: Final = Backoff(base=0.5, cap=5.0)


class Clock(Protocol):
    """Time as the agent sees it."""

    def now(self) -> datetime:
        """Return the belief of the time, aware UTC."""

    def monotonic(self) -> float:
        """Return seconds that never jump."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything the agent reaches the world by, but for the network."""

    clock: Clock
    uniform: Callable[[float, float], float]
    disk: Disk
    machine: Machine
    report: Callable[[Event], None]


class Agent:
    """One run in one folder."""

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._settings = settings
        self._world = runtime
        self._folder = Folder(settings.folder, runtime.disk)
        self._id = settings.device_id.value
        self._anchor: Anchor | None = None
        self._keys: Keys | None = None
        self._enrollment: Enrollment | None = None
        self._stale: str | None = None
        self._broker = Phase.UNTRIED
        self._tunnel = Phase.UNTRIED
        self._failure: TryAgainError | None = None

    async def run(self) -> None:
        """Enroll if need be, connect, raise the tunnel.

        Returning means: the flag is written and the broker accepted the leaf, or none is named.

        :raises StoppedError: the bridge said a final word.
        :raises ConfigurationError: the folder belongs to another device.
        :raises TryAgainError: not within this run's budget.
        """
        with files.locked(self._world.disk, self._folder.path):
            self._look()
            if self._enrollment is not None:
                self._world.report(events.enrolled(self._enrollment.summary(), new=False))
            else:
                if self._stale is not None:
                    self._world.report(events.invalid(self._stale))
                await self._spread()
            self._budget = Budget.start(self._settings.budget, self._world.clock.monotonic)
            while (action := next_action(self._situation())) is not Action.FINISH:
                await self._perform(action)

    def _situation(self) -> Situation:
        return Situation(
            prepared=self._keys is not None,
            enrolled=self._enrollment is not None,
            broker=self._broker,
            tunnel=self._tunnel,
        )

    def _look(self) -> None:
        """Read the state from disk; there is no second memory of it."""
        record = self._folder.record()
        if record is not None and record.device_id != self._id:
            raise ConfigurationError(
                "DEVICE_ID",
                f"is {self._id}, but {self._folder.path} holds the identity of {record.device_id}; "
                "correct one of DEVICE_ID and CERTS_DIR",
            )
        self._keys = self._folder.keys(self._id)
        try:
            self._enrollment = self._folder.enrollment(
                self._world.clock.now(), self._settings.root_pin, self._settings.issuer_pin
            )
        except NotEnrolledError as e:
            self._enrollment = None
            self._stale = str(e) if record is not None else None

    async def _perform(self, action: Action) -> None:
        match action:
            case Action.MAKE_KEYS:
                self._make_keys()
            case Action.ENROLL:
                await self._persist("enrollment", _BRIDGE_BACKOFF, self._enroll)
            case Action.CONNECT:
                await self._connect()
            case Action.RAISE_TUNNEL:
                await self._raise_tunnel()
            case Action.TRY_LATER:
                raise self._failure or BrokerError("the broker did not accept this device yet")
            case Action.FINISH:
                return

    def _make_keys(self) -> None:
        def tell(name: str, kept_as: str, why: str) -> None:
            self._world.report(events.set_aside(name, kept_as, why))

        made = self._folder.make_keys(self._id, self._world.clock.now(), tell)
        self._keys = self._folder.keys(self._id)
        if self._keys is None:
            raise StorageError(f"{self._folder.path} does not give back what was written; check the medium")
        spki = self._keys.device.spki_sha256
        self._world.report(events.keys(self._id, str(self._folder.path), made, spki))

    async def _enroll(self) -> None:
        """Make one attempt: anchor, request, check, store."""
        keys, settings = self._keys, self._settings
        if keys is None:
            raise StorageError("the keys are gone")
        if self._anchor is None:
            stored = self._folder.root(settings.root_pin)
            now, report = self._world.clock.now(), self._world.report

            def patience() -> float:
                return self._patience(REQUEST_SECONDS)

            self._anchor = await bootstrap.establish(settings, stored, now, patience, report)
        request = EnrollRequest(
            csr_pem=keys.csr.decode("ascii"),
            wg_public_key=keys.wireguard.public,
            device_name=settings.device_name,
            device_type=settings.device_type,
            voucher=settings.voucher,
        )
        context = bootstrap.connection(self._anchor, settings.tls_trust)
        seconds = self._patience(REQUEST_SECONDS)
        body = await transport.post_enroll(str(settings.bridge), self._id, request, context, seconds)
        expected = Expected(settings.device_id, keys.device, keys.wireguard, self._anchor, settings.bridge)
        identity = verify(body, expected, self._world.clock.now())
        self._folder.store(identity, keys.wireguard)
        self._look()
        if self._enrollment is None:
            raise StorageError(f"{self._folder.path / FLAG} does not hold after writing; check the medium")
        self._world.report(events.enrolled(self._enrollment.summary(), new=True))

    async def _connect(self) -> None:
        enrollment = self._enrollment
        broker = enrollment.record.mqtt if enrollment else None
        if enrollment is None or broker is None:
            self._broker = Phase.SETTLED
            self._world.report(events.mqtt(None, accepted=None, why="the bridge names no broker", attempts=0))
            return
        from enroll import mqtt  # noqa: PLC0415 - paho is slow to import, and many a run never needs it

        context = bootstrap.connection(enrollment.anchor, self._settings.tls_trust)
        mqtt.load_identity(context, enrollment.presented(), self._folder.device_key)
        attempts = 0

        async def attempt() -> None:
            nonlocal attempts
            attempts += 1
            await asyncio.to_thread(mqtt.connect_once, broker, self._id, context, self._patience(BROKER_SECONDS))

        try:
            await self._persist("MQTT", _BROKER_BACKOFF, attempt)
        except BrokerError as e:
            self._failure, self._broker, accepted, why = e, Phase.FAILED, False, str(e)
        else:
            self._broker, accepted, why = Phase.SETTLED, True, "the broker accepted this device's certificate"
        self._world.report(events.mqtt(broker, accepted=accepted, why=why, attempts=attempts))

    async def _raise_tunnel(self) -> None:
        outcome = await self._tunnel_outcome()
        self._tunnel = Phase.SETTLED
        handshake = outcome.handshake.isoformat() if outcome.handshake else None
        interface = self._folder.wireguard_conf.stem
        self._world.report(events.tunnel(interface, raised=outcome.raised, why=outcome.why, handshake=handshake))

    async def _tunnel_outcome(self) -> tunnel.Outcome:
        mode, machine = self._settings.tunnel, self._world.machine
        endpoint = self._enrollment.record.endpoint if self._enrollment else None
        if mode is TunnelMode.NONE:
            return tunnel.Outcome(raised=False, why="not raised: switched off by ENROLL_TUNNEL")
        if endpoint is None or self._keys is None:
            return tunnel.Outcome(raised=False, why="not raised: the bridge leased no VPN address")
        why = tunnel.obstacle(machine, endpoint, wanted=mode is TunnelMode.WG_QUICK)
        if why is not None:
            return tunnel.Outcome(raised=False, why=why)
        watch = Budget.start(HANDSHAKE_SECONDS, self._world.clock.monotonic)
        return await tunnel.bring_up(
            machine,
            self._folder.wireguard_conf,
            self._keys.wireguard.public,
            lambda: min(watch.remaining(), self._budget.remaining()),
            self._world.clock.sleep,
        )

    async def _spread(self) -> None:
        seconds = self._world.uniform(0.0, self._settings.start_spread)
        if seconds > 0:
            self._world.report(events.waiting("start", "spreads a fleet's first requests", "start_spread", seconds))
            await self._world.clock.sleep(seconds)

    async def _persist(self, what: str, backoff: Backoff, attempt: Callable[[], Awaitable[None]]) -> None:
        """Repeat an attempt until it succeeds, is final, or the next wait would not fit the budget."""
        failures = 0
        while True:
            try:
                await attempt()
            except TryAgainError as e:
                failures += 1
                wait = backoff.delay(failures, e.retry_after, self._world.uniform)
                if e.ends_run or wait >= self._budget.remaining():
                    raise
                self._world.report(events.waiting(what, str(e), e.code, wait))
                await self._world.clock.sleep(wait)
            else:
                return

    def _patience(self, most: float) -> float:
        """Return the seconds one attempt may take: never more than the budget has, but always a little."""
        return max(_LEAST_SECONDS, min(most, self._budget.remaining()))
