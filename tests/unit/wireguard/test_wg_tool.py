"""The wrapper around `wg`: what it runs, and what becomes of what the program says."""

import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from wireguard import quick
from wireguard.addresses import parse_network
from wireguard.dump import parse_dump
from wireguard.errors import (
    InterfaceError,
    InvalidInterfaceNameError,
    InvalidValueError,
    KeyRefusedError,
    NoSuchInterfaceError,
    NotPermittedError,
    RefusedError,
    ToolMissingError,
    ToolTimeoutError,
    UnexpectedOutputError,
)
from wireguard.interface import InterfaceName
from wireguard.keys import PrivateKey
from wireguard.process import Completed, run_process
from wireguard.tool import WireGuardTool

SECRET = PrivateKey(bytes(range(32)))
SERVER = SECRET.public_key
DEVICE = PrivateKey(bytes(range(1, 33))).public_key
PRESHARED = PrivateKey(bytes(range(2, 34))).reveal()
FIRST_LINE = f"{SECRET.reveal()}\t{SERVER}\t51820\toff\n"


class Scripted:
    """A runner that gives one answer and remembers what it was asked to run."""

    def __init__(self, returncode: int = 0, stdout: str = "", stderr: str = "") -> None:
        self.answer = Completed(returncode, stdout, stderr)
        self.calls: list[tuple[str, ...]] = []
        self.stdin: list[str] = []
        self.environment: Mapping[str, str] | None = None

    def __call__(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
        timeout: float,
    ) -> Completed:
        self.calls.append(tuple(argv))
        self.stdin.append(stdin)
        self.environment = environment
        return self.answer


def tool(run: Scripted) -> WireGuardTool:
    return WireGuardTool(InterfaceName("wg0"), run)


def test_a_dump_is_read_without_its_secrets() -> None:
    peer = f"{DEVICE}\t{PRESHARED}\t192.0.2.2:4444\t10.8.0.9/32,10.8.0.7/32\t1700000000\t10\t20\t25\n"
    idle = f"{SERVER}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n"
    state = tool(Scripted(stdout=FIRST_LINE + peer + idle)).dump()
    assert (state.public_key, state.listen_port) == (SERVER, 51820)
    by_key = {status.public_key: status for status in state.peers}
    seen = by_key[DEVICE]
    assert [str(net) for net in seen.allowed_ips] == ["10.8.0.7/32", "10.8.0.9/32"]
    assert str(seen.endpoint) == "192.0.2.2:4444"
    assert seen.latest_handshake == datetime.fromtimestamp(1700000000, UTC)
    assert (seen.rx, seen.tx) == (10, 20)
    assert by_key[SERVER].allowed_ips == ()
    assert by_key[SERVER].endpoint is None
    assert by_key[SERVER].latest_handshake is None
    assert SECRET.reveal() not in repr(state)
    assert PRESHARED not in repr(state)


def test_an_interface_without_a_key_has_none() -> None:
    assert parse_dump("(none)\t(none)\t0\toff\n").public_key is None


def test_a_peer_on_the_same_link_cannot_break_the_dump() -> None:
    peer = f"{DEVICE}\t(none)\t[fe80::1%eth0]:4444\t10.8.0.7/32\t0\t0\t0\toff\n"
    (status,) = parse_dump(FIRST_LINE + peer).peers
    assert str(status.endpoint) == "[fe80::1]:4444"


def test_a_foreign_peer_with_a_worthless_key_cannot_break_the_dump() -> None:
    peer = f"{'A' * 43}=\t(none)\t(none)\t10.8.0.7/32\t0\t0\t0\toff\n"
    (status,) = parse_dump(FIRST_LINE + peer).peers
    assert status.public_key.raw == bytes(32)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"wg0\t{FIRST_LINE}",
        f"{SECRET.reveal()}\t{SERVER}\t{SECRET.reveal()}\toff",
        f"{SERVER}\t{SECRET.reveal()}x\t51820\toff",
        FIRST_LINE + "half\ta\tline",
        FIRST_LINE + f"{DEVICE}\t(none)\t{PRESHARED}\t10.8.0.7/32\t0\t0\t0\toff",
        FIRST_LINE + f"{DEVICE}\t(none)\t(none)\tnonsense\t0\t0\t0\toff",
        FIRST_LINE + f"{DEVICE}\t(none)\t(none)\t10.8.0.7/32\t-1\t0\t0\toff",
        FIRST_LINE + f"{DEVICE}\t(none)\t(none)\t10.8.0.7/32\t99999999999999999999\t0\t0\toff",
    ],
)
def test_a_dump_of_another_shape_is_an_error_that_repeats_no_secret(text: str) -> None:
    with pytest.raises(UnexpectedOutputError) as caught:
        parse_dump(text)
    told = "".join(traceback.format_exception(caught.value, chain=False))
    assert SECRET.reveal() not in str(caught.value) + told
    assert PRESHARED not in str(caught.value)


def test_peers_go_as_arguments_and_configuration_on_standard_input(tmp_path: Path) -> None:
    run = Scripted()
    tool(run).set_peer(DEVICE, [parse_network("10.8.0.7/32"), parse_network("10.8.0.8/32")])
    tool(run).remove_peers([DEVICE, SERVER])
    assert run.calls == [
        ("wg", "set", "wg0", "peer", str(DEVICE), "allowed-ips", "10.8.0.7/32,10.8.0.8/32"),
        ("wg", "set", "wg0", "peer", str(DEVICE), "remove", "peer", str(SERVER), "remove"),
    ]


def test_nothing_to_do_runs_nothing() -> None:
    run = Scripted()
    tool(run).set_peers([])
    tool(run).remove_peers([])
    assert run.calls == []


def test_many_removals_stay_below_the_limit_of_arguments() -> None:
    run = Scripted()
    tool(run).remove_peers([DEVICE] * 2500)
    assert [sum(word == "remove" for word in call) for call in run.calls] == [1000, 1000, 500]
    assert max(sum(len(word) + 1 for word in call) for call in run.calls) < 128 * 1024


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        ("Unable to access interface: No such device", NoSuchInterfaceError),
        ("Unable to access interface: Protocol not supported", NoSuchInterfaceError),
        ("Unable to modify interface: Operation not permitted", NotPermittedError),
        ("Unable to access interface: Permission denied", NotPermittedError),
        ("Key is not the correct length or format: `abc'", KeyRefusedError),
        ("Something new", RefusedError),
    ],
)
def test_what_wg_says_becomes_a_typed_error(stderr: str, kind: type[InterfaceError]) -> None:
    with pytest.raises(kind) as caught:
        tool(Scripted(1, stderr=stderr)).dump()
    assert type(caught.value) is kind
    assert "wg" in str(caught.value)


def test_a_key_that_wg_repeats_in_its_message_is_cut() -> None:
    stderr = f"Key is not the correct length or format: `{SECRET.reveal()}x'\nConfiguration parsing error"
    with pytest.raises(KeyRefusedError) as caught:
        tool(Scripted(1, stderr=stderr)).dump()
    assert SECRET.reveal()[:10] not in str(caught.value) + caught.value.detail
    assert "Configuration parsing error" in caught.value.detail


def test_a_message_without_end_is_cut() -> None:
    with pytest.raises(RefusedError) as caught:
        tool(Scripted(1, stderr="x" * 100_000)).dump()
    assert len(str(caught.value)) < 400


def test_output_is_not_in_the_repr_of_a_result() -> None:
    assert SECRET.reveal() not in repr(Completed(0, FIRST_LINE, FIRST_LINE))


def test_a_missing_program_says_what_to_install() -> None:
    with pytest.raises(ToolMissingError, match="wireguard-tools"):
        run_process(["wg-that-is-not-there"], timeout=5)


def test_a_program_that_may_not_be_run(tmp_path: Path) -> None:
    program = tmp_path / "wg"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o600)
    with pytest.raises(NotPermittedError):
        run_process([str(program)], timeout=5)


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    program = tmp_path / "wg"
    program.write_bytes(b"\x00\x01")
    program.chmod(0o700)
    with pytest.raises(InterfaceError):
        run_process([str(program)], timeout=5)


def test_a_program_that_hangs_is_stopped_and_what_it_printed_forgotten() -> None:
    script = f"print({SECRET.reveal()!r}, flush=True); import threading; threading.Event().wait()"
    with pytest.raises(ToolTimeoutError) as caught:
        run_process([sys.executable, "-c", script], timeout=1.0)
    cause = caught.value.__cause__
    assert cause is not None
    assert vars(cause)["output"] is None


def test_nothing_passes_through_a_shell(tmp_path: Path) -> None:
    attack = f"$(touch {tmp_path}/owned); touch {tmp_path}/owned"
    done = run_process([sys.executable, "-c", "import sys; print(sys.argv[1])", attack], timeout=30)
    assert done.stdout == attack + "\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["", "-h", "a" * 16, "wg 0", "wg0\n", "..", ".", "a/b", "wg0;id", "$(id)", "w\u00e9", "all\x00"]
)
def test_a_name_that_could_be_an_option_or_a_path_is_refused(name: str) -> None:
    with pytest.raises(InvalidInterfaceNameError):
        InterfaceName(name)


@pytest.mark.parametrize(
    "text",
    [
        "[Peer]\nPublicKey = x\n",
        "[Interface]\nListenPort = 1\n",
        "[Interface]\nPrivateKey = x\n",
        "[Interface]\n# PrivateKey = x\nListenPort = 1\n",
        "[Interface]\nPrivateKey =\nListenPort = 1\n",
    ],
)
def test_syncconf_is_not_given_a_file_that_would_take_key_or_port_away(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text(text)
    run = Scripted()
    with pytest.raises(InvalidValueError):
        tool(run).syncconf(path)
    assert run.calls == []


def test_syncconf_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError):
        tool(Scripted()).syncconf(tmp_path / "none.conf")


def test_wg_quick_is_given_an_absolute_file_and_told_of_the_userspace_program(tmp_path: Path) -> None:
    run = Scripted()
    path = tmp_path / "wg7.conf"
    assert quick.up(path, run) == quick.down(path, run) == InterfaceName("wg7")
    assert run.calls == [("wg-quick", "up", str(path)), ("wg-quick", "down", str(path))]
    assert run.environment == {"WG_QUICK_USERSPACE_IMPLEMENTATION": "wireguard-go"}


@pytest.mark.parametrize("name", ["wg0.txt", "-h.conf", "much-too-long-a-name.conf", ".conf", "a b.conf"])
def test_a_file_that_wg_quick_would_take_for_something_else_is_refused(tmp_path: Path, name: str) -> None:
    run = Scripted()
    with pytest.raises(InvalidInterfaceNameError):
        quick.up(tmp_path / name, run)
    assert run.calls == []


def test_failures_of_quick_are_typed(tmp_path: Path) -> None:
    failing = Scripted(1, stderr="wg-quick: `/x/wg0.conf' does not exist")
    with pytest.raises(RefusedError):
        quick.up(tmp_path / "wg0.conf", failing)
    with pytest.raises(RefusedError):
        quick.create(InterfaceName("wg0"), failing)
