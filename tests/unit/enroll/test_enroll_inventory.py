"""The inventory over trees of files: whole, missing, unreadable, huge and full of rubbish."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.routes.bodies import parse_fields
from enroll import inventory
from enroll.wire import MAX_BODY

BOARD: dict[str, Any] = {
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "sys/devices/system/cpu/present": "0-3\n",
    "proc/meminfo": "MemTotal:        3884096 kB\nMemFree: 1 kB\n",
    "etc/os-release": 'NAME="Poky"\nPRETTY_NAME="Poky \\"nano\\" 4.0"\n',
    "proc/sys/kernel/arch": "aarch64\n",
    "proc/sys/kernel/osrelease": "6.1.21-v8+\n",
    "proc/sys/kernel/hostname": "pump-7\n",
    "proc/net/route": "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    "wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n"
    "eth0\t00000000\t0102000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
    "eth0\t0002000A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"
    "wlan0\t0001A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0\n",
    "proc/net/fib_trie": "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n"
    "Local:\n        |-- 127.0.0.1\n           /32 host LOCAL\n        |-- 192.168.1.9\n           /32 host LOCAL\n"
    "        |-- 10.0.2.15\n           /32 host LOCAL\n        |-- 10.0.2.255\n           /32 link BROADCAST\n",
    "proc/net/if_inet6": "fe800000000000000000000000000001 02 40 20 80 eth0\n"
    "fd000000000000000000000000000002 02 40 00 80 eth0\n00000000000000000000000000000001 01 80 10 80 lo\n",
    "sys/class/net/eth0/address": "DC:A6:32:00:00:01\n",
    "sys/class/net/eth0/type": "1\n",
    "sys/class/net/eth0/uevent": "INTERFACE=eth0\nIFINDEX=2\n",
    "sys/class/net/wlan0/address": "dc:a6:32:00:00:02\n",
    "sys/class/net/wlan0/type": "1\n",
    "sys/class/net/wlan0/uevent": "DEVTYPE=wlan\nINTERFACE=wlan0\n",
}


def grow(root: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def test_a_board_tells_what_the_wire_names(tmp_path: Path) -> None:
    seen = inventory.read(grow(tmp_path, BOARD))
    assert seen.hardware == {
        "model": "Raspberry Pi 4 Model B Rev 1.4",
        "cpu_cores": 4,
        "ram_mb": 3793,
        "os": 'Poky "nano" 4.0',
        "arch": "aarch64",
        "kernel": "6.1.21-v8+",
    }
    assert seen.network == {
        "hostname": "pump-7",
        "ip": "10.0.2.15",
        "mac": "dc:a6:32:00:00:01",
        "connection": "ethernet",
        "addresses": ["192.168.1.9", "10.0.2.15", "fd00::2"],
    }


@pytest.mark.parametrize("gone", sorted(BOARD))
def test_each_file_may_be_missing_or_a_folder_or_rubbish(tmp_path: Path, gone: str) -> None:
    whole = inventory.read(grow(tmp_path / "whole", BOARD))
    fields = {**whole.hardware, **whole.network}
    for name, content in (("missing", None), ("folder", "/"), ("rubbish", os.urandom(3000)), ("empty", b"")):
        root = grow(tmp_path / name, {k: v for k, v in BOARD.items() if k != gone})
        if content == "/":
            (root / gone).mkdir(parents=True, exist_ok=True)
        elif content is not None:
            grow(root, {gone: content})
        seen = inventory.read(root)
        kept = {**seen.hardware, **seen.network}
        lost = {field for field in fields if kept.get(field) != fields[field]}
        assert len(lost) <= (3 if gone == "proc/net/route" else 2)


def test_nothing_at_all_is_an_empty_inventory_but_for_the_processor(tmp_path: Path) -> None:
    seen = inventory.read(tmp_path)
    assert seen.hardware == {"arch": os.uname().machine}
    assert seen.network == {}


def test_a_pc_is_known_by_dmi(tmp_path: Path) -> None:
    files = {"sys/class/dmi/id/sys_vendor": "LENOVO\n", "sys/class/dmi/id/product_name": "20XW\n"}
    assert inventory.read(grow(tmp_path, files)).hardware["model"] == "LENOVO 20XW"
    grow(tmp_path, {"sys/class/dmi/id/product_name": "To Be Filled By O.E.M.\n"})
    assert inventory.read(tmp_path).hardware["model"] == "LENOVO"


@pytest.mark.parametrize(
    ("files", "connection"),
    [
        ({"uevent": "DEVTYPE=wwan\n", "type": "1"}, "cellular"),
        ({"uevent": "", "type": "519"}, "cellular"),
        ({"uevent": "", "type": "512"}, "ppp"),
        ({"uevent": "DEVTYPE=vlan\n", "type": "1"}, "vlan"),
        ({"uevent": "", "type": "803"}, "wifi"),
        ({"uevent": "", "type": "1", "wireless/x": ""}, "wifi"),
        ({"uevent": "", "type": "32"}, "other"),
    ],
)
def test_connections(tmp_path: Path, files: dict[str, str], connection: str) -> None:
    root = grow(tmp_path, BOARD | {f"sys/class/net/eth0/{name}": text for name, text in files.items()})
    assert inventory.read(root).network["connection"] == connection


def test_a_machine_with_ipv6_alone(tmp_path: Path) -> None:
    zeros = "0" * 32
    route = f"{zeros} 00 {zeros} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00450003     eth0\n"
    lo = f"{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200       lo\n"
    files = {k: v for k, v in BOARD.items() if k not in {"proc/net/route", "proc/net/fib_trie"}}
    network = inventory.read(grow(tmp_path, files | {"proc/net/ipv6_route": lo + route})).network
    assert network["ip"] == "fd00::2"
    assert network["mac"] == "dc:a6:32:00:00:01"
    assert network["addresses"] == ["fd00::2"]


def test_a_name_that_leads_out_of_the_tree_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    grow(tmp_path, {"secret/address": "dc:a6:32:00:00:01\n"})
    line = "../../../secret\t00000000\t0102000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
    root = grow(tmp_path / "root", {"proc/net/route": "Iface\n" + line})
    (root / "sys/class/net").mkdir(parents=True)
    assert inventory.read(root).network == {}


def test_a_pipe_and_an_unreadable_file_hold_nobody_up(tmp_path: Path) -> None:
    root = grow(tmp_path, {k: v for k, v in BOARD.items() if k not in {"proc/meminfo", "etc/os-release"}})
    os.mkfifo(root / "proc/meminfo")
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/os-release").symlink_to("os-release")
    seen = inventory.read(root).hardware
    assert "ram_mb" not in seen
    assert "os" not in seen
    assert seen["cpu_cores"] == 4


def test_huge_files_are_read_in_part(tmp_path: Path) -> None:
    huge = dict.fromkeys(BOARD, b"PRETTY_NAME=" + b"x" * 3000000)
    seen = inventory.read(grow(tmp_path, huge))
    assert len(seen.hardware["os"]) == 128
    assert len(json.dumps([dict(seen.hardware), dict(seen.network)])) < 4096


rubbish = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text("0123456789-,:.\t\n |/abcdefx", max_size=120).map(str.encode),
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(BOARD, rubbish)))
def test_whatever_lies_there_the_bridge_takes_what_is_told(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    seen = inventory.read(grow(tmp_path_factory.mktemp("tree"), BOARD | files))
    body = {"csr_pem": "x", "hardware": dict(seen.hardware), "network": dict(seen.network)}
    assert len(json.dumps(body)) < MAX_BODY // 4
    fields = parse_fields(json.loads(json.dumps(body)))
    assert fields.hardware == seen.hardware
    for text in [*seen.hardware.values(), *seen.network.values()]:
        assert not isinstance(text, str) or (text.isprintable() and 0 < len(text) <= 128)


def test_this_machine() -> None:
    seen = inventory.read()
    assert seen.hardware["kernel"] == os.uname().release
    assert seen.hardware["arch"] == os.uname().machine
    assert seen.hardware["cpu_cores"] >= 1
    assert seen.network["hostname"] == os.uname().nodename


def test_telemetry_is_one_short_json_of_versions(tmp_path: Path) -> None:
    told = json.loads(inventory.telemetry(grow(tmp_path, BOARD), agent="1.2.3"))
    assert told == {
        "agent": "1.2.3",
        "python": sys.version.split()[0],
        "kernel": "6.1.21-v8+",
        "os": 'Poky "nano" 4.0',
    }
    assert json.loads(inventory.telemetry())["agent"]


def test_nothing_slow_is_imported() -> None:
    code = (
        "import sys, enroll.inventory as i; i.read();"
        "print(sorted({'asyncio', 'httpx', 'cryptography', 'subprocess', 'ssl'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == "[]"
