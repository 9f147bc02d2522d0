"""Real keys and peers for the tests of `wireguard`."""

from collections.abc import Callable

import pytest

from wireguard.addresses import parse_address
from wireguard.keys import PrivateKey
from wireguard.peers import Peer, PeerSet

MakePeers = Callable[..., PeerSet]


@pytest.fixture
def make_peers() -> MakePeers:
    """Peers dev-1, dev-2, ... at 10.8.0.2, 10.8.0.3, ..., each with a key of its own."""

    def make(revision: int, count: int) -> PeerSet:
        return PeerSet(
            revision,
            tuple(
                Peer(f"dev-{n}", PrivateKey.generate().public_key, parse_address(f"10.8.0.{n + 1}"))
                for n in range(1, count + 1)
            ),
        )

    return make
