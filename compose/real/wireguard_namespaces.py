"""A real WireGuard server and a place for a client, in two network namespaces joined by a cable.

For tests and for ``make real``: no kernel module and no container, `wireguard-go` makes the interfaces. The server's
is up when the context begins; the client's comes from a device's own `wg0.conf` (`Namespaces.bring_up`). Everything
has a random name, so that runs side by side do not meet, and is ended by process id.

    sudo .venv/bin/python compose/real/wireguard_namespaces.py

Needs root, `/dev/net/tun` and the Debian packages wireguard-tools, wireguard-go, iproute2, iputils-ping.
"""

import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wireguard import quick
from wireguard.addresses import Address, Endpoint, Pool
from wireguard.errors import InterfaceError
from wireguard.interface import InterfaceName
from wireguard.keys import PrivateKey, PublicKey
from wireguard.process import Completed, Runner, run_process
from wireguard.tool import WireGuardTool

SUBNET = "10.8.0.0/24"
# TEST-NET-1 (RFC 5737): the cable's two ends exist in the namespaces only.
_SERVER_WIRE, _CLIENT_WIRE, _WIRE_PREFIX = "192.0.2.1", "192.0.2.2", 30
_PORT = 51820
_SOCKETS = Path("/var/run/wireguard")
_COMMAND_TIMEOUT = 30.0
_END_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class NamespaceRunner:
    """Runs programs inside one network namespace; a `wireguard.process.Runner`."""

    namespace: str

    def __call__(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
        timeout: float,
    ) -> Completed:
        """Run `argv` in the namespace; raises as `run_process`."""
        prefix = ("ip", "netns", "exec", self.namespace)
        return run_process((*prefix, *argv), stdin=stdin, environment=environment, timeout=timeout)


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Two joined namespaces with a WireGuard server in one.

    `endpoint` is where the client's namespace reaches the server. `client_interface` is a name that is free: interfaces
    of wireguard-go share their names across all namespaces of a host.
    """

    server: NamespaceRunner
    client: NamespaceRunner
    server_interface: InterfaceName
    client_interface: InterfaceName
    server_public_key: PublicKey
    endpoint: Endpoint
    pool: Pool
    folder: Path

    def exec(self, where: Runner, argv: Sequence[str], *, timeout: float = _COMMAND_TIMEOUT) -> Completed:
        """Run a program in `self.server` or `self.client` and give its result back, whatever it is."""
        return where(argv, timeout=timeout)

    def server_tool(self) -> WireGuardTool:
        """The server's interface, ready for `wireguard.sync`."""
        return WireGuardTool(self.server_interface, self.server)

    def bring_up(self, configuration: str) -> Path:
        """Bring up a device's `wg0.conf` (its text, with its private key) in the client's namespace by `wg-quick`.

        The interface is called `client_interface`. Returns the file, for `take_down`.
        """
        path = self.folder / f"{self.client_interface}.conf"
        _write_private(path, configuration)
        quick.up(path, self.client)
        return path

    def take_down(self, path: Path) -> None:
        """End what `bring_up` made."""
        quick.down(path, self.client)

    def answers(self, where: Runner, address: Address | str, *, attempts: int = 5) -> bool:
        """Whether `address` answers at least one of some pings, 0.2 s apart, from this namespace."""
        argv = ("ping", "-c", str(attempts), "-i", "0.2", "-W", "1", str(address))
        return self.exec(where, argv).returncode == 0


@contextlib.contextmanager
def wireguard_namespaces(subnet: str = SUBNET) -> Iterator[Namespaces]:
    """Make the namespaces, the cable and the server's interface; end and remove all of it afterwards.

    Raises:
        InterfaceError: a program is missing or refused; what was made before is removed.

    """
    tag = secrets.token_hex(4)
    pool = Pool.parse(subnet)
    server, client = NamespaceRunner(f"iotb-{tag}-s"), NamespaceRunner(f"iotb-{tag}-c")
    names = InterfaceName(f"wgs{tag}"), InterfaceName(f"wgc{tag}")
    with tempfile.TemporaryDirectory(prefix="iotb-wg-") as folder, contextlib.ExitStack() as ending:
        for runner in (server, client):
            ending.callback(_remove, runner)
            _ip("netns", "add", runner.namespace)
        for name in names:
            ending.callback((_SOCKETS / f"{name}.sock").unlink, missing_ok=True)
        _join(server, client, tag)
        public_key = _start_server(server, names[0], pool, Path(folder))
        ending.callback(_end_processes, server)
        ending.callback(_end_processes, client)
        endpoint = Endpoint(_SERVER_WIRE, _PORT)
        yield Namespaces(server, client, *names, public_key, endpoint, pool, Path(folder))


def _join(server: NamespaceRunner, client: NamespaceRunner, tag: str) -> None:
    ends = (server, f"vs{tag}", _SERVER_WIRE), (client, f"vc{tag}", _CLIENT_WIRE)
    (_, server_end, _), (_, client_end, _) = ends
    _ip("link", "add", server_end, "netns", server.namespace, "type", "veth",
        "peer", "name", client_end, "netns", client.namespace)  # fmt: skip
    for runner, device, address in ends:
        _ip("-n", runner.namespace, "address", "add", f"{address}/{_WIRE_PREFIX}", "dev", device)
        for up in ("lo", device):
            _ip("-n", runner.namespace, "link", "set", up, "up")


def _start_server(server: NamespaceRunner, name: InterfaceName, pool: Pool, folder: Path) -> PublicKey:
    private_key = PrivateKey.generate()
    key_file = folder / "server.key"
    _write_private(key_file, private_key.reveal() + "\n")
    quick.create(name, server)
    _demand(server, ("wg", "set", str(name), "private-key", str(key_file), "listen-port", str(_PORT)))
    address = f"{pool.server_address}/{pool.network.prefixlen}"
    _ip("-n", server.namespace, "address", "add", address, "dev", str(name))
    _ip("-n", server.namespace, "link", "set", str(name), "up")
    return private_key.public_key


def _remove(runner: NamespaceRunner) -> None:
    _end_processes(runner)
    run_process(("ip", "netns", "del", runner.namespace), timeout=_COMMAND_TIMEOUT)


def _end_processes(runner: NamespaceRunner) -> None:
    deadline = time.monotonic() + _END_TIMEOUT
    while pids := _pids(runner):
        overdue = time.monotonic() > deadline
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if overdue else signal.SIGTERM)
        time.sleep(0.05)


def _pids(runner: NamespaceRunner) -> list[int]:
    found = run_process(("ip", "netns", "pids", runner.namespace), timeout=_COMMAND_TIMEOUT)
    return [int(pid) for pid in found.stdout.split()]


def _ip(*arguments: str) -> None:
    _demand(run_process, ("ip", *arguments))


def _demand(run: Runner, argv: Sequence[str]) -> None:
    done = run(argv, timeout=_COMMAND_TIMEOUT)
    if done.returncode != 0:
        raise InterfaceError(f"`{' '.join(argv)}` failed: {done.stderr.strip()} (this needs root)")


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def main() -> None:
    """Hold a server for a person until SIGTERM or Ctrl-C; says on standard output what it is called."""
    with wireguard_namespaces() as made:
        told = {
            "server_namespace": made.server.namespace,
            "client_namespace": made.client.namespace,
            "server_interface": str(made.server_interface),
            "client_interface": str(made.client_interface),
            "server_public_key": str(made.server_public_key),
            "endpoint": str(made.endpoint),
            "subnet": str(made.pool),
        }
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()
