"""One interface for the contract suite: in memory `[standin]`, by wireguard-go in a namespace `[real]`."""

from collections.abc import Callable, Iterator

import pytest

from compose.real.wireguard_namespaces import Namespaces, wireguard_namespaces
from wireguard.interface import Interface, InterfaceName
from wireguard.keys import PrivateKey
from wireguard.standin import MemoryInterface

MakeInterface = Callable[[], Interface]


@pytest.fixture(scope="session")
def namespaces() -> Iterator[Namespaces]:
    """A real server; fails, and is never skipped, where the machine cannot have one."""
    with wireguard_namespaces() as made:
        yield made


@pytest.fixture(params=["standin", pytest.param("real", marks=pytest.mark.real)])
def interface(request: pytest.FixtureRequest) -> Interface:
    """An interface without peers."""
    if request.param == "standin":
        return MemoryInterface(InterfaceName("wg0"), PrivateKey.generate(), listen_port=51820)
    made: Namespaces = request.getfixturevalue("namespaces")
    tool = made.server_tool()
    tool.remove_peers([peer.public_key for peer in tool.dump().peers])
    return tool
