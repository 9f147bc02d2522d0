"""The price of the bridge: step-ca signed directly, and through the bridge, by the same load, in turn.

Both sides durable, one worker, 16 kept-alive connections. The figure that counts is the ratio of the two rates within
one run; rates alone say more about the machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from identities import Identity, identity
from load import Load, median

from ca.bootstrap import context_for_root
from ca.provisioner_key import decrypt_key
from ca.client import StepCaClient
from ca.token import TokenSigner

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "compose" / "real"))

from step_ca import RealStepCa  # noqa: E402 - a script of the project's own, found by path

CONNECTIONS = 16
ROUNDS = 7
PER_ROUND = 600
_TICK = os.sysconf("SC_CLK_TCK")


class Bridge:
    """``iot-bridge serve`` as a process of its own, in front of a real step-ca."""

    def __init__(self, folder: Path, ca: RealStepCa) -> None:
        self._folder = folder
        self._ready = folder / "ready.json"
        environment = {
            **{name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}},
            "STEP_CA_URL": ca.url,
            "STEP_CA_FINGERPRINT": ca.fingerprint.value,
            "STEP_CA_PROVISIONER_NAME": ca.device_provisioner,
            "STEP_CA_PROVISIONER_PASSWORD": ca.password,
            "STEP_CA_SERVER_PROVISIONER_NAME": ca.server_provisioner,
            "STEP_CA_SERVER_PROVISIONER_PASSWORD": ca.password,
            "BRIDGE_PUBLIC_HOST": "localhost",
            "BRIDGE_ADMISSION": "open",
            **({} if os.environ.get("NOWG") else {
            "WG_SUBNET": "10.64.0.0/10",
            "WG_SERVER_ENDPOINT": "vpn.example.com:51820",
            "WG_SERVER_PUBLIC_KEY": "2Bk3gPBEvXyKGkr2Ie5ZFxvBD7pFDIvUxUVBLQ1vEFk="}),
            "BRIDGE_WEBHOOK_SECRET": "benchmark",
        }
        command = [sys.executable, "-m", "bridge", "serve", "--data", str(folder / "data"), "--port", "0"]
        with (folder / "bridge.log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own server
                [*command, "--ready-file", str(self._ready)], env=environment, stdout=log, stderr=log
            )
        self.url = self._await_ready()

    def _await_ready(self) -> str:
        end = time.monotonic() + 30
        while time.monotonic() < end and self._process.poll() is None:
            if self._ready.exists():
                return str(json.loads(self._ready.read_text())["url"])
            time.sleep(0.05)  # noqa: TID251 - waiting for a process
        raise SystemExit("the bridge did not start:\n" + (self._folder / "bridge.log").read_text())

    def cpu(self) -> float:
        """Seconds of CPU used so far, by all threads."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def memory(self) -> float:
        """Resident memory in MiB."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def stop(self) -> None:
        """End it as an operator would."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(15)


async def _signer(ca: RealStepCa, trust: ssl.SSLContext) -> TokenSigner:
    import httpx  # noqa: PLC0415 - only here

    async with httpx.AsyncClient(verify=trust) as http:
        client = StepCaClient(http, ca.url)
        provisioner = await client.provisioner(ca.device_provisioner)
        key = decrypt_key(provisioner, await client.encrypted_key(provisioner.kid), ca.password)
    return TokenSigner(
        key, issuer=provisioner.name, url=ca.url, clock=lambda: datetime.now(UTC), randomness=secrets.token_bytes
    )


def _direct(signer: TokenSigner, one: Identity) -> tuple[str, bytes]:
    token = signer.for_sign(one.device, one.csr_der, secrets.randbits(127) | 1 << 127)
    return "/1.0/sign", json.dumps({"csr": one.csr_pem, "ott": token, "notAfter": "2160h"}).encode()


def _through(one: Identity) -> tuple[str, bytes]:
    return f"/devices/{one.device}/enroll", one.enroll_body()


async def measure(folder: Path, rounds: int = ROUNDS, per_round: int = PER_ROUND) -> None:
    """Print the table."""
    ca = RealStepCa(folder / "step-ca")
    ca.start()
    try:
        idle_bridge = Bridge(folder, ca)
        try:
            await _measure(ca, idle_bridge, rounds, per_round)
        finally:
            idle_bridge.stop()
    finally:
        ca.stop()


async def _measure(ca: RealStepCa, bridge: Bridge, rounds: int, per_round: int) -> None:
    trust = context_for_root(ca.anchor)
    signer = await _signer(ca, trust)
    at_rest = bridge.memory()
    direct, through = Load(ca.url, trust, CONNECTIONS), Load(bridge.url, trust, CONNECTIONS)
    await direct.connect()
    await through.connect()
    pairs, cpus, p99 = [], [], []
    last: list[Identity] = []
    for number in range(rounds + 1):
        ones = [identity(f"bench-d-{number}-{i}") for i in range(per_round)]
        plain = await direct.run([_direct(signer, one) for one in ones], frozenset({201}))
        last = [identity(f"bench-b-{number}-{i}") for i in range(per_round)]
        before = bridge.cpu()
        bridged = await through.run([_through(one) for one in last], frozenset({201}))
        cpu = (bridge.cpu() - before) / per_round * 1000
        if number == 0:
            continue  # the first round warms both up
        pairs.append(bridged.rate / plain.rate)
        cpus.append(cpu)
        p99.append(bridged.percentile(0.99))
        print(
            f"round {number}: step-ca {plain.rate:7.0f}/s   bridge {bridged.rate:7.0f}/s"
            f"   ratio {pairs[-1]:.3f}   bridge CPU {cpu:.2f} ms"
        )
    before = bridge.cpu()
    again = await through.run([_through(one) for one in last], frozenset({200}))
    retry_cpu = (bridge.cpu() - before) / per_round * 1000
    hooks = Load(bridge.url, trust, CONNECTIONS, [("X-Bridge-Webhook-Secret", "benchmark")])
    await hooks.connect()
    event = [
        ("/webhooks/thingsboard", json.dumps({"event": "CONNECT_EVENT", "deviceName": one.device}).encode())
        for one in last
    ]
    events = await hooks.run(event * 3, frozenset({202}))
    for load in (direct, through, hooks):
        await load.close()
    print()
    print(f"enrollment, bridge / step-ca directly   median {median(pairs):.3f}   (min {min(pairs):.3f}, max {max(pairs):.3f}, {rounds} rounds of {per_round})")
    print(f"bridge CPU per enrollment               {median(cpus):.2f} ms;  p99 latency at 16 at a time {median(p99):.0f} ms")
    print(f"retry of a finished enrollment          {again.rate:.0f}/s, p99 {again.percentile(0.99):.0f} ms, CPU {retry_cpu:.2f} ms")
    print(f"webhook accepted                        {events.rate:.0f}/s, p50 {events.percentile(0.5):.1f} ms, p99 {events.percentile(0.99):.1f} ms")
    print(f"memory of the bridge                    {at_rest:.0f} MiB at rest, {bridge.memory():.0f} MiB after the load")


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(measure(Path(temporary)))
