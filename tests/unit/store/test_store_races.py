"""Many at once, in threads and in processes, on both databases: nothing is spent twice."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import KeyInUse, WireGuardKeyInUse
from bridge.model.facts import Lost, Stored
from bridge.model.identity import Serial
from bridge.model.records import System
from bridge.ports.registry import Registration
from bridge.store.open import RegistryStore


async def enrolled_once(registry: RegistryStore, fleet: Any, request: Any) -> Stored | Lost | None:
    """What a use case does: look, and begin only if nobody else did."""

    def unit(t: Any) -> Serial | None:
        facts = t.facts(request, fleet.now)
        if facts.device is not None and (facts.device.generation or facts.attempt is not None):
            return None
        attempt = fleet.attempt(request)
        t.begin_attempt(attempt)
        return attempt.serial

    serial = await registry.write(unit)
    return None if serial is None else await fleet.store(registry, serial)


async def test_many_devices_at_once_get_different_addresses(opened: Any, installed: Any, fleet: Any) -> None:
    registry = await opened()
    await installed(registry, 60)
    stored = await asyncio.gather(*(fleet.enroll(registry, f"cam-{n}") for n in range(60)))
    assert len({one.lease.address for one in stored}) == 60
    for n in range(60):
        await registry.write(lambda t, n=n: t.tombstone(fleet.id(f"cam-{n}"), fleet.now))
        await registry.write(lambda t, n=n: t.free_lease(fleet.id(f"cam-{n}"), fleet.now))
    again = await asyncio.gather(*(fleet.enroll(registry, f"new-{n}") for n in range(60)))
    assert {one.lease.address for one in again} == {one.lease.address for one in stored}
    assert len({one.lease.address for one in again}) == 60


async def test_one_id_with_many_keys_at_once_has_one_winner(registry: RegistryStore, fleet: Any) -> None:
    for n in range(5):
        requests = [fleet.request(f"cam-{n}", key=str(key), wg=str(key)) for key in range(16)]
        done = await asyncio.gather(*(enrolled_once(registry, fleet, request) for request in requests))
        assert sum(isinstance(one, Stored) for one in done) == 1
        issuances = await registry.read(lambda t, n=n: t.issuances(fleet.id(f"cam-{n}")))
        assert len(issuances) == 1


@pytest.mark.parametrize(("part", "error"), [("csr", KeyInUse), ("wg_key", WireGuardKeyInUse)])
async def test_one_key_under_many_ids_at_once_has_one_owner(
    registry: RegistryStore, fleet: Any, part: Any, error: Any
) -> None:
    shared = getattr(fleet.request("shared"), part)
    requests = [replace(fleet.request(f"cam-{n}"), **{part: shared}) for n in range(16)]
    done = await asyncio.gather(
        *(enrolled_once(registry, fleet, request) for request in requests), return_exceptions=True
    )
    assert Counter(type(one) for one in done) == {Stored: 1, error: 15}


async def test_one_registration_wins(registry: RegistryStore, fleet: Any) -> None:
    registration = Registration(fleet.id("cam-1"), fleet.now)
    done = await asyncio.gather(*(registry.write(lambda t: t.register(registration)) for _ in range(16)))
    assert Counter(done) == {True: 1, False: 15}


async def test_a_link_has_one_claimer(registry: RegistryStore, fleet: Any) -> None:
    for n in range(30):
        await fleet.enroll(registry, f"cam-{n}")
    claims = await asyncio.gather(
        *(
            registry.write(lambda t, n=n: t.claim_due(System.THINGSBOARD, f"me-{n}", fleet.now, fleet.later, 4))
            for n in range(16)
        )
    )
    taken = [claim.link.device.value for some in claims for claim in some]
    assert len(taken) == len(set(taken)) == 30


async def test_decommission_and_certificates_at_once_never_leave_anything_alive(
    registry: RegistryStore, fleet: Any
) -> None:
    serials = [await fleet.begin(registry, fleet.request(f"cam-{n}")) for n in range(16)]
    await asyncio.gather(
        *(fleet.store(registry, serial) for serial in serials),
        *(registry.write(lambda t, n=n: t.tombstone(fleet.id(f"cam-{n}"), fleet.now)) for n in range(16)),
    )
    for n, serial in enumerate(serials):
        picture = await registry.read(lambda t, n=n: t.picture(fleet.id(f"cam-{n}")))
        assert picture.current is None
        assert picture.revoking == (serial,)


PROCESS = """
import asyncio, json, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from bridge.model.facts import *
from bridge.model.identity import *
from bridge.model.records import *
from bridge.store.open import open_registry
import base64, hashlib

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DATABASE, LANE = sys.argv[1], int(sys.argv[2])

def request(name, key):
    spki = f"{name} {key}".encode()
    wg = base64.b64encode(hashlib.sha256(spki).digest()[:31] + b"\\x01").decode()
    return EnrollmentRequest(DeviceId(name), Csr(Pem("c"), Fingerprint.of(b"c"), Fingerprint.of(spki), b"", spki),
                             WireGuardKey(wg))

async def main():
    where = DATABASE if "://" in DATABASE else Path(DATABASE)
    store = await open_registry(where, systems=frozenset(System), quarantine=timedelta(), migrate=False)
    won = []
    async def one(number):
        # Even numbers are this process's own devices; odd ones are fought over.
        name = f"own-{LANE}-{number}" if number % 2 == 0 else f"both-{number}"
        wanted = request(name, f"key of {LANE}")
        serial = Serial((1 << 127) + LANE * 1000 + number)
        def unit(t):
            facts = t.facts(wanted, NOW)
            if facts.device is not None:
                return False
            t.begin_attempt(NewAttempt(wanted, Kind.FIRST, 1, False, serial, NOW + timedelta(seconds=15), NOW))
            return True
        if await store.write(unit):
            leaf = SignedLeaf(serial, Pem("l"), Pem("c"), Fingerprint.of(str(serial).encode()), NOW, NOW)
            stored = await store.write(lambda t: t.store_certificate(serial, leaf, NOW))
            won.append((name, str(stored.lease.address)))
    await asyncio.gather(*(one(number) for number in range(60)))
    await store.close()
    print(json.dumps(won))

asyncio.run(main())
"""


async def test_two_processes_share_one_database(opened: Any, installed: Any, database: str | Path) -> None:
    registry = await opened()
    await installed(registry, 200)
    command = [sys.executable, "-c", PROCESS, str(database)]
    processes = [
        subprocess.Popen(  # noqa: ASYNC220 - started at once, waited for in threads
            [*command, str(lane)], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        for lane in (1, 2)
    ]
    outputs = await asyncio.gather(*(asyncio.to_thread(process.communicate) for process in processes))
    assert [process.returncode for process in processes] == [0, 0]
    won = [tuple(one) for out, _ in outputs for one in json.loads(out)]
    names, addresses = zip(*won, strict=True)
    assert len(set(names)) == len(names) == 90
    assert len(set(addresses)) == 90


async def test_another_process_commit_is_noticed(opened: Any, registry: RegistryStore, fleet: Any) -> None:
    other = await opened(migrate=False)
    while await other.changed(0.6):
        pass
    waiting = asyncio.create_task(other.changed(20))
    await asyncio.sleep(0)
    await registry.write(lambda t: t.register(Registration(fleet.id("cam-1"), fleet.now)))
    assert await waiting
    # A process that listens itself tells the others, too.
    await registry.changed(0)
    while await other.changed(0.6):
        pass
    waiting = asyncio.create_task(other.changed(20))
    await asyncio.sleep(0)
    await fleet.enroll(registry, "cam-2")
    assert await waiting
