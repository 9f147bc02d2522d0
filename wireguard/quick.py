"""Making and ending interfaces: `wg-quick` and the userspace implementation `wireguard-go`.

For hosts without WireGuard in the kernel, and for real tunnels in tests. Peers are `tool`'s business.
"""

from pathlib import Path

from wireguard.errors import InvalidInterfaceNameError
from wireguard.interface import InterfaceName
from wireguard.process import Runner, refusal, run_process

DEFAULT_TIMEOUT = 30.0
_USERSPACE = {"WG_QUICK_USERSPACE_IMPLEMENTATION": "wireguard-go"}


def interface_of(configuration: Path) -> InterfaceName:
    """Tell which interface `wg-quick` makes of this file: its name without `.conf`.

    Raises:
        InvalidInterfaceNameError: the file's name is not `NAME.conf` with a name for an interface.

    """
    if configuration.suffix != ".conf":
        raise InvalidInterfaceNameError(f"{configuration.name!r} must end in .conf, such as wg0.conf.")
    return InterfaceName(configuration.stem)


def up(configuration: Path, run: Runner = run_process, *, timeout: float = DEFAULT_TIMEOUT) -> InterfaceName:
    """Bring up the interface of this file (`wg-quick up`), by wireguard-go where the kernel has none.

    Raises:
        InvalidInterfaceNameError: the file's name is not one of an interface.
        InterfaceError: as `process.refusal`; half a bring-up is undone by `wg-quick` itself.

    """
    return _quick("up", configuration, run, timeout)


def down(configuration: Path, run: Runner = run_process, *, timeout: float = DEFAULT_TIMEOUT) -> InterfaceName:
    """End the interface of this file (`wg-quick down`). Raises as `up`."""
    return _quick("down", configuration, run, timeout)


def create(name: InterfaceName, run: Runner = run_process, *, timeout: float = DEFAULT_TIMEOUT) -> None:
    """Start `wireguard-go`, which makes a TUN interface of this name and goes to the background.

    Its control socket is shared by all network namespaces of the host, so the name must be free in all.

    Raises:
        InterfaceError: it did not start: the name is taken, no `/dev/net/tun`, no permission.

    """
    completed = run(("wireguard-go", str(name)), timeout=timeout)
    if completed.returncode != 0:
        raise refusal(completed, program="wireguard-go", subject=str(name))


def _quick(action: str, configuration: Path, run: Runner, timeout: float) -> InterfaceName:
    name = interface_of(configuration)
    argv = ("wg-quick", action, str(configuration.absolute()))
    completed = run(argv, environment=_USERSPACE, timeout=timeout)
    if completed.returncode != 0:
        raise refusal(completed, program="wg-quick", subject=str(configuration))
    return name
