"""The price of the audit trail's seals: the same load on the same bridge, with and without its sequencer at work.

The product has no switch for it. Here another holder takes the sequencer's turn, as another server would have it: then
the bridge only inserts its entries. What a round left unsealed is sealed before the next one begins, so that neither
side carries the other's work. Both sides take turns at being first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from identities import identity
from load import Load
from servers import Bridge, bridge
from sqlalchemy import text

from bridge.audit.trail import Against, verify_registry
from bridge.model.records import System
from bridge.store.open import RegistryStore, open_registry
from ca.bootstrap import context_for_root
from compose.real.step_ca import RealStepCa

CONNECTIONS = 16
ROUNDS = 6
PER_ROUND = 400
_HOLDER = "benchmark"


async def measure(folder: Path) -> None:
    """Run all rounds and print the ratio."""
    ca = RealStepCa(folder / "step-ca")
    ca.start()
    try:
        with bridge(folder / "bridge", ca, vpn=False) as server:
            path = folder / "bridge" / "data" / "registry.sqlite"
            registry = await open_registry(path, systems=frozenset(System), quarantine=timedelta(days=1), migrate=False)
            load = Load(server.url, context_for_root(ca.anchor), CONNECTIONS)
            try:
                await _rounds(server, load, registry)
            finally:
                await load.close()
                await registry.close()
    finally:
        ca.stop()


async def _rounds(server: Bridge, load: Load, registry: RegistryStore) -> None:
    print("\nenrollment, SQLite, real step-ca: sequencer at work / another holds its turn")
    ratios, sealed_cpu, bare_cpu, later_cpu = [], [], [], []
    for number in range(ROUNDS + 1):
        rates: dict[bool, float] = {}
        for sealing in (number % 2 == 0, number % 2 == 1):
            if not sealing:
                _take_turn(registry)
            requests = _requests(f"a-{number}-{sealing}")
            before = server.cpu()
            round_ = await load.run(requests, frozenset({201}))
            rates[sealing] = round_.rate
            cpu, place = server.cpu() - before, sealed_cpu if sealing else bare_cpu
            begun = server.cpu()
            await registry.write(lambda tx: tx.give_turn_back(_HOLDER))
            await _all_sealed(registry)
            if number and not sealing:
                later_cpu.append((server.cpu() - begun) / PER_ROUND * 1000)
            if number:
                place.append(cpu / PER_ROUND * 1000)
        if number:  # the first warms up
            ratios.append(rates[True] / rates[False])
            print(f"  round {number}: sealing {rates[True]:6.0f}/s   not {rates[False]:6.0f}/s   {ratios[-1]:.3f}")
    _print(ratios, sealed_cpu, bare_cpu, later_cpu)
    verdict = await verify_registry(registry, Against())
    if not verdict.good or verdict.unsealed:
        raise RuntimeError(f"the trail is not good: {verdict}")
    print(f"  the trail is good: {verdict.entries} entries, {verdict.heads} heads")


def _print(ratios: list[float], sealed: list[float], bare: list[float], later: list[float]) -> None:
    print(
        f"  rate with seals / without: median {median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f},"
        f" {len(ratios)} rounds of {PER_ROUND}, {CONNECTIONS} at a time)\n"
        f"  bridge CPU an enrollment: {median(sealed):.2f} ms, without seals {median(bare):.2f} ms, ratio"
        f" {median(sealed) / median(bare):.3f}; sealing afterwards, with all that idles beside: {median(later):.2f} ms"
    )


def _requests(prefix: str) -> Sequence[tuple[str, bytes]]:
    ones = [identity(f"{prefix}-{number}") for number in range(PER_ROUND)]
    return [(f"/devices/{one.device}/enroll", one.enroll_body()) for one in ones]


def _take_turn(registry: RegistryStore) -> None:
    """Take the sequencer's turn away, for an hour: the bridge's next seal is not let through, and it waits."""
    until = datetime.now(UTC).timestamp() * 1_000_000 + 3_600_000_000
    with registry.engine.begin() as connection:
        values = {"holder": _HOLDER, "until": int(until)}
        connection.execute(text("UPDATE audit_sequencer SET holder = :holder, until = :until"), values)


async def _all_sealed(registry: RegistryStore) -> None:
    """Look every fiftieth of a second: the sealing is another process's."""
    left = 1
    while left:
        left = await registry.read(lambda tx: tx.unsealed_count())
        await asyncio.sleep(0.02)
