"""What only a real `wg` and a real tunnel can show."""

import json
import stat
from pathlib import Path

import pytest

from compose.real.wireguard_namespaces import NamespaceRunner, Namespaces
from wireguard import quick
from wireguard.addresses import parse_network
from wireguard.errors import (
    InvalidValueError,
    KeyRefusedError,
    NoSuchInterfaceError,
    NotPermittedError,
    RefusedError,
)
from wireguard.interface import InterfaceName
from wireguard.keys import PrivateKey, PublicKey
from wireguard.peers import Peer, PeerSet
from wireguard.peers_file import write_peers
from wireguard.process import Completed, run_process
from wireguard.render import PRIVATE_KEY_PLACEHOLDER, DeviceConfig, render_device, render_peers
from wireguard.sync import sync_once
from wireguard.tool import WireGuardTool

pytestmark = pytest.mark.real
ZEROS = "A" * 43 + "="


def wg(namespaces: Namespaces, *arguments: str) -> Completed:
    return namespaces.exec(namespaces.server, ("wg", *arguments))


@pytest.fixture
def tool(namespaces: Namespaces) -> WireGuardTool:
    made = namespaces.server_tool()
    made.remove_peers([peer.public_key for peer in made.dump().peers])
    return made


def test_keys_are_those_of_wg() -> None:
    made = run_process(("wg", "genkey"), timeout=10).stdout.strip()
    private = PrivateKey.parse(made)
    assert private.reveal() == made
    assert run_process(("wg", "pubkey"), stdin=made, timeout=10).stdout.strip() == str(private.public_key)
    clamped = PrivateKey.generate()
    told = run_process(("wg", "pubkey"), stdin=clamped.reveal(), timeout=10).stdout.strip()
    assert told == str(clamped.public_key)


def test_an_interface_that_is_not_there(namespaces: Namespaces) -> None:
    gone = WireGuardTool(InterfaceName("wgnothere0"), namespaces.server)
    for act in (
        gone.dump,
        lambda: gone.set_peer(PrivateKey.generate().public_key, []),
        lambda: gone.remove_peers([PrivateKey.generate().public_key]),
        lambda: gone.set_peers([Peer("dev-1", PrivateKey.generate().public_key, namespaces.pool.server_address + 6)]),
    ):
        with pytest.raises(NoSuchInterfaceError, match="wgnothere0"):
            act()


def test_an_ordinary_user_is_told_what_is_missing(namespaces: Namespaces) -> None:
    class Nobody(NamespaceRunner):
        def __call__(self, argv: object, **options: object) -> Completed:
            prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
            return super().__call__((*prefix, *argv), **options)  # type: ignore[misc,arg-type]

    tool = WireGuardTool(namespaces.server_interface, Nobody(namespaces.server.namespace))
    with pytest.raises(NotPermittedError, match="root"):
        tool.dump()


def test_a_key_that_wg_refuses_is_named_but_not_repeated(namespaces: Namespaces, tool: WireGuardTool) -> None:
    secret = PrivateKey.generate().reveal()
    path = namespaces.folder / "bad.conf"
    path.write_text(f"[Interface]\nListenPort = 51820\nPrivateKey = {secret}x\n")
    with pytest.raises(KeyRefusedError) as caught:
        tool.syncconf(path)
    assert secret[:10] not in str(caught.value) + caught.value.detail
    assert tool.dump().public_key == namespaces.server_public_key


def test_a_peer_with_a_worthless_key_added_by_hand_is_seen_and_removed(
    namespaces: Namespaces, tool: WireGuardTool, tmp_path: Path
) -> None:
    assert wg(namespaces, "set", str(tool.name), "peer", ZEROS, "allowed-ips", "10.8.0.66/32").returncode == 0
    assert [str(peer.public_key) for peer in tool.dump().peers] == [ZEROS]
    write_peers(tmp_path, PeerSet(1, ()))
    assert sync_once(tmp_path, tool).peers == ()


def test_a_preshared_key_set_by_hand_is_not_kept(namespaces: Namespaces, tool: WireGuardTool, tmp_path: Path) -> None:
    shared = run_process(("wg", "genpsk"), timeout=10).stdout
    (tmp_path / "psk").write_text(shared)
    peer = PrivateKey.generate().public_key
    wg(namespaces, "set", str(tool.name), "peer", str(peer), "preshared-key", str(tmp_path / "psk"))
    assert shared.strip() in wg(namespaces, "show", str(tool.name), "dump").stdout
    assert shared.strip() not in repr(tool.dump())


def test_syncconf_without_key_and_port_takes_both_away_and_is_therefore_refused(
    namespaces: Namespaces, tool: WireGuardTool
) -> None:
    spare = InterfaceName(f"wgx{str(tool.name)[3:]}")
    quick.create(spare, namespaces.server)
    (namespaces.folder / "spare.key").write_text(PrivateKey.generate().reveal())
    wg(namespaces, "set", str(spare), "private-key", str(namespaces.folder / "spare.key"), "listen-port", "51899")
    spare_tool = WireGuardTool(spare, namespaces.server)
    before = spare_tool.dump()
    path = namespaces.folder / "peers.conf"
    path.write_text(
        render_peers([Peer("dev-1", PrivateKey.generate().public_key, namespaces.pool.address(namespaces.pool.first))])
    )
    with pytest.raises(InvalidValueError, match="PrivateKey"):
        spare_tool.syncconf(path)
    assert spare_tool.dump() == before
    assert wg(namespaces, "syncconf", str(spare), str(path)).returncode == 0
    after = spare_tool.dump()
    assert after.public_key is None
    assert after.listen_port != before.listen_port
    namespaces.exec(namespaces.server, ("ip", "link", "del", str(spare)))


def test_syncconf_of_a_whole_file(namespaces: Namespaces, tool: WireGuardTool) -> None:
    peer = Peer("dev-1", PrivateKey.generate().public_key, namespaces.pool.address(namespaces.pool.first))
    head = wg(namespaces, "showconf", str(tool.name)).stdout.split("[Peer]", maxsplit=1)[0]
    path = namespaces.folder / "whole.conf"
    path.touch(mode=0o600)
    path.write_text(head + "\n" + render_peers([peer]))
    tool.syncconf(path)
    state = tool.dump()
    assert (state.public_key, state.listen_port) == (namespaces.server_public_key, 51820)
    assert [(found.public_key, found.allowed_ips) for found in state.peers] == [(peer.public_key, (peer.allowed_ip,))]
    path.unlink()


def test_wg_quick_says_why_it_failed(namespaces: Namespaces) -> None:
    path = namespaces.folder / f"{namespaces.client_interface}.conf"
    path.touch(mode=0o600)
    path.write_text("[Interface]\nNonsense = 1\n")
    with pytest.raises(RefusedError, match="wg-quick"):
        quick.up(path, namespaces.client)
    path.unlink()


def test_a_second_interface_of_the_same_name_is_refused(namespaces: Namespaces) -> None:
    with pytest.raises(RefusedError):
        quick.create(namespaces.server_interface, namespaces.server)


def device_config(namespaces: Namespaces, private: PrivateKey, number: int) -> str:
    config = DeviceConfig(
        address=namespaces.pool.address(number),
        server_public_key=namespaces.server_public_key,
        endpoint=namespaces.endpoint,
        allowed_ips=(namespaces.pool.network,),
    )
    return render_device(config, placeholder=True).replace(PRIVATE_KEY_PLACEHOLDER, private.reveal())


def test_a_tunnel_with_packets_both_ways_until_the_device_is_retired(
    namespaces: Namespaces, tool: WireGuardTool, tmp_path: Path
) -> None:
    private = PrivateKey.generate()
    number = namespaces.pool.first + 5
    address = namespaces.pool.address(number)
    device = Peer("dev-1", private.public_key, address)
    neighbour = Peer("dev-2", PrivateKey.generate().public_key, namespaces.pool.address(number + 1))
    write_peers(tmp_path, PeerSet(1, (device,)))
    sync_once(tmp_path, tool)
    path = namespaces.bring_up(device_config(namespaces, private, number))
    try:
        assert namespaces.answers(namespaces.client, namespaces.pool.server_address)
        assert namespaces.answers(namespaces.server, address)
        met = sync_once(tmp_path, tool).by_key()[private.public_key]
        assert met.latest_handshake is not None
        assert met.endpoint is not None
        assert met.rx > 0
        assert met.tx > 0

        write_peers(tmp_path, PeerSet(2, (device, neighbour)))
        kept = sync_once(tmp_path, tool).by_key()[private.public_key]
        assert kept.latest_handshake == met.latest_handshake, "another's arrival must not end a session"
        assert namespaces.answers(namespaces.server, address)

        write_peers(tmp_path, PeerSet(3, (neighbour,)))
        assert private.public_key not in sync_once(tmp_path, tool).by_key()
        assert not namespaces.answers(namespaces.client, namespaces.pool.server_address, attempts=2)
        assert not namespaces.answers(namespaces.server, address, attempts=2)
    finally:
        namespaces.take_down(path)


def test_a_re_enrolled_device_comes_back_with_its_new_key_only(
    namespaces: Namespaces, tool: WireGuardTool, tmp_path: Path
) -> None:
    old, new = PrivateKey.generate(), PrivateKey.generate()
    number = namespaces.pool.first + 9
    address = namespaces.pool.address(number)
    write_peers(tmp_path, PeerSet(1, (Peer("dev-1", old.public_key, address),)))
    sync_once(tmp_path, tool)
    write_peers(tmp_path, PeerSet(2, (Peer("dev-1", new.public_key, address),)))
    sync_once(tmp_path, tool)
    for private, welcome in ((old, False), (new, True)):
        path = namespaces.bring_up(device_config(namespaces, private, number))
        try:
            assert namespaces.answers(namespaces.client, namespaces.pool.server_address, attempts=2) is welcome
        finally:
            namespaces.take_down(path)


def test_what_the_pass_leaves_on_the_volume_holds_no_secret(
    namespaces: Namespaces, tool: WireGuardTool, tmp_path: Path
) -> None:
    secret = wg(namespaces, "show", str(tool.name), "private-key").stdout.strip()
    assert PrivateKey.parse(secret).public_key == namespaces.server_public_key
    write_peers(tmp_path, PeerSet(1, (Peer("dev-1", PublicKey(bytes([9]) + bytes(31)), parse_network("10.8.0.7")[0]),)))
    sync_once(tmp_path, tool)
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.encode() not in written
    assert json.loads((tmp_path / "applied.json").read_bytes())["interface"] == str(tool.name)
    assert stat.S_IMODE((tmp_path / "applied.json").stat().st_mode) == 0o600
