"""What the agent is made of: the time that its imports take, and what it writes to flash."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLES = 7
SHOWN = 12
AGENT = (sys.executable, "-m", "enroll")

_IMPORT = re.compile(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", re.MULTILINE)
_CALL = re.compile(r"^(?:\d+ +)?(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>\d+)", re.MULTILINE)
_FILE = re.compile(r"\d+<(/[^>]*)>")


def imports(variables: Mapping[str, str], folder: Path) -> None:
    """Print the milliseconds that imports take, by top package: least of some runs, for load only ever adds."""
    folder.mkdir()
    columns: dict[str, dict[str, int]] = {}
    for number in range(SAMPLES):
        device = {**variables, "DEVICE_ID": f"imports-{number}", "CERTS_DIR": str(folder / str(number))}
        for name, argument, environment in (
            ("first boot", "run", device),
            ("second boot", "run", device),
            ("status", "status", device),
            ("status, empty", "status", {**device, "CERTS_DIR": str(folder / "nothing")}),
            ("--help", "--help", device),
        ):
            column = columns.setdefault(name, {})
            for package, time in _import_times(argument, environment).items():
                column[package] = min(time, column.get(package, time))
    _print_imports(columns)


def _import_times(argument: str, environment: Mapping[str, str]) -> Counter[str]:
    command = [sys.executable, "-X", "importtime", "-m", "enroll", argument]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    times: Counter[str] = Counter()
    for microseconds, module in _IMPORT.findall(ended.stderr):
        times[module.partition(".")[0]] += int(microseconds)
    return times


def _print_imports(columns: Mapping[str, Mapping[str, int]]) -> None:
    largest: Counter[str] = Counter()
    for column in columns.values():
        for name, time in column.items():
            largest[name] = max(largest[name], time)
    shown = [name for name, _ in largest.most_common(SHOWN)]
    print(f"\nimports, milliseconds by top package (the interpreter's own included), least of {SAMPLES} runs")
    print(f"  {'':18}" + "".join(f"{name:>15}" for name in columns))
    for name in shown:
        print(f"  {name:18}" + "".join(_cell(column.get(name, 0)) for column in columns.values()))
    rest = [sum(time for name, time in column.items() if name not in shown) for column in columns.values()]
    print(f"  {'all others':18}" + "".join(map(_cell, rest)))
    print(f"  {'together':18}" + "".join(_cell(sum(column.values())) for column in columns.values()))


def _cell(microseconds: int) -> str:
    return f"{microseconds / 1000:>15.1f}" if microseconds else f"{'-':>15}"


@dataclass(frozen=True)
class Wear:
    """What a command did to the folder."""

    written: int
    """Bytes."""
    files: int
    """Files written to."""
    syncs: int
    renames: int


def flash(variables: Mapping[str, str], folder: Path, pipeline: Path) -> None:
    """Print what reaches the medium below the device's folder, as the kernel is asked for it."""
    strace = shutil.which("strace")
    if strace is None:
        print("\nwrites to flash: not measured, strace is missing")
        return
    folder.mkdir()
    agent = {**variables, "DEVICE_ID": "flash", "CERTS_DIR": str(folder / "agent")}
    shell = {**variables, "DEVICE_ID": "flash-shell", "CERTS_DIR": str(folder / "shell")}
    print(f"\nwrites to flash{'bytes':>26}{'files':>8}{'syncs':>8}{'renames':>9}")
    for name, command, environment in (
        ("first enrollment", (*AGENT, "run"), agent),
        ("second boot", (*AGENT, "run"), agent),
        ("renewal", (*AGENT, "renew"), agent),
        ("boot after it", (*AGENT, "run"), agent),
        ("shell pipeline, first enrollment", ("bash", str(pipeline)), shell),
    ):
        wear = _wear(strace, command, environment, folder)
        print(f"  {name:33}{wear.written:>6}{wear.files:>8}{wear.syncs:>8}{wear.renames:>9}")


def _wear(strace: str, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Wear:
    log = folder / "calls"
    calls = "trace=write,writev,pwrite64,copy_file_range,fsync,fdatasync,rename,renameat,renameat2"
    options = ["-f", "-y", "-qq", "-s", "0", "-e", calls, "-e", "signal=none", "-o", str(log)]
    ended = subprocess.run([strace, *options, *command], env=environment, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{ended.stdout}{ended.stderr}")
    device = environment["CERTS_DIR"]
    written: Counter[str] = Counter()
    syncs = renames = 0
    for call in _CALL.finditer(log.read_text()):
        file = _FILE.match(call["arguments"])
        if call["name"].startswith("rename"):
            renames += 1
        elif file is None or not file[1].startswith(device):
            continue
        elif call["name"] in {"fsync", "fdatasync"}:
            syncs += 1
        else:
            written[file[1]] += int(call["result"])
    return Wear(written.total(), len(written), syncs, renames)
