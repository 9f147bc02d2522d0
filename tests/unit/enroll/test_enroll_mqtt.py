"""Phase 2 against a TLS socket that asks for a client certificate and speaks just enough MQTT."""

from __future__ import annotations

import contextlib
import importlib
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import trustme
from cryptography import x509

from enroll import mqtt
from enroll.errors import BrokerError
from enroll.mqtt import connect_once, stay
from enroll.names import HostPort

ACCEPTED, WRONG_PROTOCOL, SERVER_UNAVAILABLE, NOT_AUTHORIZED = 0, 1, 3, 5
CLOSE, SILENCE, NONSENSE = "close", "silence", "nonsense"


@dataclass
class Door:
    """Takes one connection after the other; answers each CONNECT with the next word of the list."""

    context: ssl.SSLContext
    answers: list[int | str]
    acknowledges: bool = True
    leaves: list[x509.Certificate] = field(default_factory=list)
    client_ids: list[str] = field(default_factory=list)
    published: list[tuple[str, bytes]] = field(default_factory=list)
    goodbyes: int = 0
    spoken: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __post_init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self.address = HostPort("127.0.0.1", self._socket.getsockname()[1])
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
                with raw, self.context.wrap_socket(raw, server_side=True) as connection:
                    self._talk(connection)

    def _talk(self, connection: ssl.SSLSocket) -> None:
        packet = connection.recv(4096)
        self.leaves.append(x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b""))
        assert packet[4:9] == b"MQTT\x04"  # MQTT 3.1.1
        length = int.from_bytes(packet[12:14])
        self.client_ids.append(packet[14 : 14 + length].decode())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer == CLOSE:
            return
        if answer == NONSENSE:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        if isinstance(answer, int):
            connection.sendall(bytes([0x20, 2, 0, answer]))
        while self._packet(connection):
            pass

    def _packet(self, connection: ssl.SSLSocket) -> bool:
        packet = connection.recv(4096)
        if packet[:1] == b"\x32":  # PUBLISH, QoS 1
            topic_ends = 4 + int.from_bytes(packet[2:4])
            self.published.append((packet[4:topic_ends].decode(), packet[topic_ends + 2 :]))
            if self.acknowledges:
                connection.sendall(b"\x40\x02" + packet[topic_ends : topic_ends + 2])
            self.spoken.release()
        self.goodbyes += packet[:1] == b"\xe0"
        return packet != b""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def client(authority: trustme.CA) -> ssl.SSLContext:
    """What the agent hands over: verifies by the pinned root, holds the device's pair."""
    return client_of(authority, authority)


def client_of(believed: trustme.CA, issuer: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    believed.configure_trust(context)
    issuer.issue_cert("dev-1.example", common_name="dev-1").configure_cert(context)
    return context


@pytest.fixture
def open_door(authority: trustme.CA) -> Iterator[Callable[..., Door]]:
    doors: list[Door] = []

    def start(*answers: int | str, name: str = "127.0.0.1", tls: ssl.TLSVersion | None = None, **changes: Any) -> Door:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        if tls is not None:
            context.minimum_version = context.maximum_version = tls
        doors.append(Door(context, list(answers), **changes))
        return doors[-1]

    yield start
    for door in doors:
        door.close()


def refusal(door: Door | HostPort, context: ssl.SSLContext, seconds: float = 5.0) -> BrokerError:
    with pytest.raises(BrokerError) as raised:
        connect_once(door.address if isinstance(door, Door) else door, "dev-1", context, seconds)
    return raised.value


def test_the_broker_sees_this_devices_leaf_and_accepts_it(open_door: Any, client: ssl.SSLContext) -> None:
    door = open_door(ACCEPTED)
    assert connect_once(door.address, "dev-1", client, 5.0) == "the broker accepted this device's certificate"
    door.close()
    assert door.client_ids == ["dev-1"]
    assert "dev-1" in door.leaves[0].subject.rfc4514_string()
    assert door.goodbyes == 1
    assert door.published == []


def test_telemetry_is_one_acknowledged_message(open_door: Any, client: ssl.SSLContext) -> None:
    door = open_door(ACCEPTED)
    told = connect_once(door.address, "dev-1", client, 5.0, b'{"agent":"1"}')
    assert told.endswith("; telemetry acknowledged")
    door.close()
    assert door.published == [("v1/devices/me/telemetry", b'{"agent":"1"}')]
    assert door.goodbyes == 1


def test_telemetry_that_is_not_acknowledged_is_a_sentence(open_door: Any, client: ssl.SSLContext) -> None:
    door = open_door(ACCEPTED, acknowledges=False)
    told = connect_once(door.address, "dev-1", client, 0.5, json.dumps({"agent": "1"}).encode())
    assert told.endswith("telemetry was not acknowledged in time")


@pytest.mark.parametrize(
    ("code", "refused"), [(2, True), (4, True), (NOT_AUTHORIZED, True), (SERVER_UNAVAILABLE, False)]
)
def test_a_connack_that_says_no(open_door: Any, client: ssl.SSLContext, code: int, refused: bool) -> None:
    error = refusal(open_door(code), client)
    assert error.refused is refused
    assert error.exit_code == 75
    assert "does not accept this device yet" in str(error)


@pytest.mark.parametrize("answer", [CLOSE, NONSENSE, WRONG_PROTOCOL])
def test_an_end_right_after_the_handshake_is_a_refusal(open_door: Any, client: ssl.SSLContext, answer: Any) -> None:
    error = refusal(open_door(answer), client)
    assert error.refused
    assert "closed the connection" in str(error)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_leaf_that_tls_refuses_is_a_refusal_in_both_versions(
    authority: trustme.CA, open_door: Any, version: ssl.TLSVersion
) -> None:
    error = refusal(open_door(ACCEPTED, tls=version), client_of(authority, trustme.CA()))
    assert error.refused
    # With TLS 1.3 the alert races the end of the connection.
    assert "unknown ca" in str(error) or (version is ssl.TLSVersion.TLSv1_3 and "closed the connection" in str(error))


def test_a_device_without_a_pair_is_refused(authority: trustme.CA, open_door: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    assert refusal(open_door(ACCEPTED), context).refused


def test_a_silent_broker_is_no_refusal(open_door: Any, client: ssl.SSLContext) -> None:
    error = refusal(open_door(SILENCE), client, 0.5)
    assert not error.refused
    assert "said nothing" in str(error)


@pytest.mark.parametrize("what", ["another name", "another root"])
def test_a_broker_that_is_not_the_tenants_gets_nothing(
    authority: trustme.CA, client: ssl.SSLContext, open_door: Any, what: str
) -> None:
    door = open_door(ACCEPTED, name="other.example" if what == "another name" else "127.0.0.1")
    error = refusal(door, client_of(trustme.CA(), authority) if what == "another root" else client)
    assert not error.refused
    assert "does not hold against the pinned root" in str(error)
    door.close()
    assert door.client_ids == []


def test_a_closed_port_and_an_unknown_name_are_no_refusals(client: ssl.SSLContext) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for broker in (HostPort("127.0.0.1", port), HostPort("broker.invalid", 8883)):
        error = refusal(broker, client)
        assert not error.refused
        assert str(broker) in str(error)


def test_neither_silence_nor_a_slow_drip_during_tls_holds_the_run(client: ssl.SSLContext) -> None:
    ended = threading.Event()

    def drip(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            for octet in b"\x16\x03\x03\x40\x00" + bytes(2000):
                if ended.wait(0.05):
                    return
                connection.sendall(bytes([octet]))

    for serve in (None, drip):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            thread = threading.Thread(target=serve, args=(listening,)) if serve else None
            if thread:
                thread.start()
            began = time.monotonic()
            error = refusal(HostPort("127.0.0.1", listening.getsockname()[1]), client, 0.6)
            assert time.monotonic() - began < 3.0
            assert not error.refused
            ended.set()
            if thread:
                thread.join()


def test_one_context_serves_many_attempts(open_door: Any, client: ssl.SSLContext) -> None:
    door = open_door(NOT_AUTHORIZED, CLOSE, ACCEPTED)
    assert refusal(door, client).refused
    assert refusal(door, client).refused
    connect_once(door.address, "dev-1", client, 5.0)


def test_stay_holds_a_connection_and_makes_another_when_it_breaks(open_door: Any, client: ssl.SSLContext) -> None:
    door, stop, said = open_door(NOT_AUTHORIZED, ACCEPTED), threading.Event(), list[str]()

    def run() -> None:
        stay(door.address, "dev-1", client, b"{}", stop, report=said.append, uniform=lambda low, _high: low)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert door.spoken.acquire(timeout=20)
        assert thread.is_alive()
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    assert "does not accept this device yet" in said[0]
    assert said[1] == "connected; telemetry acknowledged"


def test_on_an_older_paho_the_callback_hears_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}

    class OldClient:
        def __init__(self, **arguments: Any) -> None:
            made.update(arguments)

    monkeypatch.delattr(mqtt.paho, "CallbackAPIVersion", raising=False)
    monkeypatch.setattr(mqtt.paho, "Client", OldClient)
    assert isinstance(mqtt._client("dev-1"), OldClient)
    assert made == {"client_id": "dev-1", "protocol": mqtt.paho.MQTTv311, "reconnect_on_failure": False}
    assert mqtt._spelled(5) == "Connection Refused: not authorised."


def test_nothing_slow_but_paho_is_imported() -> None:
    code = "import sys, enroll.mqtt; print(sorted({'asyncio', 'httpx', 'cryptography'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == "[]"
    assert importlib.util.find_spec("paho") is not None
