"""What a CRL does, and does not do, at a real Mosquitto."""

import os
import queue
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from compose.real.mosquitto import RealMosquitto
from tests.e2e.processes import wait_for

pytestmark = pytest.mark.real

SECONDS = 10


class Device:
    """One MQTT client with its events in a queue."""

    def __init__(self, broker: RealMosquitto, context: ssl.SSLContext, name: str) -> None:
        self.events: queue.Queue[str] = queue.Queue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, reconnect_on_failure=False)
        self._client.tls_set_context(context)
        self._client.on_connect = self._connected
        self._client.on_connect_fail = lambda *_: self.events.put("refused")
        self._client.on_disconnect = lambda *_: self.events.put("gone")
        self._client.on_message = lambda _c, _u, message: self.events.put(message.payload.decode())
        self._client.connect_async("localhost", broker.port, keepalive=30)
        self._client.loop_start()

    def next(self) -> str:
        return self.events.get(timeout=SECONDS)

    def echo(self, text: str) -> str:
        self._client.publish("echo", text, qos=1)
        return self.next()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not reason.is_failure:
            client.subscribe("echo", qos=1)
        self.events.put("refused" if reason.is_failure else "connected")


Connect = Callable[[ssl.SSLContext, str], Device]


@pytest.fixture
def connect(broker: RealMosquitto) -> Iterator[Connect]:
    opened: list[Device] = []

    def open_one(context: ssl.SSLContext, name: str) -> Device:
        opened.append(Device(broker, context, name))
        return opened[-1]

    yield open_one
    for device in opened:
        device.close()


def test_a_leaf_connects_and_its_common_name_is_the_user(
    authority: Any, broker: RealMosquitto, connect: Connect
) -> None:
    device = connect(authority.client_context(authority.issue("dev-1")), "client-1")
    assert device.next() == "connected"
    assert device.echo("hello") == "hello"
    assert "u'dev-1'" in broker.log


def test_after_revocation_the_next_handshake_fails_and_the_live_session_stays(
    authority: Any, broker: RealMosquitto, connect: Connect
) -> None:
    revoked, other = authority.issue("dev-1"), authority.issue("dev-2")
    live = connect(authority.client_context(revoked), "live")
    assert live.next() == "connected"
    authority.publish_crl(revoked)
    assert connect(authority.client_context(revoked), "before-reload").next() == "connected"
    broker.reload()
    assert connect(authority.client_context(revoked), "again").next() != "connected"
    assert wait_for(lambda: "certificate verify failed" in broker.log)  # the client hears of it before the log does
    assert "as again" not in broker.log
    assert live.echo("still here") == "still here"
    assert connect(authority.client_context(other), "other").next() == "connected"


def test_an_expired_crl_refuses_everyone(authority: Any, broker: RealMosquitto, connect: Connect) -> None:
    leaf = authority.issue("dev-1")
    authority.publish_crl(expired=True)
    broker.reload()
    assert connect(authority.client_context(leaf), "c").next() != "connected"
    authority.publish_crl()
    broker.reload()
    assert connect(authority.client_context(leaf), "d").next() == "connected"


def test_without_a_certificate_or_with_a_strangers_nobody_comes_in(
    authority: Any, broker: RealMosquitto, connect: Connect, tmp_path: Any
) -> None:
    assert connect(authority.client_context(None), "bare").next() != "connected"
    (tmp_path / "stranger").mkdir()
    stranger = type(authority)(tmp_path / "stranger")
    leaf = stranger.issue("dev-1")
    assert connect(authority.client_context(leaf), "stranger").next() != "connected"


def test_the_issuing_ca_alone_needs_a_crl(authority: Any, tmp_path: Any) -> None:
    """Mosquitto asks for the CRL of the leaf's issuer only, so the CAs above need not publish one."""
    (tmp_path / "sub").mkdir()
    below = type(authority)(tmp_path / "sub", parent=authority, title="Sub CA")
    server, leaf, revoked = below.issue("localhost", server=True), below.issue("dev-1"), below.issue("dev-2")
    below.publish_crl(revoked)
    with RealMosquitto(tmp_path / "m", below.file, below.crl, server.certificate, server.key) as chained:
        device = Device(chained, below.client_context(leaf), "c")
        assert device.next() == "connected"
        device.close()
        late = Device(chained, below.client_context(revoked), "d")
        assert late.next() != "connected"
        late.close()


def test_it_ends_by_its_pid(broker: RealMosquitto) -> None:
    pid = broker.pid
    broker.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
