"""What this machine is, as it is told to the bridge and shown by ``iot-enroll inventory``.

Responsible for small readers over ``/proc``, ``/sys`` and ``/etc/os-release``, each of which may fail alone: a file
that is missing, unreadable or full of rubbish costs one field. Every text is one bounded, printable line.

Not responsible for sending it. It is for people and for filters; nothing is ever decided by it. No serial numbers
are read, and no process is started.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import Any, Final, TypeAlias

_MAX_TEXT: Final = 128
_MAX_READ: Final = 256 * 1024
_MAX_ADDRESSES: Final = 16
_MAX_CORES: Final = 4096
_MAX_RAM: Final = 2**40
_INTERFACE: Final = re.compile(r"[A-Za-z0-9_.:@-]{1,15}", re.ASCII)
_MAC: Final = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}", re.ASCII)
_HEX32: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_GLOBAL_SCOPE: Final = "00"
_ROUTE_FIELDS: Final = 8
_NOTHING: Final = frozenset({"", "none", "unknown", "default string", "to be filled by o.e.m.", "system product name"})

# ARPHRD_* of <linux/if_arp.h>
_ETHERNET, _PPP, _RAW_IP, _WIFI = 1, 512, 519, frozenset({801, 802, 803})

Reader: TypeAlias = Callable[["_Tree"], Any]


@dataclass(frozen=True, slots=True)
class Inventory:
    """The sections ``hardware`` and ``network`` of an enrollment request; what cannot be told is left out."""

    hardware: Mapping[str, Any]
    """``model``, ``cpu_cores``, ``ram_mb`` (MiB), ``os``, ``arch``, ``kernel``."""
    network: Mapping[str, Any]
    """``hostname``, ``ip``, ``mac``, ``connection``: of the interface with the default route; ``addresses``: all."""


def read(root: Path = Path("/")) -> Inventory:
    """Read everything that can be read; never raises.

    :param root: where ``proc``, ``sys`` and ``etc`` lie.
    """
    tree = _Tree(root)
    return Inventory(_all(_HARDWARE, tree), _all(_NETWORK, tree))


def telemetry(root: Path = Path("/"), agent: str | None = None) -> bytes:
    """Return the one message of telemetry, JSON: the versions of agent, Python, kernel and OS.

    :param agent: the agent's own version; by default that of the installed package, if there is one.
    """
    hardware = read(root).hardware
    told = {
        "agent": agent or _own_version(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "kernel": hardware.get("kernel"),
        "os": hardware.get("os"),
    }
    return json.dumps({name: value for name, value in told.items() if value}, separators=(",", ":")).encode()


def _own_version() -> str | None:
    from importlib import metadata  # noqa: PLC0415 - slow, and only telemetry wants it

    try:
        return metadata.version("iot-bridge")
    except metadata.PackageNotFoundError:
        return None


def _all(readers: Mapping[str, Reader], tree: _Tree) -> dict[str, Any]:
    found = {}
    for name, reader in readers.items():
        try:
            value = reader(tree)
        except (OSError, ValueError, LookupError):
            continue
        if value:
            found[name] = value
    return found


class _Tree:
    """Bounded reads below one root."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def bytes(self, path: str) -> bytes:
        """Return the beginning of a file; a pipe or device in its place holds nobody up."""
        descriptor = os.open(self._root / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        content = b""
        try:
            # Files of /proc come in pieces, however much is asked for.
            while len(content) < _MAX_READ and (piece := os.read(descriptor, _MAX_READ - len(content))):
                content += piece
        finally:
            os.close(descriptor)
        return content

    def lines(self, path: str) -> list[str]:
        """Return its lines; what is no text is replaced."""
        return self.bytes(path).decode("utf-8", "replace").split("\n")

    def line(self, path: str) -> str:
        """Return its first line as one bounded, printable text."""
        return _line(self.bytes(path).decode("utf-8", "replace").partition("\n")[0])

    def exists(self, path: str) -> bool:
        """Return whether there is anything of that name."""
        return (self._root / path).exists()


def _line(text: str) -> str:
    flat = "".join(c if c.isprintable() else " " for c in text[: 4 * _MAX_TEXT].rstrip("\0"))
    return " ".join(flat.split())[:_MAX_TEXT]


def _first(tree: _Tree, *paths: str) -> str:
    for path in paths:
        try:
            text = tree.line(path)
        except OSError:
            continue
        if text.lower() not in _NOTHING:
            return text
    return ""


def _model(tree: _Tree) -> str:
    board = _first(tree, "proc/device-tree/model", "sys/firmware/devicetree/base/model")
    if board:
        return board
    vendor, product = (_first(tree, f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name"))
    return _line(f"{vendor} {product}")


def _cores(tree: _Tree) -> int:
    """Count ``0-3,5`` as in https://docs.kernel.org/admin-guide/cputopology.html."""
    count = 0
    for part in tree.line("sys/devices/system/cpu/present").split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count if 0 < count <= _MAX_CORES else 0


def _ram(tree: _Tree) -> int:
    totals = [line.split()[1] for line in tree.lines("proc/meminfo") if line.startswith("MemTotal:")]
    return min(int(totals[0]) // 1024, _MAX_RAM)


def _os(tree: _Tree) -> str:
    """Return PRETTY_NAME of os-release(5)."""
    for path in ("etc/os-release", "usr/lib/os-release"):
        try:
            lines = tree.lines(path)
        except OSError:
            continue
        for line in lines:
            if line.startswith("PRETTY_NAME="):
                value = line.partition("=")[2].strip()
                quoted = value[:1] in {'"', "'"} and value[-1:] == value[:1]
                return _line(re.sub(r"\\(.)", r"\1", value[1:-1] if quoted else value))
    return ""


def _arch(tree: _Tree) -> str:
    try:
        return tree.line("proc/sys/kernel/arch")  # since Linux 6.1
    except OSError:
        return _line(os.uname().machine)


def _default_interface(tree: _Tree) -> str:
    """Return the interface of the default route with the lowest metric, IPv4 before IPv6."""
    routes = [(int(fields[6]), fields[0]) for fields in _ipv4_routes(tree) if fields[1] == fields[7] == "00000000"]
    if not routes:
        for line in tree.lines("proc/net/ipv6_route"):
            fields = line.split()
            if len(fields) == 10 and fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != "lo":  # noqa: PLR2004 - of that table
                routes.append((int(fields[5], 16), fields[9]))
    name = min(routes)[1]
    if not _INTERFACE.fullmatch(name) or name in {".", ".."}:
        raise ValueError("no name of an interface")
    return name


def _ipv4_routes(tree: _Tree) -> Iterator[list[str]]:
    try:
        lines = tree.lines("proc/net/route")[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if len(fields) >= _ROUTE_FIELDS and fields[6].isdecimal():
            yield fields


def _little_endian(text: str) -> IPv4Address:
    return IPv4Address(bytes.fromhex(text)[::-1])


def _local_ipv4(tree: _Tree) -> list[IPv4Address]:
    """Return the machine's own addresses from the kernel's trie: a /32 leaf that is ``host LOCAL``."""
    found: list[IPv4Address] = []
    leaf = ""
    for line in tree.lines("proc/net/fib_trie"):
        text = line.strip()
        if text.startswith("|-- "):
            leaf = text[4:]
        elif text.startswith("/32 host LOCAL"):
            address = IPv4Address(leaf)
            if not address.is_loopback and address not in found:
                found.append(address)
    return found


def _ipv6(tree: _Tree) -> list[tuple[str, IPv6Address]]:
    """Return global addresses with their interfaces."""
    found = []
    for line in tree.lines("proc/net/if_inet6"):
        fields = line.split()
        if len(fields) == 6 and fields[3] == _GLOBAL_SCOPE and _HEX32.fullmatch(fields[0]):  # noqa: PLR2004 - of that table
            found.append((fields[5], IPv6Address(bytes.fromhex(fields[0]))))
    return found


def _ip(tree: _Tree) -> str:
    """Return the address of the interface with the default route."""
    interface = _default_interface(tree)
    networks = [
        IPv4Network((int(_little_endian(fields[1])), str(_little_endian(fields[7]))))
        for fields in _ipv4_routes(tree)
        if fields[0] == interface and fields[7] != "00000000"
    ]
    for address in _quietly(_local_ipv4, tree):
        if any(address in network for network in networks):
            return str(address)
    return next((str(address) for name, address in _ipv6(tree) if name == interface), "")


def _quietly(reader: Callable[[_Tree], list[Any]], tree: _Tree) -> list[Any]:
    try:
        return reader(tree)
    except (OSError, ValueError):
        return []


def _addresses(tree: _Tree) -> list[str]:
    found = [*_quietly(_local_ipv4, tree), *(address for _, address in _quietly(_ipv6, tree))]
    return [str(address) for address in found[:_MAX_ADDRESSES]]


def _mac(tree: _Tree) -> str:
    text = tree.line(f"sys/class/net/{_default_interface(tree)}/address").lower()
    return text if _MAC.fullmatch(text) and text != "00:00:00:00:00:00" else ""


def _connection(tree: _Tree) -> str:
    """Return ethernet, wifi, cellular, ppp, vlan, bridge or other; of the interface with the default route."""
    name = _default_interface(tree)
    folder = f"sys/class/net/{name}"
    kinds = [line.partition("=")[2] for line in tree.lines(f"{folder}/uevent") if line.startswith("DEVTYPE=")]
    kind = kinds[0].strip() if kinds else ""
    number = int(tree.line(f"{folder}/type"))
    if kind == "wlan" or number in _WIFI or tree.exists(f"{folder}/wireless") or tree.exists(f"{folder}/phy80211"):
        return "wifi"
    if kind == "wwan" or number == _RAW_IP or name.startswith("wwan"):
        return "cellular"
    if number == _PPP:
        return "ppp"
    if kind in {"vlan", "bridge", "bond"}:
        return kind
    return "ethernet" if number == _ETHERNET else "other"


_HARDWARE: Final[Mapping[str, Reader]] = {
    "model": _model,
    "cpu_cores": _cores,
    "ram_mb": _ram,
    "os": _os,
    "arch": _arch,
    "kernel": lambda tree: tree.line("proc/sys/kernel/osrelease"),
}
_NETWORK: Final[Mapping[str, Reader]] = {
    "hostname": lambda tree: tree.line("proc/sys/kernel/hostname"),
    "ip": _ip,
    "mac": _mac,
    "connection": _connection,
    "addresses": _addresses,
}
