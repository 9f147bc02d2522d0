"""The server of victims: learns the outside once, then forks a fresh process for each plan and reports its end.

    python -m tests.crash.victim OUTSIDE.json

Plans come in as lines of JSON and go out as lines of the plan's folder, a tab, and the exit status (negative: the
signal). A fork of a process that holds no thread costs milliseconds, where a new interpreter would cost a second.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import selectors
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from bridge.store.rows import micros
from tests.crash.house import House, Prepared, open_house, prepare
from tests.crash.plan import Outside, Plan
from tests.crash.scenarios import SCENARIOS, Seen


async def live(plan: Plan, prepared: Prepared) -> dict[str, Any]:
    """Live through the scenario, to the end or to the death that the plan has; return the report."""
    scenario = SCENARIOS[plan.scenario]
    async with open_house(plan, prepared) as house:
        if plan.recovering:
            return await _recover(house)
        await scenario.before(house)
        house.fuse.live = True
        await scenario.act(house)
        house.fuse.live = False
        return {}


async def _recover(house: House) -> dict[str, Any]:
    at_start, seen = house.tables(), Seen()
    started_at = house.clock.now()
    at_death = await _doors(house)
    await SCENARIOS[house.plan.scenario].repeat(house, seen)
    platform = await house.raw_platform.find(house.device)
    target = await house.updates.find(house.device)
    applied = await house.tunnels.applied()
    return {
        "at_start": at_start,
        "at_end": house.tables(),
        "doors_at_start": at_death,
        "started_at": micros(started_at),
        **asdict(seen),
        "crl": sorted(str(serial) for serial in await house.authority.revoked()),
        "platform": None if platform is None else asdict(platform),
        "attributes": {} if platform is None else await _attributes(house, platform),
        "target": None if target is None else asdict(target),
        "peers": [] if applied is None else sorted((str(key), str(address)) for key, address in applied.peers),
    }


async def _doors(house: House) -> dict[str, Any]:
    """Return what decides at the doors whom they open to, before anybody comes again."""
    platform = await house.raw_platform.find(house.device)
    return {
        "credential": None if platform is None else platform.credential,
        "crl": sorted(str(serial) for serial in await house.authority.revoked()),
    }


async def _attributes(house: House, platform: Any) -> dict[str, Any]:
    return dict(await house.raw_platform.attributes(platform, ("iot_bridge", "wireguard_ip")))


def _run(line: str, prepared: Prepared) -> NoReturn:
    """Be a victim: streams of its own, no way back into the server's loop."""
    plan = Plan.read(line)
    log = os.open(plan.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    status = 1
    try:
        report = asyncio.run(live(plan, prepared))
        plan.report.write_text(json.dumps(report, default=str))
        status = 0
    except BaseException:  # noqa: BLE001 - the parent reads it in the log
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _serve(prepared: Prepared) -> None:
    """Fork for each line that comes in until there are no more; tell the end of each child."""
    waiting: dict[int, tuple[int, str]] = {}
    pending, ended = b"", False
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        while waiting or not ended:
            for key, _ in selector.select():
                if key.fd != 0:
                    pid, folder = waiting.pop(key.fd)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _, status = os.waitpid(pid, 0)
                    os.write(1, f"{folder}\t{os.waitstatus_to_exitcode(status)}\n".encode())
                    continue
                read = os.read(0, 1 << 16)
                if not read:
                    ended = True
                    selector.unregister(0)
                *lines, pending = (pending + read).split(b"\n")
                for line in lines:
                    pid = os.fork()
                    if pid == 0:
                        _run(line.decode(), prepared)
                    descriptor = os.pidfd_open(pid)
                    waiting[descriptor] = (pid, Plan.read(line.decode()).folder)
                    selector.register(descriptor, selectors.EVENT_READ)


def main() -> None:
    """Serve until standard input ends."""
    outside = Outside(**json.loads(Path(sys.argv[1]).read_text()))
    prepared = asyncio.run(prepare(outside))
    # What was loaded stays shared: a child's collector would touch, and so copy, every page of it.
    gc.collect()
    gc.freeze()
    gc.disable()
    _serve(prepared)


if __name__ == "__main__":
    main()
