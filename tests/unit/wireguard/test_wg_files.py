"""The files on the shared volume: whole or not at all, never older, recognisably ours."""

import json
import os
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from wireguard import folder as disk
from wireguard.addresses import Endpoint, parse_address, parse_network
from wireguard.applied_file import Applied, read_applied, refuse_older, write_applied
from wireguard.errors import (
    FileMissingError,
    FolderUnusableError,
    ForeignFileError,
    MalformedFileError,
    PeerFileError,
    RevisionConflictError,
    StaleRevisionError,
)
from wireguard.interface import InterfaceName, PeerStatus
from wireguard.keys import PeerKey, PublicKey
from wireguard.peers import Peer, PeerSet
from wireguard.peers_file import read_cdm_peers, read_peers, write_peers

MakePeers = Callable[[int, int], PeerSet]
KEY = PublicKey.parse("3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=")
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_files_are_exactly_as_other_programs_read_them(tmp_path: Path) -> None:
    write_peers(tmp_path, PeerSet(7, (Peer("dev-1", KEY, parse_address("10.8.0.7")),)))
    assert json.loads((tmp_path / "peers.json").read_bytes()) == {
        "revision": 7,
        "peers": [{"device_id": "dev-1", "public_key": str(KEY), "address": "10.8.0.7"}],
    }
    assert json.loads((tmp_path / "cdm_peers.json").read_bytes()) == {"dev-1": "10.8.0.7"}


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_do_not_hang_on_the_umask(tmp_path: Path, make_peers: MakePeers, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_peers(tmp_path, make_peers(1, 1))
        write_applied(tmp_path, Applied(1, AT, InterfaceName("wg0"), ()))
    finally:
        os.umask(before)
    assert [mode(tmp_path / name) for name in ("peers.json", "cdm_peers.json", "applied.json")] == [
        0o600,
        0o644,
        0o600,
    ]


def test_what_was_written_is_read(tmp_path: Path, make_peers: MakePeers) -> None:
    peers = make_peers(3, 5)
    assert write_peers(tmp_path, peers)
    assert read_peers(tmp_path) == peers
    assert read_cdm_peers(tmp_path) == {peer.device_id: peer.address for peer in peers.peers}


def test_an_older_revision_never_replaces_a_newer_one(tmp_path: Path, make_peers: MakePeers) -> None:
    newer = make_peers(5, 3)
    write_peers(tmp_path, newer)
    with pytest.raises(StaleRevisionError, match="revision 5") as caught:
        write_peers(tmp_path, make_peers(4, 9))
    assert caught.value.present == 5
    assert read_peers(tmp_path) == newer
    assert len(read_cdm_peers(tmp_path)) == 3


def test_the_same_revision_again_changes_nothing(tmp_path: Path, make_peers: MakePeers) -> None:
    peers = make_peers(5, 3)
    write_peers(tmp_path, peers)
    before = [(tmp_path / name).stat().st_ino for name in ("peers.json", "cdm_peers.json")]
    assert not write_peers(tmp_path, peers)
    assert before == [(tmp_path / name).stat().st_ino for name in ("peers.json", "cdm_peers.json")]


def test_two_registries_in_one_folder_are_found_and_not_taken_for_a_late_writer(
    tmp_path: Path, make_peers: MakePeers
) -> None:
    first = make_peers(5, 3)
    write_peers(tmp_path, first)
    with pytest.raises(RevisionConflictError) as caught:
        write_peers(tmp_path, make_peers(5, 3))
    assert not isinstance(caught.value, StaleRevisionError)
    assert read_peers(tmp_path) == first


@pytest.mark.parametrize("lost", ["missing", "old"])
def test_a_crash_between_the_two_files_is_repaired_by_the_repetition(
    tmp_path: Path, make_peers: MakePeers, lost: str
) -> None:
    write_peers(tmp_path, make_peers(4, 1))
    old = (tmp_path / "cdm_peers.json").read_bytes()
    peers = make_peers(5, 3)
    write_peers(tmp_path, peers)
    if lost == "missing":
        (tmp_path / "cdm_peers.json").unlink()
    else:
        (tmp_path / "cdm_peers.json").write_bytes(old)
    assert not write_peers(tmp_path, peers)
    assert len(read_cdm_peers(tmp_path)) == 3


def test_every_cut_of_the_file_is_recognised_and_replaced(tmp_path: Path, make_peers: MakePeers) -> None:
    peers = make_peers(5, 2)
    write_peers(tmp_path, peers)
    path = tmp_path / "peers.json"
    whole = path.read_bytes().rstrip()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(MalformedFileError):
            read_peers(tmp_path)
    assert write_peers(tmp_path, peers)
    assert read_peers(tmp_path) == peers


@pytest.mark.parametrize("garbage", [b"\xff\xfe", b"\x00" * 64, b"<html>", b"[" * 100_000, b"9" * 5000])
def test_garbage_is_recognised(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "peers.json").write_bytes(garbage)
    with pytest.raises(MalformedFileError, match=r"peers\.json"):
        read_peers(tmp_path)


ENTRY = {"device_id": "dev-1", "public_key": str(KEY), "address": "10.8.0.7"}


@pytest.mark.parametrize(
    "foreign",
    [
        None,
        [],
        {},
        {"dev-1": "10.8.0.7"},
        {"revision": 1},
        {"revision": "1", "peers": []},
        {"revision": True, "peers": []},
        {"revision": -1, "peers": []},
        {"revision": 1.5, "peers": []},
        {"revision": 1, "peers": {}},
        {"revision": 1, "peers": ["dev-1"]},
        {"revision": 1, "peers": [{}]},
        {"revision": 1, "peers": [{**ENTRY, "public_key": "AAAA"}]},
        {"revision": 1, "peers": [{**ENTRY, "public_key": "A" * 43 + "="}]},
        {"revision": 1, "peers": [{**ENTRY, "public_key": f"{KEY}\nEndpoint = 192.0.2.66:1"}]},
        {"revision": 1, "peers": [{**ENTRY, "address": "0.0.0.0/0"}]},
        {"revision": 1, "peers": [{**ENTRY, "address": "10.8.0.7\nPostUp = id"}]},
        {"revision": 1, "peers": [{**ENTRY, "address": "fe80::1%a\nPostUp = id"}]},
        {"revision": 1, "peers": [{**ENTRY, "address": 7}]},
        {"revision": 1, "peers": [{**ENTRY, "device_id": "[Interface]\nPostUp = id"}]},
        {"revision": 1, "peers": [ENTRY, ENTRY]},
    ],
)
def test_a_file_of_another_shape_or_with_an_injection_is_foreign(tmp_path: Path, foreign: object) -> None:
    (tmp_path / "peers.json").write_text(json.dumps(foreign))
    with pytest.raises(ForeignFileError, match=r"peers\.json"):
        read_peers(tmp_path)


def test_a_foreign_file_is_not_written_over(tmp_path: Path, make_peers: MakePeers) -> None:
    (tmp_path / "peers.json").write_text('{"somebody": "else"}')
    with pytest.raises(ForeignFileError):
        write_peers(tmp_path, make_peers(1, 1))
    assert (tmp_path / "peers.json").read_text() == '{"somebody": "else"}'
    assert not (tmp_path / "cdm_peers.json").exists()


def test_a_field_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "peers.json").write_text(json.dumps({"revision": 1, "note": "x", "peers": [{**ENTRY, "psk": None}]}))
    assert [peer.device_id for peer in read_peers(tmp_path).peers] == ["dev-1"]


def test_nothing_there_is_its_own_error(tmp_path: Path) -> None:
    for read in (read_peers, read_cdm_peers, read_applied):
        with pytest.raises(FileMissingError):
            read(tmp_path)
        with pytest.raises(FileMissingError):
            read(tmp_path / "none")


def test_a_missing_folder_is_named(tmp_path: Path, make_peers: MakePeers) -> None:
    with pytest.raises(FolderUnusableError, match="none"):
        write_peers(tmp_path / "none", make_peers(1, 1))


def test_a_full_disk_leaves_the_file_that_was_there(
    tmp_path: Path, make_peers: MakePeers, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_peers(1, 2)
    write_peers(tmp_path, first)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FolderUnusableError, match="No space left"):
        write_peers(tmp_path, make_peers(2, 3))
    assert read_peers(tmp_path) == first
    assert not list(tmp_path.glob("*.new"))
    assert not list(tmp_path.glob(".*.new"))


def test_a_leftover_of_a_killed_writer_is_in_nobodys_way(tmp_path: Path, make_peers: MakePeers) -> None:
    (tmp_path / ".peers.json.new").write_bytes(b'{"revision": 9')
    peers = make_peers(1, 1)
    write_peers(tmp_path, peers)
    assert read_peers(tmp_path) == peers
    assert not (tmp_path / ".peers.json.new").exists()


def test_a_symbolic_link_on_the_volume_does_not_lead_out_of_it(tmp_path: Path, make_peers: MakePeers) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"untouched")
    volume = tmp_path / "volume"
    volume.mkdir()
    for name in (".peers.json.new", "peers.json", "cdm_peers.json"):
        (volume / name).symlink_to(outside)
    write_peers(volume, make_peers(1, 1))
    assert outside.read_bytes() == b"untouched"
    assert not (volume / "peers.json").is_symlink()
    (volume / ".peers.lock").unlink()
    (volume / ".peers.lock").symlink_to(outside)
    with pytest.raises(FolderUnusableError):
        write_peers(volume, make_peers(2, 1))
    assert outside.read_bytes() == b"untouched"


def test_writers_beside_each_other_end_with_the_newest(tmp_path: Path, make_peers: MakePeers) -> None:
    sets = [make_peers(revision, 4) for revision in range(1, 21)]
    stale: list[int] = []

    def write(peers: PeerSet) -> None:
        try:
            write_peers(tmp_path, peers)
        except StaleRevisionError:
            stale.append(peers.revision)

    threads = [threading.Thread(target=write, args=(peers,)) for peers in sets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_peers(tmp_path) == sets[-1]
    assert read_cdm_peers(tmp_path) == {peer.device_id: peer.address for peer in sets[-1].peers}
    assert 20 not in stale


def test_a_lock_held_for_long_is_an_error_not_a_hang(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with disk.locked(path):  # noqa: SIM117 - the second one is what is asked
        with pytest.raises(FolderUnusableError, match="another process"), disk.locked(path, timeout=0.05):
            pass
    with disk.locked(path, timeout=0.05):
        pass


def test_a_report_reads_as_it_was_written(tmp_path: Path) -> None:
    applied = Applied(
        7,
        AT,
        InterfaceName("wg0"),
        (
            PeerStatus(KEY, (parse_network("10.8.0.7/32"),), Endpoint("2001:db8::1", 4444), AT, 10, 20),
            PeerStatus(PeerKey(bytes(32)), (), None, None, 0, 0),
        ),
    )
    write_applied(tmp_path, applied)
    assert read_applied(tmp_path) == applied
    assert set(applied.by_key()) == {KEY, PeerKey(bytes(32))}
    assert json.loads((tmp_path / "applied.json").read_bytes()) == {
        "revision": 7,
        "at": "2026-01-02T03:04:05Z",
        "interface": "wg0",
        "peers": [
            {
                "public_key": str(KEY),
                "allowed_ips": ["10.8.0.7/32"],
                "endpoint": "[2001:db8::1]:4444",
                "latest_handshake": "2026-01-02T03:04:05Z",
                "rx": 10,
                "tx": 20,
            },
            {
                "public_key": "A" * 43 + "=",
                "allowed_ips": [],
                "endpoint": None,
                "latest_handshake": None,
                "rx": 0,
                "tx": 0,
            },
        ],
    }


def test_times_are_utc_whatever_zone_they_came_in(tmp_path: Path) -> None:
    local = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    write_applied(tmp_path, Applied(1, local, InterfaceName("wg0"), ()))
    assert b'"2026-01-02T03:04:05Z"' in (tmp_path / "applied.json").read_bytes()
    assert read_applied(tmp_path).at.tzinfo is UTC


@pytest.mark.parametrize(
    "change",
    [
        {"at": "yesterday"},
        {"at": "2026-01-02T03:04:05"},
        {"at": 7},
        {"interface": "../x"},
        {"peers": [{"public_key": str(KEY)}]},
        {"peers": [{"public_key": str(KEY), "allowed_ips": [7], "endpoint": None, "latest_handshake": None}]},
        {
            "peers": [
                {
                    "public_key": str(KEY),
                    "allowed_ips": ["x"],
                    "endpoint": None,
                    "latest_handshake": None,
                    "rx": 0,
                    "tx": 0,
                }
            ]
        },
    ],
)
def test_a_report_of_another_shape_is_foreign(tmp_path: Path, change: dict[str, object]) -> None:
    value = {"revision": 1, "at": "2026-01-02T03:04:05Z", "interface": "wg0", "peers": [], **change}
    (tmp_path / "applied.json").write_text(json.dumps(value))
    with pytest.raises(ForeignFileError):
        read_applied(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}"])
def test_an_unreadable_report_does_not_stop_the_work(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "applied.json").write_bytes(content)
    refuse_older(tmp_path, 1)


def test_errors_name_their_file(tmp_path: Path) -> None:
    with pytest.raises(PeerFileError) as caught:
        read_peers(tmp_path)
    assert caught.value.path == tmp_path / "peers.json"


def test_root_hands_files_to_the_owner_of_the_folder(tmp_path: Path, make_peers: MakePeers) -> None:
    if os.geteuid() == 0:
        os.chown(tmp_path, 12345, 12345)
    write_peers(tmp_path, make_peers(1, 1))
    write_applied(tmp_path, Applied(1, AT, InterfaceName("wg0"), ()))
    owner = tmp_path.stat().st_uid
    assert {path.stat().st_uid for path in tmp_path.iterdir()} == {owner}
