"""The installation row: written once, compared at each start, one for all processes."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.adapters.tunnels import TunnelTerms
from bridge.app.installation import installed
from bridge.config import Mode, load
from bridge.errors import Misconfigured, PoolEmpty
from bridge.model.facts import Csr, EnrollmentRequest, NewAttempt
from bridge.model.identity import DeviceId, Fingerprint, Pem, Serial, WireGuardKey
from bridge.model.records import Installation, Kind, System
from bridge.store.open import RegistryStore, open_registry

NOW = datetime(2026, 5, 1, tzinfo=UTC)
ROOT, ISSUER, OTHER = (Fingerprint.of(name) for name in (b"root", b"issuer", b"other"))
SERVER_KEY = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="
CLOCK: Any = SimpleNamespace(now=lambda: NOW)
DICE: Any = SimpleNamespace(octets=os.urandom)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[RegistryStore]:
    store = await open_registry(
        tmp_path / "r.db", systems=frozenset(System), quarantine=timedelta(hours=1), migrate=True
    )
    yield store
    await store.close()


async def start(
    registry: Any,
    *,
    mode: Mode = Mode.EMBEDDED,
    tenant: str = "t",
    root: Fingerprint = ROOT,
    issuer: Fingerprint = ISSUER,
    vpn: bool = True,
    subnet: str = "10.8.0.0/24",
) -> Installation:
    terms = TunnelTerms(IPv4Network(subnet), "vpn.example.com:51820", SERVER_KEY) if vpn else None
    authority: Any = SimpleNamespace(root_sha256=root, issuing_sha256=issuer)
    return await installed(registry, load({"BRIDGE_TENANT": tenant}), mode, authority, terms, CLOCK, DICE)


async def test_second_start_finds_the_same_installation(registry: RegistryStore) -> None:
    first = await start(registry)
    assert await start(registry) == first
    assert (first.mode, first.tenant, first.root_sha256, first.issuing_sha256) == ("embedded", "t", ROOT, (ISSUER,))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mode": Mode.REAL}, "mode: the registry was made for embedded"),
        ({"tenant": "u"}, "BRIDGE_TENANT: the registry was made for t, this start is for u"),
        ({"root": OTHER}, f"root CA: the registry was made for {ROOT}"),
        ({"issuer": OTHER}, f"iot-bridge ca trust {OTHER}"),
    ],
)
async def test_start_for_something_else_is_refused_saying_what(
    registry: RegistryStore, changes: dict[str, Any], says: str
) -> None:
    await start(registry)
    with pytest.raises(Misconfigured) as refused:
        await start(registry, **changes)
    assert says in str(refused.value)
    assert "BRIDGE_DATA" in str(refused.value)


async def test_all_differences_are_told_at_once(registry: RegistryStore) -> None:
    await start(registry)
    with pytest.raises(Misconfigured) as refused:
        await start(registry, mode=Mode.REAL, tenant="u", root=OTHER, issuer=OTHER)
    assert all(word in str(refused.value) for word in ("mode", "BRIDGE_TENANT", "root CA", "ca trust"))


async def test_first_starts_of_many_processes_agree_on_one(registry: RegistryStore) -> None:
    assert len(set(await asyncio.gather(*(start(registry) for _ in range(5))))) == 1


async def test_process_that_looked_before_another_wrote_takes_the_others_row(registry: RegistryStore) -> None:
    first = await start(registry)

    class LateLook:
        """A transaction whose first look was a moment too early, as can be on PostgreSQL."""

        def __init__(self, tx: Any) -> None:
            self._tx, self._looked = tx, False

        def __getattr__(self, name: str) -> Any:
            return getattr(self._tx, name)

        def installation(self) -> Installation | None:
            early, self._looked = not self._looked, True
            return None if early else self._tx.installation()

    slow: Any = SimpleNamespace(write=lambda unit: registry.write(lambda tx: unit(LateLook(tx))))
    assert await start(slow) == first


async def lease(registry: RegistryStore, number: int) -> str:
    """Begin an attempt that wants an address; return the address."""
    name, key = DeviceId(f"dev-{number}"), Fingerprint.of(str(number).encode())
    wg_key = WireGuardKey(base64.b64encode(number.to_bytes(31, "big") + b"\x2a").decode())
    request = EnrollmentRequest(name, Csr(Pem("csr"), key, key, b"", b""), wg_key)
    attempt = NewAttempt(request, Kind.FIRST, 1, False, Serial((1 << 127) + number), NOW, NOW)
    await registry.write(lambda tx: tx.begin_attempt(attempt))
    held = await registry.read(lambda tx: tx.lease(name))
    assert held is not None
    return str(held.address)


async def test_without_a_vpn_there_is_no_address_to_lease_and_with_one_later_there_is(registry: RegistryStore) -> None:
    await start(registry, vpn=False)
    with pytest.raises(PoolEmpty):
        await lease(registry, 1 << 40)
    await start(registry, subnet="10.9.0.0/24")
    assert await lease(registry, 2 << 40) == "10.9.0.2"


async def test_subnet_that_was_widened_has_more_addresses(registry: RegistryStore) -> None:
    await start(registry, subnet="10.8.0.0/30")
    assert await lease(registry, 1 << 40) == "10.8.0.2"
    with pytest.raises(PoolEmpty):
        await lease(registry, 2 << 40)
    await start(registry, subnet="10.8.0.0/29")
    assert await lease(registry, 2 << 40) == "10.8.0.3"


async def test_subnet_that_leaves_leased_addresses_out_is_refused(registry: RegistryStore) -> None:
    await start(registry)
    await lease(registry, 1 << 40)
    with pytest.raises(Misconfigured, match=r"WG_SUBNET=10\.9\.0\.0/24 leaves out"):
        await start(registry, subnet="10.9.0.0/24")
    assert await lease(registry, 2 << 40) == "10.8.0.3"


async def test_issuing_ca_that_an_operator_trusts_may_start(registry: RegistryStore) -> None:
    await start(registry)
    assert await registry.write(lambda tx: tx.trust_issuer(OTHER, NOW))
    assert (await start(registry, issuer=OTHER)).issuing_sha256 == (ISSUER, OTHER)
    assert await start(registry, issuer=ISSUER)
    assert not await registry.write(lambda tx: tx.trust_issuer(OTHER, NOW))
