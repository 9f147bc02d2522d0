"""The parent's side: what outlives the victims, their files, their births and deaths."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import psycopg
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from psycopg import sql
from sqlalchemy import NullPool, create_engine

from bridge.model.identity import Fingerprint
from bridge.model.records import Installation, System
from bridge.store.open import open_registry
from bridge.store.schema import METADATA
from ca.standin import StandInCa, StandInSettings
from compose.real.postgresql import RealPostgresql
from hawkbit.standin import EmbeddedHawkbit
from tests.crash.house import FIRST, INSTALLATION, LAST, QUARANTINE
from tests.crash.plan import DeviceKeys, Outside, Plan
from thingsboard.standin import EmbeddedThingsBoard
from wireguard.keys import PrivateKey

_PROJECT: Final = Path(__file__).resolve().parents[2]
_USER: Final = "bridge@example.com"
_PASSWORD: Final = "of the stand-ins"


class Databases(Protocol):
    """Gives each point a registry of its own that is at the present schema and installed."""

    def fresh(self, folder: Path) -> str:
        """Return a path or a URL."""
        ...

    def give_back(self, database: str) -> None:
        """Take one back that nobody needs any more."""
        ...


async def _install(database: str | Path, ca: StandInCa) -> None:
    root, issuing = (Fingerprint(one.value) for one in (ca.anchor.root_fingerprint, ca.anchor.issuing_fingerprint))
    row = Installation(INSTALLATION, "real", "crash", root, (issuing,))
    store = await open_registry(database, systems=frozenset(System), quarantine=QUARANTINE, migrate=True)
    await store.write(lambda tx: tx.install(row, FIRST, LAST, datetime.now(UTC)))
    await store.close()


@dataclass(frozen=True, slots=True)
class SqliteFiles:
    """Copies of one file."""

    template: Path

    @classmethod
    async def made(cls, folder: Path, ca: StandInCa) -> SqliteFiles:
        await _install(folder / "template.sqlite", ca)
        return cls(folder / "template.sqlite")

    def fresh(self, folder: Path) -> str:
        return str(shutil.copyfile(self.template, folder / "registry.sqlite"))

    def give_back(self, database: str) -> None:
        for path in Path(database).parent.glob("registry.sqlite*"):
            path.unlink()


@dataclass(frozen=True, slots=True)
class PostgresqlDatabases:
    """Copies of one database, made by the server; used again, with the rows that the first had."""

    cluster: RealPostgresql
    template: str
    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    free: list[str] = field(default_factory=list)

    @classmethod
    async def made(cls, cluster: RealPostgresql, ca: StandInCa) -> PostgresqlDatabases:
        url = cluster.create_database()
        await _install(url, ca)
        return cls(cluster, url.rpartition("/")[2], _all_rows(url))

    def fresh(self, folder: Path) -> str:
        if self.free:
            return self.free.pop()
        name = f"{self.template}_{folder.name.replace('-', '_')}"
        with psycopg.connect(self.cluster.url().replace("+psycopg", "", 1), autocommit=True) as connection:
            names = (sql.Identifier(name), sql.Identifier(self.template))
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
        return self.cluster.url(name)

    def give_back(self, database: str) -> None:
        engine = create_engine(database, poolclass=NullPool)
        with engine.begin() as connection:
            for table in reversed(METADATA.sorted_tables):
                connection.execute(table.delete())
            for table in METADATA.sorted_tables:
                if self.rows[table.name]:
                    connection.execute(table.insert(), list(self.rows[table.name]))
        self.free.append(database)


def _all_rows(url: str) -> dict[str, list[Mapping[str, Any]]]:
    with create_engine(url, poolclass=NullPool).connect() as connection:
        return {
            table.name: [dict(row._mapping) for row in connection.execute(table.select())]
            for table in METADATA.sorted_tables
        }


@dataclass(slots=True)
class Stage:
    """The systems that survive, and the server that forks victims."""

    ca: StandInCa
    thingsboard: EmbeddedThingsBoard
    folder: Path
    databases: Databases
    both_sides: bool
    """Where time allows it: a death on both sides of every effect, also where the two are one state."""
    _server: asyncio.subprocess.Process
    _ends: dict[str, asyncio.Future[int]] = field(default_factory=dict)

    def plan(self, scenario: str, number: str) -> Plan:
        """Return the plan of a new device on a new registry, which nobody has died on yet."""
        device = f"cam-{number}"
        folder = self.folder / device
        (folder / "wireguard").mkdir(parents=True, mode=0o700)
        keys = tuple(device_keys(device) for _ in range(3))
        return Plan(scenario, device, self.databases.fresh(folder), str(folder), keys, both_sides=self.both_sides)

    async def run(self, plan: Plan) -> int:
        """Let a process live by the plan; return its exit status, or minus the signal that ended it."""
        end = self._ends[plan.folder] = asyncio.get_running_loop().create_future()
        assert self._server.stdin is not None
        self._server.stdin.write(plan.line().encode())
        return await end

    def signed(self, device: str) -> frozenset[str]:
        """Return every serial that the CA ever signed for the device."""
        return frozenset(str(one.serial) for one in self.ca.signed() if one.name == device)

    async def hear(self) -> None:
        """Hear of ends until the server ends; who still waits then waits for nothing."""
        assert self._server.stdout is not None
        async for line in self._server.stdout:
            folder, _, status = line.decode().strip().rpartition("\t")
            self._ends.pop(folder).set_result(int(status))
        for end in self._ends.values():
            end.set_exception(RuntimeError("the server of victims ended"))


def device_keys(device: str) -> DeviceKeys:
    """Make a device's keys; the bridge only ever sees the CSR, the public half, and what the key signed."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return DeviceKeys(csr.public_bytes(Encoding.PEM).decode(), str(PrivateKey.generate().public_key), key_pem)


@asynccontextmanager
async def raised(folder: Path, cluster: RealPostgresql | None) -> AsyncIterator[Stage]:
    """Run the outside and the server of victims until left."""
    async with AsyncExitStack() as stack:
        ca = await stack.enter_async_context(StandInCa(StandInSettings(folder / "ca"), clock=lambda: datetime.now(UTC)))
        made = ca.issue_server_certificate()
        certificate, key = folder / "mqtt.crt", folder / "mqtt.key"
        certificate.write_text(made.chain_pem)
        key.write_text(made.key_pem)
        thingsboard = await stack.enter_async_context(
            EmbeddedThingsBoard(
                folder / "thingsboard",
                server_cert=certificate,
                server_key=key,
                client_ca=ca.anchor.root_pem,
                username=_USER,
                password=_PASSWORD,
            )
        )
        hawkbit = await stack.enter_async_context(EmbeddedHawkbit(folder / "hawkbit", _USER, _PASSWORD))
        outside = Outside(
            ca_url=ca.url,
            ca_fingerprint=ca.fingerprint.value,
            ca_provisioner=ca.device_provisioner,
            ca_password=ca.password,
            thingsboard_url=thingsboard.rest_url,
            hawkbit_url=hawkbit.url,
            user=_USER,
            password=_PASSWORD,
        )
        databases: Databases = (
            await SqliteFiles.made(folder, ca) if cluster is None else await PostgresqlDatabases.made(cluster, ca)
        )
        (folder / "outside.json").write_text(json.dumps(asdict(outside)))
        server = await _start_server(folder / "outside.json", folder / "victims.log")
        stage = Stage(ca, thingsboard, folder / "points", databases, cluster is not None, server)
        hearing = asyncio.create_task(stage.hear())
        try:
            yield stage
        finally:
            assert server.stdin is not None
            server.stdin.close()
            await server.wait()
            await hearing


async def _start_server(outside: Path, log: Path) -> asyncio.subprocess.Process:
    with log.open("wb") as errors:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.crash.victim",
            str(outside),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=_PROJECT,
            env={**os.environ, "PYTHONWARNINGS": "default"},
        )
