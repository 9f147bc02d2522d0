"""The agent's connect at a real Mosquitto, in both versions of TLS."""

import ssl
import threading
from typing import Any

import pytest

from compose.real.mosquitto import RealMosquitto
from enroll.errors import BrokerError
from enroll.mqtt import connect_once, stay
from enroll.names import HostPort

pytestmark = pytest.mark.real

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


def dialled(authority: Any, broker: RealMosquitto, leaf: Any, version: ssl.TLSVersion, payload: bytes | None) -> str:
    context: ssl.SSLContext = authority.client_context(leaf)
    context.minimum_version = context.maximum_version = version
    return connect_once(HostPort("localhost", broker.port), "dev-1", context, 10.0, payload)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_leaf_is_accepted_and_its_telemetry_acknowledged(
    authority: Any, broker: RealMosquitto, version: ssl.TLSVersion
) -> None:
    leaf = authority.issue("dev-1")
    assert dialled(authority, broker, leaf, version, b'{"agent":"1"}').endswith("telemetry acknowledged")
    assert dialled(authority, broker, leaf, version, None) == "the broker accepted this device's certificate"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("what", ["revoked", "none"])
def test_a_leaf_that_mosquitto_refuses_is_a_refusal(
    authority: Any, broker: RealMosquitto, version: ssl.TLSVersion, what: str
) -> None:
    leaf = authority.issue("dev-1")
    authority.publish_crl(leaf)
    broker.reload()
    for _ in range(10):
        with pytest.raises(BrokerError) as refused:
            dialled(authority, broker, leaf if what == "revoked" else None, version, b"{}")
        assert refused.value.refused


def test_a_broker_that_has_gone_is_no_refusal(authority: Any, broker: RealMosquitto) -> None:
    leaf = authority.issue("dev-1")
    broker.stop()
    with pytest.raises(BrokerError) as unreachable:
        dialled(authority, broker, leaf, ssl.TLSVersion.TLSv1_3, None)
    assert not unreachable.value.refused


def test_stay_comes_back_after_the_broker(authority: Any, broker: RealMosquitto) -> None:
    stop, connected = threading.Event(), threading.Semaphore(0)

    def heard(sentence: str) -> None:
        if sentence == "connected; telemetry acknowledged":
            connected.release()

    context = authority.client_context(authority.issue("dev-1"))
    server = HostPort("localhost", broker.port)
    options = {"report": heard, "uniform": lambda _low, _high: 0.1}
    thread = threading.Thread(target=stay, args=(server, "dev-1", context, b"{}", stop), kwargs=options)
    thread.start()
    try:
        assert connected.acquire(timeout=20)
        broker.stop()
        broker.start()
        assert connected.acquire(timeout=20)
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
