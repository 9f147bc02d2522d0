"""Phase 3 on machines of every kind; no interface is touched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from enroll.config import TunnelMode
from enroll.tunnel import Completed, LinuxMachine, latest_handshake


class FakeMachine:
    """A root machine with wireguard-tools whose commands answer from a table."""

    def __init__(self) -> None:
        self.root, self.tools, self.interfaces = True, True, set[str]()
        self.ran: list[list[str]] = []
        self.handshakes = ["K\t0\n", "K\t1700000000\n"]
        self.up = Completed(0, "", "")
        self.public_key = ""

    def is_root(self) -> bool:
        return self.root

    def find(self, command: str) -> str | None:
        return f"/usr/bin/{command}" if self.tools else None

    def has_interface(self, name: str) -> bool:
        return name in self.interfaces

    async def run(self, arguments: Sequence[str]) -> Completed:
        self.ran.append(list(arguments))
        if arguments[0] == "wg-quick":
            return self.up
        if arguments[-1] == "public-key":
            return Completed(0, f"{self.public_key}\n", "")
        return Completed(0, self.handshakes.pop(0) if len(self.handshakes) > 1 else self.handshakes[0], "")


@pytest.fixture
def machine(device: Any) -> FakeMachine:
    device.machine = FakeMachine()
    device.bridge.wg_endpoint = "vpn.example:51820"
    return device.machine


async def test_it_is_raised_and_its_handshake_is_observed(device: Any, machine: FakeMachine) -> None:
    await device.run()
    assert machine.ran == [
        ["wg-quick", "up", str(device.folder / "wg0.conf")],
        ["wg", "show", "wg0", "latest-handshakes"],
        ["wg", "show", "wg0", "latest-handshakes"],
    ]
    assert device.event("tunnel") == {
        "event": "tunnel",
        "raised": True,
        "interface": "wg0",
        "why": "raised by wg-quick; handshake at 2023-11-14T22:13:20Z",
        "handshake": "2023-11-14T22:13:20+00:00",
    }


async def test_a_silent_server_is_a_sentence_and_bounded(device: Any, machine: FakeMachine) -> None:
    machine.handshakes = ["K\t0\n"]
    await device.run()
    assert "no handshake seen" in device.event("tunnel")["why"]
    assert device.event("tunnel")["handshake"] is None
    assert sum(device.clock.slept) <= 30.0


async def test_an_interface_that_is_ours_is_not_raised_twice(device: Any, machine: FakeMachine) -> None:
    await device.run(tunnel=TunnelMode.NONE)
    machine.interfaces.add("wg0")
    machine.public_key = device.bridge.posts[0]["wg_public_key"]
    await device.run()
    assert ["wg-quick", "up"] not in [command[:2] for command in machine.ran]
    assert device.event("tunnel")["raised"] is True


async def test_a_strangers_interface_is_left_alone(device: Any, machine: FakeMachine) -> None:
    machine.interfaces.add("wg0")
    machine.public_key = "somebody else"
    await device.run()
    assert [command[0] for command in machine.ran] == ["wg"]
    assert device.event("tunnel")["raised"] is False


async def test_a_failing_wg_quick_is_a_sentence(device: Any, machine: FakeMachine) -> None:
    machine.up = Completed(1, "", "[#] ip link add\nRTNETLINK answers: \x1b[31mNot supported\n")
    await device.run()
    assert device.event("tunnel")["why"].endswith("wg-quick failed: RTNETLINK answers: [31mNot supported")


@pytest.mark.parametrize(
    ("what", "words"), [("root", "only root can"), ("tools", "not installed"), ("loopback", "this machine itself")]
)
async def test_where_it_cannot_be_raised_a_sentence_says_why(
    device: Any, machine: FakeMachine, what: str, words: str
) -> None:
    if what == "loopback":
        device.bridge.wg_endpoint = "localhost:51820"
    else:
        setattr(machine, what, False)
    await device.run()
    assert device.event("tunnel")["raised"] is False
    assert words in device.event("tunnel")["why"]
    assert machine.ran == []


async def test_a_named_wg_quick_may_use_loopback(device: Any, machine: FakeMachine) -> None:
    device.bridge.wg_endpoint = "127.0.0.1:51820"
    await device.run(tunnel=TunnelMode.WG_QUICK)
    assert device.event("tunnel")["raised"] is True


async def test_commands_run_without_a_shell_and_never_raise() -> None:
    machine = LinuxMachine()
    assert await machine.run(["echo", "$HOME; id"]) == Completed(0, "$HOME; id\n", "")
    assert (await machine.run(["/nonexistent/wg"])).status == 127
    assert machine.has_interface("lo")
    assert not machine.has_interface("wg-none")


@pytest.mark.parametrize(
    ("output", "newest"), [("", 0), ("K\t0\n", 0), ("A\t5\nB\t9\n", 9), ("nonsense", 0), ("K\tx\n", 0), ("K\t-1\n", 0)]
)
def test_latest_handshakes_are_read(output: str, newest: int) -> None:
    assert latest_handshake(output) == newest
