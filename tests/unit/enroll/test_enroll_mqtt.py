"""Phase 2 against a TLS socket that asks for a client certificate and speaks just enough MQTT."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from enroll.errors import BrokerError, StorageError
from enroll.mqtt import connect_once, load_identity
from enroll.names import HostPort

ACCEPTED, NOT_AUTHORIZED = 0, 5
CLOSE = -1


class Door:
    """Takes one connection after the other; answers each CONNECT with the next code of the list."""

    def __init__(self, context: ssl.SSLContext, codes: list[int]) -> None:
        self.codes = codes
        self.leaves: list[x509.Certificate] = []
        self.client_ids: list[str] = []
        self.goodbyes = 0
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self.port = self._socket.getsockname()[1]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError):
                raw, _ = self._socket.accept()
                raw.settimeout(2)
                with raw, self._context.wrap_socket(raw, server_side=True) as connection:
                    self._talk(connection)

    def _talk(self, connection: ssl.SSLSocket) -> None:
        packet = connection.recv(4096)
        self.leaves.append(x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b""))
        assert packet[4:8] == b"MQTT"
        assert packet[8] == 4  # MQTT 3.1.1
        length = int.from_bytes(packet[12:14])
        self.client_ids.append(packet[14 : 14 + length].decode())
        code = self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]
        if code == CLOSE:
            return
        connection.sendall(bytes([0x20, 2, 0, code]))
        if connection.recv(4096)[:1] == b"\xe0":
            self.goodbyes += 1


@pytest.fixture
def open_door(pki: Any, tmp_path: Path) -> Iterator[Callable[..., Door]]:
    doors: list[Door] = []

    def start(*codes: int, names: tuple[str, ...] = (), issuer: Any = None) -> Door:
        context = pki.server_context(tmp_path, *names, issuer=issuer)
        context.load_verify_locations(cadata=pki.pem(pki.root.certificate))
        context.verify_mode = ssl.CERT_REQUIRED
        doors.append(Door(context, list(codes)))
        return doors[-1]

    yield start
    for door in doors:
        door.close()


async def test_the_broker_sees_this_devices_leaf_and_accepts_it(device: Any, open_door: Any) -> None:
    door = open_door(ACCEPTED)
    device.bridge.mqtt = {"host": "127.0.0.1", "port": door.port}
    await device.run()
    assert device.event("mqtt")["accepted"] is True
    door.close()
    assert door.client_ids == ["dev-1"]
    assert door.leaves == [x509.load_pem_x509_certificate(device.read("device.crt"))]
    assert door.goodbyes == 1


async def test_a_later_run_knows_the_broker_from_disk(device: Any, open_door: Any) -> None:
    door = open_door(ACCEPTED)
    device.bridge.mqtt = {"host": "localhost", "port": door.port}
    await device.run()
    await device.run()
    assert len(device.bridge.posts) == 1
    assert device.event("mqtt")["host"] == "localhost"
    door.close()
    assert len(door.client_ids) == 2


async def test_a_refusal_is_expected_at_first_and_tried_again(device: Any, open_door: Any) -> None:
    door = open_door(NOT_AUTHORIZED, CLOSE, ACCEPTED)
    device.bridge.mqtt = {"host": "127.0.0.1", "port": door.port}
    await device.run()
    assert device.event("mqtt")["attempts"] == 3
    waits = [e.to_json() for e in device.events if e.name == "waiting"]
    assert "does not accept this device yet" in waits[0]["why"]
    assert "closed the connection" in waits[1]["why"]


async def test_a_broker_that_never_accepts_is_not_now_but_the_tunnel_is_still_tried(
    device: Any, open_door: Any
) -> None:
    door = open_door(NOT_AUTHORIZED)
    device.bridge.mqtt = {"host": "127.0.0.1", "port": door.port}
    with pytest.raises(BrokerError) as refused:
        await device.run(budget=4.0)
    assert refused.value.exit_code == 75
    assert device.names()[-2:] == ["mqtt", "tunnel"]
    assert device.event("mqtt")["accepted"] is False
    assert "enrolled" in device.files()


async def test_an_unreachable_broker_is_not_now(device: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    device.bridge.mqtt = {"host": "127.0.0.1", "port": port}
    with pytest.raises(BrokerError, match="refused"):
        await device.run(budget=1.0)


@pytest.mark.parametrize("what", ["another name", "another root"])
async def test_a_broker_that_is_not_the_tenants_gets_nothing(device: Any, pki: Any, open_door: Any, what: str) -> None:
    stranger = pki.new_root("Provider Root") if what == "another root" else None
    names = ("other.example",) if what == "another name" else ("127.0.0.1",)
    door = open_door(ACCEPTED, names=names, issuer=stranger)
    device.bridge.mqtt = {"host": "127.0.0.1", "port": door.port}
    with pytest.raises(BrokerError, match="does not hold against the pinned root"):
        await device.run(budget=1.0)
    door.close()
    assert door.client_ids == []


def test_a_silent_broker_does_not_hold_the_run(pki: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pki.pem(pki.root.certificate))
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(BrokerError):
        connect_once(HostPort("127.0.0.1", mute.getsockname()[1]), "dev-1", context, 0.2)


def test_a_key_that_does_not_fit_is_told(pki: Any, tmp_path: Path) -> None:
    (tmp_path / "device.key").write_text("nothing")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(StorageError, match=r"device\.key"):
        load_identity(context, pki.pem(pki.sub.certificate).encode(), tmp_path / "device.key")
