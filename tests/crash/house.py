"""A composition root for victims: real registry, real clients, real use cases; a fuse around every effect."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection

from bridge.adapters.authority import StepCaAuthority
from bridge.adapters.platform import ThingsBoardPlatform
from bridge.adapters.runtime import SystemClock, SystemRandomness
from bridge.adapters.tunnels import SharedFolder
from bridge.adapters.updates import HawkbitServer
from bridge.admission import policy_named
from bridge.app.http_clients import connect
from bridge.enrollment.decision import Rules
from bridge.enrollment.renewal import Renewal
from bridge.enrollment.service import Enrollment, Terms
from bridge.lifecycle.service import Lifecycle
from bridge.model.identity import DeviceId
from bridge.model.records import IssuanceState, System
from bridge.reconcile.authority import AuthorityDoor
from bridge.reconcile.platform import PlatformDoor
from bridge.reconcile.tunnels import TunnelsDoor
from bridge.reconcile.updates import UpdatesDoor
from bridge.reconcile.worker import Pace, Worker
from bridge.store.open import RegistryStore, open_registry
from bridge.store.schema import METADATA
from ca.bootstrap import context_for, fetch_trust
from ca.client import StepCaClient
from ca.models import Fingerprint as CaFingerprint
from ca.models import TrustAnchor
from ca.provisioner_key import ProvisionerKey, decrypt_key
from ca.token import TokenSigner
from hawkbit.client import HawkbitClient
from tests.crash.fuse import Fuse, GuardedRegistry, guarded
from tests.crash.plan import Outside, Plan
from thingsboard.client import ThingsBoardClient
from wireguard.interface import InterfaceName
from wireguard.keys import PrivateKey
from wireguard.peers_file import PEERS_FILE
from wireguard.standin import MemoryInterface
from wireguard.sync import sync_once

INSTALLATION: Final = "crash-tests"
FIRST, LAST = IPv4Address("10.8.0.2"), IPv4Address("10.8.0.254")
QUARANTINE: Final = timedelta(hours=1)
DEADLINE: Final = timedelta(seconds=15)
LIFETIME: Final = timedelta(days=30)
_ROUNDS: Final = 60
"""Of a reconciler that should have come to rest long before."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is learned once of the outside and is the same for every process."""

    outside: Outside
    anchor: TrustAnchor
    key: ProvisionerKey
    trust: ssl.SSLContext


async def prepare(outside: Outside) -> Prepared:
    """Take the first trust in the CA and open the provisioner's key."""
    anchor = await fetch_trust(outside.ca_url, CaFingerprint.parse(outside.ca_fingerprint), connect)
    trust = context_for(anchor)
    async with connect(trust) as http:
        client = StepCaClient(http, outside.ca_url)
        provisioner = await client.provisioner(outside.ca_provisioner)
        encrypted = provisioner.encrypted_key or await client.encrypted_key(provisioner.kid)
    return Prepared(outside, anchor, decrypt_key(provisioner, encrypted, outside.ca_password), trust)


class ShiftedClock:
    """The host's clock, moved on by hand: deadlines and pauses pass without anybody waiting for them."""

    def __init__(self, offset: float) -> None:
        self._offset = timedelta(seconds=offset)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset

    @property
    def offset(self) -> float:
        return self._offset.total_seconds()

    def advance(self, seconds: float) -> None:
        self._offset += timedelta(seconds=max(seconds, 0.0))

    def jump_to(self, moment: datetime) -> None:
        self.advance((moment - self.now()).total_seconds() + 0.001)


class AppliedFolder:
    """The shared folder with the process beside the interface, which outlives the bridge and acts at once."""

    def __init__(self, tunnels: Any, folder: Path) -> None:
        self._tunnels, self._folder = tunnels, folder
        self._interface = MemoryInterface(InterfaceName("wg0"), PrivateKey.generate())
        self._sync()

    async def publish(self, revision: int, peers: Any) -> None:
        await self._tunnels.publish(revision, peers)
        self._sync()

    async def applied(self) -> Any:
        return await self._tunnels.applied()

    def _sync(self) -> None:
        if (self._folder / PEERS_FILE).exists():
            sync_once(self._folder, self._interface)


@dataclass(slots=True)
class House:
    """One process's bridge, without HTTP."""

    plan: Plan
    fuse: Fuse
    clock: ShiftedClock
    store: RegistryStore
    registry: GuardedRegistry
    authority: Any
    """Guarded; a scenario may put something between it and the use case."""
    platform: Any
    updates: Any
    tunnels: Any
    raw_platform: ThingsBoardPlatform
    """The device's own side of ThingsBoard: what is done there is no effect of the bridge."""

    @property
    def device(self) -> DeviceId:
        return DeviceId(self.plan.device)

    def enrollment(self, authority: Any = None) -> Enrollment:
        """Return the use case, with the CA as it is or as the scenario wants it."""
        terms = Terms(Rules(policy_named("open")), LIFETIME, DEADLINE)
        return Enrollment(self.registry, authority or self.authority, terms, self.clock, SystemRandomness())

    def renewal(self) -> Renewal:
        """Return the use case of proofs and activation."""
        return Renewal(self.registry, self.clock)

    def lifecycle(self) -> Lifecycle:
        """Return the operator's orders."""
        return Lifecycle(self.registry, self.clock, "operator")

    def workers(self) -> tuple[Worker, ...]:
        """Return fresh workers, one a system, as a process that has just started has them."""
        registry, clock = self.registry, self.clock
        doors = {
            System.CA: AuthorityDoor(registry, self.authority, clock),
            System.THINGSBOARD: PlatformDoor(registry, self.platform, clock, INSTALLATION),
            System.HAWKBIT: UpdatesDoor(registry, self.updates, clock, INSTALLATION),
            System.WIREGUARD: TunnelsDoor(registry, self.tunnels, clock, QUARANTINE),
        }
        return tuple(
            Worker(system, door, registry, clock, SystemRandomness(), Pace()) for system, door in doors.items()
        )

    async def reconcile(self, *systems: System) -> None:
        """Sweep and work until nothing of the device is outstanding; pauses are jumped over.

        With ``systems``: only theirs. The others are as if they were down.
        """
        workers = [worker for worker in self.workers() if not systems or worker.system in systems]
        for _ in range(_ROUNDS):
            await self.registry.write(lambda tx: tx.sweep_attempts(self.clock.now(), 100))
            if sum([await worker.step() for worker in workers]):
                continue
            moment = await self._next_moment(frozenset(worker.system for worker in workers))
            if moment is None:
                return
            self.clock.jump_to(moment)
        raise AssertionError("the reconciler does not come to rest")

    async def _next_moment(self, systems: frozenset[System]) -> datetime | None:
        """Return when there is something to do: a link that is open, hinted at, or claimed by somebody who died."""
        links = await self.store.read(lambda tx: tx.links(self.device))
        issuances = await self.store.read(lambda tx: tx.issuances(self.device))
        due = [
            max(link.next_at, link.claimed_until or link.next_at)
            for link in links
            if link.system in systems
            and link.next_at is not None
            and (link.settled_at is None or link.hints or link.claimed_until)
        ]
        due += [one.deadline for one in issuances if one.state is IssuanceState.INTENT]
        return min(due, default=None)

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return every row of every table, and what the database says of its own soundness."""
        checks = ("integrity_check", "foreign_key_check") if self.store.engine.dialect.name == "sqlite" else ()
        queries = {name: f"SELECT * FROM {name}" for name in METADATA.tables}
        queries |= {name: f"PRAGMA {name}" for name in checks}
        with self.store.engine.connect() as connection:
            found = {name: _rows(connection, query) for name, query in queries.items()}
            connection.rollback()
        return found


def _rows(connection: Connection, query: str) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in connection.exec_driver_sql(query)]


@asynccontextmanager
async def open_house(plan: Plan, prepared: Prepared) -> AsyncIterator[House]:
    """Build one process's bridge and take it down again, if it lives so long."""
    outside, clock = prepared.outside, ShiftedClock(plan.offset)
    fuse = Fuse(plan.die_at, plan.journal, lambda: clock.offset, both_sides=plan.both_sides)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(connect(prepared.trust))
        host, randomness = SystemClock(), SystemRandomness()
        signer = TokenSigner(
            prepared.key,
            issuer=outside.ca_provisioner,
            url=outside.ca_url,
            clock=host.now,
            randomness=randomness.octets,
        )
        authority = StepCaAuthority(StepCaClient(http, outside.ca_url), signer, prepared.anchor, host)
        platform = ThingsBoardPlatform(ThingsBoardClient(http, outside.thingsboard_url, outside.user, outside.password))
        updates = HawkbitServer(HawkbitClient(http, outside.hawkbit_url, outside.user, outside.password))
        folder = Path(plan.folder, "wireguard")
        database = plan.database if "://" in plan.database else Path(plan.database)
        store = await open_registry(database, systems=frozenset(System), quarantine=QUARANTINE, migrate=False)
        stack.push_async_callback(store.close)
        yield House(
            plan=plan,
            fuse=fuse,
            clock=clock,
            store=store,
            registry=GuardedRegistry(store, fuse),
            authority=guarded("authority", authority, fuse),
            platform=guarded("platform", platform, fuse),
            updates=guarded("updates", updates, fuse),
            tunnels=AppliedFolder(guarded("tunnels", SharedFolder(folder), fuse), folder),
            raw_platform=platform,
        )
