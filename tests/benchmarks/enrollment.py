"""The price of the bridge: step-ca signed directly, and through the bridge, by the same load, in turn.

Both sides durable and checked, one worker, 16 kept-alive connections. The figure that counts is the ratio of the two
rates within one run; rates alone say more about the machine.
"""

from __future__ import annotations

import json
import secrets
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import httpx
from identities import Identity, identity
from load import Load, Request
from servers import SECRET, Bridge, bridge

from ca.bootstrap import context_for_root
from ca.client import StepCaClient
from ca.provisioner_key import decrypt_key
from ca.token import TokenSigner
from compose.real.step_ca import RealStepCa

CONNECTIONS = 16
ROUNDS = 7
PER_ROUND = 600


@dataclass
class Figures:
    """What the rounds showed."""

    ratios: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Milliseconds of the bridge's CPU an enrollment."""
    p99: list[float] = field(default_factory=list)


async def measure(folder: Path) -> None:
    """Run all rounds and print the table."""
    ca = RealStepCa(folder / "step-ca")
    ca.start()
    try:
        trust = context_for_root(ca.anchor)
        signer = await _signer(ca, trust)
        for vpn in (False, True):
            with bridge(folder / f"vpn-{vpn}", ca, vpn=vpn) as server:
                await _rounds(server, ca, signer, trust, vpn=vpn)
    finally:
        ca.stop()


async def _rounds(server: Bridge, ca: RealStepCa, signer: TokenSigner, trust: ssl.SSLContext, *, vpn: bool) -> None:
    print(f"\nenrollment {'with VPN address, sync beside' if vpn else 'without VPN'}")
    at_rest, figures = server.memory(), Figures()
    direct, through = Load(ca.url, trust, CONNECTIONS), Load(server.url, trust, CONNECTIONS)
    last: list[Identity] = []
    for number in range(ROUNDS + 1):
        ones = [identity(f"d-{vpn}-{number}-{i}") for i in range(PER_ROUND)]
        plain = await direct.run([_direct(signer, one) for one in ones], frozenset({201}))
        last = [identity(f"b-{vpn}-{number}-{i}") for i in range(PER_ROUND)]
        before = server.cpu()
        bridged = await through.run([_through(one) for one in last], frozenset({201}))
        if number == 0:
            continue  # warms both up
        figures.ratios.append(bridged.rate / plain.rate)
        figures.cpu.append((server.cpu() - before) / PER_ROUND * 1000)
        figures.p99.append(bridged.percentile(0.99))
        print(
            f"  round {number}: step-ca {plain.rate:6.0f}/s   bridge {bridged.rate:6.0f}/s"
            f"   ratio {figures.ratios[-1]:.3f}   bridge CPU {figures.cpu[-1]:.2f} ms"
        )
    _print(figures)
    await _others(server, trust, last, through)
    await direct.close()
    await through.close()
    print(f"  memory of the bridge: {at_rest:.0f} MiB at rest, {server.memory():.0f} MiB after the load")


def _print(figures: Figures) -> None:
    ratios = figures.ratios
    print(
        f"  bridge / step-ca directly: median {median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f},"
        f" {len(ratios)} rounds of {PER_ROUND}, {CONNECTIONS} at a time)\n"
        f"  bridge CPU an enrollment: {median(figures.cpu):.2f} ms; p99 latency {median(figures.p99):.0f} ms"
    )


async def _others(server: Bridge, trust: ssl.SSLContext, last: Sequence[Identity], through: Load) -> None:
    before = server.cpu()
    again = await through.run([_through(one) for one in last], frozenset({200}))
    cpu = (server.cpu() - before) / len(last) * 1000
    print(
        f"  retry of a finished enrollment: {again.rate:.0f}/s, p99 {again.percentile(0.99):.0f} ms, CPU {cpu:.2f} ms"
    )
    hooks = Load(server.url, trust, CONNECTIONS, [("X-Bridge-Webhook-Secret", SECRET)])
    events = await hooks.run([_event(one) for one in last] * 3, frozenset({202}))
    await hooks.close()
    print(
        f"  webhook accepted: {events.rate:.0f}/s, p50 {events.percentile(0.5):.1f} ms,"
        f" p99 {events.percentile(0.99):.1f} ms"
    )


async def _signer(ca: RealStepCa, trust: ssl.SSLContext) -> TokenSigner:
    async with httpx.AsyncClient(verify=trust) as http:
        client = StepCaClient(http, ca.url)
        provisioner = await client.provisioner(ca.device_provisioner)
        key = decrypt_key(provisioner, await client.encrypted_key(provisioner.kid), ca.password)
    return TokenSigner(
        key, issuer=provisioner.name, url=ca.url, clock=lambda: datetime.now(UTC), randomness=secrets.token_bytes
    )


def _direct(signer: TokenSigner, one: Identity) -> Request:
    token = signer.for_sign(one.device, one.csr_der, secrets.randbits(127) | 1 << 127)
    return "/1.0/sign", json.dumps({"csr": one.csr_pem, "ott": token, "notAfter": "2160h"}).encode()


def _through(one: Identity) -> Request:
    return f"/devices/{one.device}/enroll", one.enroll_body()


def _event(one: Identity) -> Request:
    return "/webhooks/thingsboard", json.dumps({"event": "CONNECT_EVENT", "deviceName": one.device}).encode()
