"""The installation row: what this registry was made for, written at the first start and compared at each."""

from __future__ import annotations

from ipaddress import IPv4Address

from bridge.adapters.connecting import Authority
from bridge.adapters.tunnels import TunnelTerms
from bridge.config import Mode, Settings
from bridge.errors import Misconfigured
from bridge.model.records import Installation
from bridge.ports.registry import Registry, Transaction
from bridge.ports.runtime import Clock, Randomness


async def installed(
    registry: Registry,
    settings: Settings,
    mode: Mode,
    authority: Authority,
    terms: TunnelTerms | None,
    clock: Clock,
    randomness: Randomness,
) -> Installation:
    """Return the installation, new at the first start.

    :raises Misconfigured: the registry was made for another mode, tenant, root or issuing CA, or ``WG_SUBNET`` does
        not hold every address that was leased.
    """
    wanted = Installation(
        id=randomness.octets(8).hex(),
        mode=mode.value,
        tenant=settings.bridge_tenant,
        root_sha256=authority.root_sha256,
        issuing_sha256=(authority.issuing_sha256,),
    )
    first, last = IPv4Address(1), IPv4Address(0)  # none at all
    if terms is not None:
        first, last = IPv4Address(terms.pool.first), IPv4Address(terms.pool.last)

    def unit(tx: Transaction) -> Installation:
        present = tx.installation()
        if present is None:
            tx.install(wanted, first, last, clock.now())
            present = tx.installation()  # another process may have been faster: its row stays
        return present or wanted

    present = await registry.write(unit)
    _compare(present, wanted)
    if terms is not None and not await registry.write(lambda tx: tx.adopt_pool(first, last)):
        raise Misconfigured(f"WG_SUBNET={terms.subnet} leaves out addresses that are leased; widen it, never move it")
    return present


def _compare(present: Installation, wanted: Installation) -> None:
    issuing = wanted.issuing_sha256[0]
    differences = [
        f"{what}: the registry was made for {was}, this start is for {now}"
        for what, was, now in (
            ("mode", present.mode, wanted.mode),
            ("BRIDGE_TENANT", present.tenant, wanted.tenant),
            ("root CA", present.root_sha256, wanted.root_sha256),
        )
        if was != now
    ]
    if issuing not in present.issuing_sha256:
        differences.append(
            f"issuing CA {issuing} is not trusted by this registry; if the tenant's sub-CA was replaced on purpose:"
            f" iot-bridge ca trust {issuing}"
        )
    if differences:
        raise Misconfigured("; ".join(differences) + " (another BRIDGE_DATA starts a registry of its own)")
