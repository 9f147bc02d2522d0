"""What devices are told follows from what is switched on; a deadline that the CA could outlive is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bridge.adapters.tunnels import TunnelTerms
from bridge.app.wiring import Outfit, _answer_terms, build_enrollment
from bridge.config import load
from bridge.errors import Misconfigured

WIREGUARD = {
    "WG_SUBNET": "10.9.0.0/24",
    "WG_SERVER_ENDPOINT": "vpn.example.com:51820",
    "WG_SERVER_PUBLIC_KEY": "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=",
}


def test_devices_are_told_of_no_system_that_is_off() -> None:
    settings = load({"HAWKBIT_PUBLIC_URL": "https://updates.example.com", "THINGSBOARD_MQTT_HOST": "mqtt.example.com"})
    terms = _answer_terms(settings, None)
    assert (terms.mqtt, terms.hawkbit, terms.vpn) == (None, None, None)


def test_devices_are_told_what_they_can_reach() -> None:
    inside = {"HAWKBIT_URL": "http://hawkbit:8080", "THINGSBOARD_URL": "http://tb:8080"}
    outside = {"HAWKBIT_PUBLIC_URL": "https://updates.example.com", "THINGSBOARD_MQTT_HOST": "mqtt.example.com"}
    terms = _answer_terms(load(inside | outside), None)
    assert terms.hawkbit is not None
    assert terms.mqtt is not None
    assert (terms.hawkbit.url, terms.hawkbit.tenant) == ("https://updates.example.com", "DEFAULT")
    assert (terms.mqtt.host, terms.mqtt.port) == ("mqtt.example.com", 8883)
    bare = _answer_terms(load(inside), None)
    assert bare.hawkbit is not None
    assert bare.hawkbit.url == "http://hawkbit:8080"
    assert bare.mqtt is None


def test_devices_are_told_of_the_vpn() -> None:
    settings = load(WIREGUARD)
    assert settings.wg_subnet is not None
    terms = TunnelTerms(settings.wg_subnet, WIREGUARD["WG_SERVER_ENDPOINT"], WIREGUARD["WG_SERVER_PUBLIC_KEY"])
    vpn = _answer_terms(settings, terms).vpn
    assert vpn is not None
    assert vpn.allowed_ips == (settings.wg_subnet,)
    assert vpn.server_public_key.text == WIREGUARD["WG_SERVER_PUBLIC_KEY"]
    config = vpn.render(terms.pool.first, private_key_line=False)
    assert "PrivateKey" not in config
    assert "10.9.0." in config


@pytest.mark.parametrize("change", [{"endpoint": "vpn"}, {"server_key": "x"}, {"server_key": "A" * 43 + "="}])
def test_vpn_that_cannot_be_is_told_by_its_variables(change: dict[str, str]) -> None:
    subnet: Any = load(WIREGUARD).wg_subnet
    good = {"endpoint": WIREGUARD["WG_SERVER_ENDPOINT"], "server_key": WIREGUARD["WG_SERVER_PUBLIC_KEY"]}
    with pytest.raises(Misconfigured, match="WG_SUBNET, WG_SERVER_ENDPOINT or WG_SERVER_PUBLIC_KEY"):
        TunnelTerms(subnet, **(good | change))


@pytest.mark.parametrize(("deadline", "fine"), [("10s", False), ("11s", True)])
def test_attempt_outlives_the_time_that_the_ca_is_given(deadline: str, fine: bool) -> None:
    systems: Any = SimpleNamespace(tunnels=None, authority=SimpleNamespace(port=None))
    anything: Any = None
    outfit = Outfit(load({"BRIDGE_SIGN_DEADLINE": deadline}), anything, systems, anything, anything, anything, anything)
    if fine:
        build_enrollment(outfit)
        return
    with pytest.raises(Misconfigured, match="BRIDGE_SIGN_DEADLINE"):
        build_enrollment(outfit)
