"""Does a large fleet make anything slower? Hot units of work on a registry of 1,000 and of 100,000 devices."""

from __future__ import annotations

import base64
import secrets
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from statistics import median
from typing import Any

from identities import identity

from bridge.enrollment.csr import parse_csr
from bridge.model.facts import EnrollmentRequest, NewAttempt, SignedLeaf
from bridge.model.identity import DeviceId, Fingerprint, Pem, Serial, WireGuardKey
from bridge.model.records import Installation, Kind, System
from bridge.store.open import RegistryStore, open_registry

SIZES = (1_000, 100_000)
SAMPLES = 300
Times = dict[str, list[float]]
_LEAF = Pem("-----BEGIN CERTIFICATE-----\n" + "A" * 900 + "\n-----END CERTIFICATE-----\n")


async def measure(folder: Path) -> None:
    """Print microseconds a unit, each alone in its transaction; the two fleets take turns, so that noise hits both."""
    now = datetime.now(UTC)
    fleets = [await _fleet(folder / f"{size}.sqlite", size, now) for size in SIZES]
    times: list[Times] = [{} for _ in SIZES]
    try:
        for number in range(SAMPLES):
            for registry, column in zip(fleets, times, strict=True):
                await _units(registry, number, now, column)
    finally:
        for registry in fleets:
            await registry.close()
    print(f"\nhot units of work, microseconds, median of {SAMPLES}, commit included where it writes")
    print(f"  {'':42}{SIZES[0]:>10,}{SIZES[1]:>12,}   ratio")
    for name in times[0]:
        small, large = (median(column[name]) for column in times)
        print(f"  {name:42}{small:>10.0f}{large:>12.0f}   {large / small:.2f}")


async def _fleet(path: Path, size: int, now: datetime) -> RegistryStore:
    registry = await open_registry(path, systems=frozenset(System), quarantine=timedelta(days=1), migrate=True)
    digest = Fingerprint("0" * 64)
    installation = Installation("bench", "real", "bench", digest, (digest,))
    await registry.write(
        lambda tx: tx.install(installation, IPv4Address("10.64.0.2"), IPv4Address("10.127.255.254"), now)
    )
    await registry.close()
    _fill(path, size)
    return await open_registry(path, systems=frozenset(System), quarantine=timedelta(days=1), migrate=False)


def _fill(path: Path, size: int) -> None:
    """Write enrolled devices straight into the tables: what is measured is finding among them."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA foreign_keys=ON")
    moment = int(datetime.now(UTC).timestamp() * 1_000_000)
    with database:
        for number in range(size):
            _insert(database, f"fleet-{number:06}", number, moment)
        database.execute("UPDATE lease_pool SET next_address = ?", (int(IPv4Address("10.64.0.2")) + size,))
    database.close()


def _insert(database: sqlite3.Connection, name: str, number: int, moment: int) -> None:
    spki, wg_key = secrets.token_hex(32), base64.b64encode(number.to_bytes(31, "big") + b"\x2a").decode()
    database.execute(
        "INSERT INTO device (id_folded, id, state, epoch, generation, proven, registered, abandoned, created_at)"
        " VALUES (?, ?, 'active', 2, 1, 0, 0, 0, ?)",
        (name, name, moment),
    )
    database.execute("INSERT INTO device_key (spki, device, generation) VALUES (?, ?, 1)", (spki, name))
    database.execute("INSERT INTO wireguard_key (public_key, device, generation) VALUES (?, ?, 1)", (wg_key, name))
    database.execute(
        "INSERT INTO lease (address, device, public_key) VALUES (?, ?, ?)",
        (int(IPv4Address("10.64.0.2")) + number, name, wg_key),
    )
    database.execute(
        "INSERT INTO issuance (serial, device, device_state, epoch, generation, kind, proven, spki, state, deadline,"
        " refused, taken, wg_public_key, leaf, chain, leaf_sha256, not_before, not_after, created_at)"
        " VALUES (?, ?, 'active', 1, 1, 'first', 0, ?, 'current', ?, 0, 1, ?, ?, ?, ?, ?, ?, ?)",
        (str(secrets.randbits(127)), name, spki, moment, wg_key, _LEAF, _LEAF, spki, moment, moment, moment),
    )
    for system in ("thingsboard", "hawkbit", "wireguard"):
        database.execute(
            "INSERT INTO link (device, system, device_state, wanted, foreign_object, settled_at, hints, attempts)"
            " VALUES (?, ?, 'active', 'present', 0, ?, 0, 0)",
            (name, system, moment),
        )


async def _units(registry: RegistryStore, number: int, now: datetime, times: Times) -> None:
    async def timed(name: str, way: Callable[..., Any], unit: Callable[..., Any]) -> Any:
        begun = time.perf_counter()
        result = await way(unit)
        times.setdefault(name, []).append((time.perf_counter() - begun) * 1e6)
        return result

    deadline = now + timedelta(hours=1)
    known = DeviceId(f"fleet-{number:06}")
    request = _request(f"new-{number}")
    attempt = NewAttempt(request, Kind.FIRST, 1, False, Serial.from_random(secrets.token_bytes(16)), deadline, now)
    signed = SignedLeaf(attempt.serial, _LEAF, _LEAF, Fingerprint(secrets.token_hex(32)), now, now + timedelta(days=90))
    read, write = registry.read, registry.write
    await timed("facts", read, lambda tx: tx.facts(request, now))
    await timed("begin attempt, address leased", write, lambda tx: tx.begin_attempt(attempt))
    await timed("store certificate, links due", write, lambda tx: tx.store_certificate(signed.serial, signed, now))
    await timed("facts of a finished enrollment (retry)", read, lambda tx: tx.facts(request, now))
    await timed("hint of a webhook", write, lambda tx: tx.hint((known,), now))
    claims = await timed(
        "claim of one due link", write, lambda tx: tx.claim_due(System.THINGSBOARD, "bench", now, deadline, 1)
    )
    if len(claims) != 1:
        raise RuntimeError("one link was due, and none was claimed")
    await timed("picture for the reconciler", read, lambda tx: tx.picture(known))


def _request(device: str) -> EnrollmentRequest:
    one = identity(device)
    parsed = DeviceId(device)
    key = one.wg_public_key
    return EnrollmentRequest(parsed, parse_csr(one.csr_pem, parsed), WireGuardKey(key))
