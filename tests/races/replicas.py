"""Two bridges as processes, on one PostgreSQL, before one CA; everything outside counts what it is asked."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import httpx
import psycopg

from bridge.adapters.runtime import SystemClock
from bridge.adapters.signing import FileSigner
from bridge.app.http_clients import connect
from bridge.lifecycle.service import Lifecycle
from bridge.model.identity import DeviceId
from bridge.model.records import Issuance, Link, System
from bridge.store.open import RegistryStore, open_registry
from ca.bootstrap import context_for_root
from ca.client import StepCaClient
from ca.models import TrustAnchor
from ca.standin import StandInCa, StandInSettings
from compose.real.owned_process import OwnedProcess
from compose.real.step_ca import RealStepCa
from hawkbit.standin import EmbeddedHawkbit
from tests.races.contenders import Crowd
from thingsboard.standin import EmbeddedThingsBoard
from wireguard.interface import InterfaceName
from wireguard.keys import PrivateKey
from wireguard.standin import MemoryInterface
from wireguard.sync import watch

DEADLINE: Final = timedelta(seconds=11)
"""Of a signing attempt: the shortest that the bridge takes, since its client gives the CA 10 s."""
SECRET: Final = "of this test alone"
_USER: Final = ("tenant@example.com", "of the stand-ins")
_START_SECONDS: Final = 60.0
_CLAIMS: Final = """
    CREATE TABLE seen_claim (device text, system text, holder text, broke_another boolean);
    CREATE FUNCTION see_claim() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      INSERT INTO seen_claim VALUES (NEW.device, NEW.system, NEW.claimed_by, OLD.claimed_by IS NOT NULL
        AND OLD.claimed_until > extract(epoch FROM clock_timestamp()) * 1000000);
      RETURN NEW; END $$;
    CREATE TRIGGER see_claim AFTER UPDATE OF claimed_by ON link FOR EACH ROW
      WHEN (NEW.claimed_by IS NOT NULL AND NEW.claimed_by IS DISTINCT FROM OLD.claimed_by)
      EXECUTE FUNCTION see_claim();
    """
"""The database itself writes down who ever claimed what."""


class IssuingCa(Protocol):
    """What the replicas and the test need of a CA, embedded or real."""

    url: str
    password: str
    device_provisioner: str
    server_provisioner: str

    @property
    def anchor(self) -> TrustAnchor:
        """Root, issuing CA and intermediates."""
        ...


def signed_by(ca: IssuingCa) -> dict[int, str]:
    """Return every serial of a device's certificate that the CA ever signed, with the device's name."""
    if isinstance(ca, StandInCa):
        return {one.serial: one.name for one in ca.signed() if one.provisioner == ca.device_provisioner}
    assert isinstance(ca, RealStepCa)
    lines = (ca.folder / "step-ca.log").read_text().splitlines()
    entries = [json.loads(line) for line in lines if line.startswith("{") and '"/1.0/sign"' in line]
    ours = [
        one for one in entries if one["status"] == 201 and one["provisioner"].startswith(ca.device_provisioner + " ")
    ]
    return {int(one["serial"]): one["subject"] for one in ours}


class Tally:
    """An ASGI application that counts what it is asked, and how it answers: method, path, status."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self.calls: Counter[tuple[str, str, int]] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.calls[scope["method"], scope["path"], message["status"]] += 1
            await send(message)

        await self._application(scope, receive, counted)

    def of(self, method: str, path: str) -> Counter[tuple[str, int]]:
        """Return how often each path that matches was asked, by its first group and status."""
        found: Counter[tuple[str, int]] = Counter()
        for (asked, where, status), number in self.calls.items():
            match = re.fullmatch(path, where)
            if asked == method and match is not None:
                found[match[1] if match.re.groups else where, status] += number
        return found


def _tallied(config: Any) -> Tally:
    tally = config.loaded_app = Tally(config.loaded_app)
    return tally


@dataclass
class Replica:
    """One ``iot-bridge serve`` as a process of its own."""

    folder: Path
    environment: dict[str, str]
    process: OwnedProcess | None = None

    async def start(self) -> str:
        """Start it, again too, and return its URL once everything listens."""
        await self.stop()
        self.folder.mkdir(exist_ok=True)
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        options = ["--data", self.folder / "data", "--port", "0", "--ready-file", ready]
        self.process = OwnedProcess(
            "bridge",
            [sys.executable, "-m", "bridge", "serve", *options],
            self.folder / "bridge.log",
            self.folder,
            environment=self.environment,
        )
        self.process.start()
        # In a thread: the CA that it asks at its start may live in this loop.
        await asyncio.to_thread(self.process.wait_until, ready.exists, _START_SECONDS)
        url: str = json.loads(ready.read_text())["url"]
        return url

    def kill(self) -> None:
        """SIGKILL, between any two instructions."""
        assert self.process is not None
        self.process.signal(signal.SIGKILL)

    async def stop(self) -> None:
        """End it, if it still runs."""
        if self.process is not None:
            await asyncio.to_thread(self.process.stop)


@dataclass
class World:
    """Everything, and what it counted."""

    ca: IssuingCa
    thingsboard: EmbeddedThingsBoard
    platform: Tally
    updates: Tally
    interface: MemoryInterface
    replicas: tuple[Replica, Replica]
    urls: list[str]
    store: RegistryStore
    database: str

    @property
    def crowd(self) -> Crowd:
        """Devices: the n-th asks server n modulo two."""
        return Crowd(self.urls, context_for_root(self.ca.anchor))

    @property
    def operator(self) -> Lifecycle:
        """Orders, as a command gives them."""
        return Lifecycle(self.store, SystemClock(), "operator")

    async def issuances(self, name: str) -> tuple[Issuance, ...]:
        """What the registry has of an id."""
        return await self.store.read(lambda tx: tx.issuances(DeviceId(name)))

    async def settled(self, names: list[str], systems: set[System], seconds: float) -> None:
        """Wait until these links of all the ids are in agreement, and nobody holds one."""

        async def look() -> bool:
            links = [link for name in names for link in await self._links(name) if link.system in systems]
            done = [link for link in links if link.settled_at is not None and not link.hints and not link.claimed_by]
            return len(done) == len(names) * len(systems)

        await until(look, seconds)

    async def _links(self, name: str) -> tuple[Link, ...]:
        return await self.store.read(lambda tx: tx.links(DeviceId(name)))

    async def crl(self) -> frozenset[int]:
        """Return the serials that the CA's revocation list shows."""
        async with connect(context_for_root(self.ca.anchor)) as http:
            return frozenset((await StepCaClient(http, self.ca.url).crl(self.ca.anchor.issuing_ca)).serials)

    async def connect_devices(self, names: list[str]) -> None:
        """Let each device connect, and tell both servers of it, twice."""
        headers = {"X-Bridge-Webhook-Secret": SECRET}
        trust = context_for_root(self.ca.anchor)
        for name in names:
            record = self.thingsboard.state.by_name(name)
            assert record is not None
            seen = {"clientId": name, "protocol": "MQTT", "subjectCn": name, "issuerCn": "", "at": ""}
            self.thingsboard.state.connected(record.id, seen)
        async with httpx.AsyncClient(verify=trust, trust_env=False, headers=headers) as client:
            events = [
                client.post(f"{url}/webhooks/thingsboard", json={"event": "CONNECT_EVENT", "deviceName": name})
                for name in names
                for url in self.urls * 2
            ]
            assert {answer.status_code for answer in await asyncio.gather(*events)} == {202}

    def claims(self) -> list[tuple[str, str, str, bool]]:
        """Return every claim that was ever taken: device, system, holder, whether it broke another's."""
        with psycopg.connect(self.database.replace("+psycopg", "", 1)) as connection:
            return connection.execute("SELECT device, system, holder, broke_another FROM seen_claim").fetchall()


async def until(look: Callable[[], Any], seconds: float) -> None:
    """Wait until ``look`` says so."""
    end = asyncio.get_running_loop().time() + seconds
    while not await look():
        assert asyncio.get_running_loop().time() < end, f"not within {seconds} s"
        await asyncio.sleep(0.1)


@asynccontextmanager
async def two_bridges(folder: Path, ca: IssuingCa, database: str) -> AsyncIterator[World]:
    """Run the outside and two bridges until left. The CA runs already."""
    async with AsyncExitStack() as stack:
        thingsboard, hawkbit = await _platforms(stack, folder, ca)
        tunnels = folder / "wireguard"
        tunnels.mkdir(mode=0o700)
        key, stop = PrivateKey.generate(), asyncio.Event()
        interface = MemoryInterface(InterfaceName("wg0"), key)
        watching = asyncio.create_task(watch(tunnels, interface, stop))
        stack.push_async_callback(_end, stop, watching)
        environment = _environment(ca, thingsboard, hawkbit) | {
            "BRIDGE_DATABASE_URL": database,
            "WG_SUBNET": "10.9.0.0/22",
            "WG_SERVER_ENDPOINT": "vpn.example.com:51820",
            "WG_SERVER_PUBLIC_KEY": str(key.public_key),
            "WG_DATA_DIR": str(tunnels),
            "BRIDGE_SIGNING_KEY_FILE": str(folder / "signing.key"),
        }
        FileSigner.make(folder / "signing.key")
        replicas = (Replica(folder / "one", environment), Replica(folder / "two", environment))
        for replica in replicas:
            stack.push_async_callback(replica.stop)
        urls = [await replica.start() for replica in replicas]
        store = await open_registry(database, systems=frozenset(System), quarantine=timedelta(days=1), migrate=False)
        stack.push_async_callback(store.close)
        with psycopg.connect(database.replace("+psycopg", "", 1), autocommit=True) as connection:
            connection.execute(_CLAIMS)
        yield World(
            ca=ca,
            thingsboard=thingsboard,
            platform=_tallied(thingsboard._rest.config),
            updates=_tallied(hawkbit._running.server.config),  # type: ignore[union-attr] # it runs
            interface=interface,
            replicas=replicas,
            urls=urls,
            store=store,
            database=database,
        )


async def _platforms(stack: AsyncExitStack, folder: Path, ca: IssuingCa) -> tuple[EmbeddedThingsBoard, EmbeddedHawkbit]:
    # The door's certificate is another CA's: nobody here speaks MQTT.
    doorman = StandInCa(StandInSettings(folder / "door"), clock=lambda: datetime.now(UTC))
    made = doorman.issue_server_certificate()
    certificate, key = folder / "mqtt.crt", folder / "mqtt.key"
    certificate.write_text(made.chain_pem)
    key.write_text(made.key_pem)
    thingsboard = EmbeddedThingsBoard(
        folder / "thingsboard",
        server_cert=certificate,
        server_key=key,
        client_ca=ca.anchor.root_pem,
        username=_USER[0],
        password=_USER[1],
    )
    hawkbit = EmbeddedHawkbit(folder / "hawkbit", *_USER)
    return await stack.enter_async_context(thingsboard), await stack.enter_async_context(hawkbit)


def _environment(ca: IssuingCa, thingsboard: EmbeddedThingsBoard, hawkbit: EmbeddedHawkbit) -> dict[str, str]:
    return {
        "STEP_CA_URL": ca.url,
        "STEP_CA_FINGERPRINT": ca.anchor.root_fingerprint.value,
        "STEP_CA_PROVISIONER_NAME": ca.device_provisioner,
        "STEP_CA_PROVISIONER_PASSWORD": ca.password,
        "STEP_CA_SERVER_PROVISIONER_NAME": ca.server_provisioner,
        "STEP_CA_SERVER_PROVISIONER_PASSWORD": ca.password,
        "BRIDGE_PUBLIC_HOST": "localhost",
        "BRIDGE_ADMISSION": "open",
        "BRIDGE_WEBHOOK_SECRET": SECRET,
        "BRIDGE_SIGN_DEADLINE": f"{DEADLINE.seconds}s",
        "THINGSBOARD_URL": thingsboard.rest_url,
        "THINGSBOARD_USERNAME": _USER[0],
        "THINGSBOARD_PASSWORD": _USER[1],
        "THINGSBOARD_MQTT_HOST": thingsboard.mqtt_host,
        "THINGSBOARD_MQTT_PORT": str(thingsboard.mqtt_port),
        "HAWKBIT_URL": hawkbit.url,
        "HAWKBIT_USERNAME": _USER[0],
        "HAWKBIT_PASSWORD": _USER[1],
    }


async def _end(stop: asyncio.Event, task: asyncio.Task[None]) -> None:
    stop.set()
    await task
