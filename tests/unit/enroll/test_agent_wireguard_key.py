"""A WireGuard key that is another identity's: the device must not be refused for it for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from enroll.wire import Code


def test_a_wireguard_key_in_use_is_replaced(device: Any, problem: Callable[..., Any]) -> None:
    """Its device key was lost, its WireGuard key was not; the bridge wants both to be new."""
    device.bridge.script.append(lambda _: problem(409, str(Code.WG_KEY_IN_USE)))
    device.run()
    first, second = device.bridge.posts
    assert first["csr_pem"] == second["csr_pem"]
    assert first["wg_public_key"] != second["wg_public_key"]
    assert device.event("wireguard_key_dropped")["code"] == "wg_key_in_use"
    assert "enrolled" in device.files()
    assert b"PrivateKey = " + device.read("wg.key").strip() in device.read("wg0.conf")


def test_nor_is_it_taken_from_the_tunnel_again(device: Any, problem: Callable[..., Any]) -> None:
    device.run()
    for name in ("device.key", "device.crt", "enrolled"):
        (device.folder / name).unlink()
    device.bridge.script.append(lambda _: problem(409, str(Code.WG_KEY_IN_USE)))
    device.run()
    assert len({post["wg_public_key"] for post in device.bridge.posts}) == 2


def test_the_disk_is_ready_for_the_new_pair_before_the_bridge_is_asked_to_activate(device: Any) -> None:
    device.run()
    activate, there = device.bridge.activate, set()

    def look(request: dict[str, Any]) -> Any:
        there.update(path.name for path in (device.folder / "next").iterdir())
        return activate(request)

    device.bridge.activate = look
    device.run(renew_now=True)
    assert {"confirmed", "enrolled", "device.key", "device.crt"} <= there
    assert list((device.folder / "next").iterdir()) == []
