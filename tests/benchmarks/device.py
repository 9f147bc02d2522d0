"""The price of the device's agent: a cold start up to the flag, beside the shell pipeline that it replaces, in turn.

Both make the same requests of one bridge and leave the same files. The figure that counts is the ratio of CPU time
within one run: time on the wall says as much about what else the machine does, and about the bridge.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import footprint
from servers import Bridge, embedded

ROUNDS = 15
AGENT_FLAG = '"event": "enrolled"'
HERE = Path(__file__).parent
NEEDED = ("bash", "openssl", "curl", "jq", "wg")


@dataclass(frozen=True)
class Contestant:
    """One way to enroll a device."""

    name: str
    command: tuple[str, ...]
    flag: str = AGENT_FLAG
    """What it prints once the flag is on the medium; empty: it ends there."""


@dataclass
class Cost:
    """What the rounds of one contestant cost."""

    wall: list[float] = field(default_factory=list)
    """Milliseconds."""
    cpu: list[float] = field(default_factory=list)
    """Milliseconds, user and system, of the process and its children."""
    memory: list[float] = field(default_factory=list)
    """MiB, of the largest process."""


async def measure(folder: Path) -> None:
    """Run all rounds, and print them and what the agent is made of."""
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        raise SystemExit(f"the shell pipeline needs {', '.join(missing)}; install them (compose/real/install.sh does)")
    zipapp = _zipapp(folder)
    with embedded(folder / "bridge") as bridge:
        _rounds(bridge, folder, zipapp)
        footprint.imports(bridge.variables(), folder / "imports")
        footprint.flash(bridge.variables(), folder / "flash", HERE / "pipeline.sh")


def _zipapp(folder: Path) -> Path | None:
    """Build the zipapp from the sources as they are; without its libraries (no network) it is left out."""
    made = folder / "iot-enroll.pyz"
    script = HERE.parents[1] / "packaging" / "agent" / "build_zipapp.py"
    built = subprocess.run(
        [sys.executable, str(script), "--output", str(made)], capture_output=True, text=True, check=False
    )
    if built.returncode != 0:
        print(f"\nwithout the zipapp, which cannot be built: {built.stderr.strip()}")
        return None
    return made


def _contestants(zipapp: Path | None) -> list[Contestant]:
    installed = Path(sys.executable).with_name("iot-enroll")
    found = [
        Contestant("shell pipeline", (shutil.which("bash") or "bash", str(HERE / "pipeline.sh")), flag=""),
        Contestant("iot-enroll", (str(installed), "run", "--json")),
        Contestant("python -m enroll", (sys.executable, "-m", "enroll", "run", "--json")),
    ]
    if zipapp is not None:
        found.append(Contestant("zipapp, -I", (sys.executable, "-I", str(zipapp), "run", "--json")))
    return found


def _rounds(bridge: Bridge, folder: Path, zipapp: Path | None) -> None:
    contestants = _contestants(zipapp)
    costs = [Cost() for _ in contestants]
    for number in range(ROUNDS + 1):
        for place, (contestant, cost) in enumerate(zip(contestants, costs, strict=True)):
            wall, cpu, memory = _once(contestant, bridge.variables(), folder / f"device-{number}-{place}")
            if number == 0:
                continue  # the first round warms the page cache and the byte code
            cost.wall.append(wall)
            cost.cpu.append(cpu)
            cost.memory.append(memory)
    _print(contestants, costs)
    _print_jq(contestants, costs, bridge.variables())
    if zipapp is not None:
        print(f"  the zipapp has {zipapp.stat().st_size / 1024:.0f} KiB")


def _once(contestant: Contestant, variables: Mapping[str, str], folder: Path) -> tuple[float, float, float]:
    """Enroll one device in a new folder and return milliseconds, CPU milliseconds and MiB."""
    environment = {**variables, "DEVICE_ID": folder.name, "CERTS_DIR": str(folder)}
    cost = _stopwatch(contestant.command, contestant.flag, environment)
    if not (folder / "enrolled").exists():
        raise SystemExit(f"{contestant.name} ended well and did not enroll")
    return cost


def _stopwatch(command: Sequence[str], flag: str, environment: Mapping[str, str]) -> tuple[float, float, float]:
    told = subprocess.run(
        [sys.executable, "-I", "-S", str(HERE / "stopwatch.py"), flag, *command],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    failed, wall, cpu, memory = told.stdout.split()
    if failed != "0":
        raise SystemExit(f"{' '.join(command)} failed:\n{told.stderr}")
    return float(wall) * 1000, float(cpu) * 1000, float(memory) / 1024


def _print(contestants: list[Contestant], costs: list[Cost]) -> None:
    pipeline = costs[0]
    print(
        f"\nfirst enrollment, cold start to the flag, median of {ROUNDS} rounds in turn (bash, openssl, wg, curl, jq"
        " against one process;\nno MQTT, no tunnel and no inventory on either side)\n"
        f"  {'':18}{'CPU ms':>8}{'(least)':>9}{'wall ms':>9}{'(least)':>9}{'MiB':>7}   ratio of CPU, of wall"
    )
    for contestant, cost in zip(contestants, costs, strict=True):
        line = (
            f"  {contestant.name:18}{median(cost.cpu):>8.0f}{min(cost.cpu):>9.0f}"
            f"{median(cost.wall):>9.0f}{min(cost.wall):>9.0f}{median(cost.memory):>7.1f}"
        )
        if cost is not pipeline:
            line += f"   {_ratio(cost.cpu, pipeline.cpu):.2f}  {_ratio(cost.wall, pipeline.wall):.2f}"
        print(line)


def _print_jq(contestants: list[Contestant], costs: list[Cost], variables: Mapping[str, str]) -> None:
    """Print what the pipeline pays for jq alone: 1.6 compiles its library at each start, later ones hardly do."""
    jq = shutil.which("jq") or "jq"
    version = subprocess.run([jq, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    starts = [_stopwatch((jq, "-n", "1"), "", variables)[1] for _ in range(ROUNDS)]
    calls = (HERE / "pipeline.sh").read_text().count("jq -")
    share = calls * median(starts)
    without = [[cpu / (theirs - share) for cpu, theirs in zip(c.cpu, costs[0].cpu, strict=True)] for c in costs]
    print(
        f"  of the pipeline's CPU {share:.0f} ms are {calls} starts of {version}; with a jq that cost nothing the ratio"
        " of CPU would be "
        + ", ".join(f"{median(ratios):.2f} ({c.name})" for c, ratios in zip(contestants[1:], without[1:], strict=True))
    )


def _ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median over the rounds: what else the machine did in one hit both sides of it."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))
