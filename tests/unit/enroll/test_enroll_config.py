"""Configuration: every error names its variable; and the small values behind it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from enroll.config import KeyKind, Settings, TlsTrust, TunnelMode, load
from enroll.errors import ConfigurationError
from enroll.names import BridgeUrl, DeviceId, Fingerprint, HostPort

RIGHT = {
    "BRIDGE_API_URL": "https://bridge.example:8443/api/",
    "DEVICE_ID": "dev-1",
    "STEP_CA_FINGERPRINT": "AB" * 32,
}


def test_defaults() -> None:
    assert load(RIGHT) == Settings(
        bridge=BridgeUrl("https://bridge.example:8443/api"),
        device_id=DeviceId("dev-1"),
        folder=Path("/certs"),
        root_pins=(Fingerprint("ab" * 32),),
        budget=90.0,
        start_spread=0.0,
        tls_trust=TlsTrust.PINNED,
        tunnel=TunnelMode.AUTO,
    )


def test_empty_variables_are_absent_and_foreign_ones_ignored() -> None:
    empty = dict.fromkeys(["DEVICE_NAME", "ENROLL_VOUCHER", "ENROLL_BUDGET", "ENROLL_TUNNEL", "CERTS_DIR"], "")
    assert load(RIGHT | empty | {"ENROLL_UNKNOWN": "x", "TENANT_ID": "t"}) == load(RIGHT)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BRIDGE_API_URL", None),
        ("BRIDGE_API_URL", "http://bridge.example"),
        ("BRIDGE_API_URL", "bridge.example"),
        ("BRIDGE_API_URL", "https://"),
        ("BRIDGE_API_URL", "https://user:secret@bridge.example"),
        ("BRIDGE_API_URL", "https://bridge.example/?x=1"),
        ("BRIDGE_API_URL", "https://bridge.example/a b"),
        ("BRIDGE_API_URL", "https://bridge.example/../x?"),
        ("BRIDGE_API_URL", "https://bridge.example:0"),
        ("BRIDGE_API_URL", "https://bridge.example:99999"),
        ("DEVICE_ID", None),
        ("DEVICE_ID", "a/b"),
        ("DEVICE_ID", ".."),
        ("DEVICE_ID", "a" * 65),
        ("DEVICE_ID", "dev\n1"),
        ("DEVICE_ID", "10.0.0.1"),
        ("DEVICE_ID", "LocalHost"),
        ("DEVICE_ID", "dév"),
        ("STEP_CA_FINGERPRINT", None),
        ("STEP_CA_FINGERPRINT", "ab"),
        ("STEP_CA_FINGERPRINT", "zz" * 32),
        ("STEP_CA_FINGERPRINT", "a:b" * 21 + "a"),
        ("ENROLL_ROOT_FINGERPRINT", "cd" * 32),
        ("ENROLL_ISSUER_FINGERPRINT", "x"),
        ("DEVICE_NAME", "a\nb"),
        ("DEVICE_TYPE", "x" * 129),
        ("ENROLL_VOUCHER", "PROV\n-1"),
        ("ENROLL_VOUCHER_FILE", "/nonexistent/voucher"),
        ("ENROLL_BUDGET", "soon"),
        ("ENROLL_BUDGET", "-1"),
        ("STEP_CA_FINGERPRINT", " ".join(f"{n:064x}" for n in range(9))),
        ("ENROLL_KEY", "yubikey"),
        ("ENROLL_INVENTORY", "perhaps"),
        ("ENROLL_SET_CLOCK", "2"),
        ("ENROLL_WG_INTERFACE", "../wg0"),
        ("ENROLL_WG_INTERFACE", "a-name-of-sixteen"),
        ("ENROLL_ALLOWED_IPS", "10.0.0.1/8"),
        ("ENROLL_RAUC_CONFIG", "relative.conf"),
        ("ENROLL_BUDGET", "nan"),
        ("ENROLL_START_SPREAD", "-1"),
        ("ENROLL_TLS_TRUST", "none"),
        ("ENROLL_TUNNEL", "ipsec"),
    ],
)
def test_what_makes_no_sense_is_named(variable: str, value: str | None) -> None:
    environment = {k: v for k, v in (RIGHT | {variable: value}).items() if v is not None}
    with pytest.raises(ConfigurationError) as wrong:
        load(environment)
    assert wrong.value.variable == variable
    assert str(wrong.value).startswith(f"{variable}: ")


def test_both_names_of_the_fingerprint_may_be_set_if_they_agree() -> None:
    assert load(RIGHT | {"ENROLL_ROOT_FINGERPRINT": "ab" * 32}).root_pins == (Fingerprint("ab" * 32),)
    alone = {k: v for k, v in RIGHT.items() if k != "STEP_CA_FINGERPRINT"} | {"ENROLL_ROOT_FINGERPRINT": "CD" * 32}
    assert load(alone).root_pins == (Fingerprint("cd" * 32),)


def test_several_fingerprints_are_several_pins() -> None:
    colons = ":".join(["CD"] * 32)
    settings = load(RIGHT | {"STEP_CA_FINGERPRINT": f"{'ab' * 32}, {colons}", "ENROLL_ISSUER_FINGERPRINT": "EF" * 32})
    assert settings.root_pins == (Fingerprint("ab" * 32), Fingerprint("cd" * 32))
    assert settings.issuer_pins == (Fingerprint("ef" * 32),)


def test_a_budget_of_nothing_has_no_end() -> None:
    assert load(RIGHT | {"ENROLL_BUDGET": "0"}).budget == math.inf


def test_a_token_needs_its_module_its_label_and_its_pin() -> None:
    token = {"ENROLL_KEY": "pkcs11", "ENROLL_PKCS11_MODULE": "/usr/lib/softhsm/libsofthsm2.so"}
    token |= {"ENROLL_PKCS11_TOKEN": "device", "ENROLL_PKCS11_PIN_FILE": "/run/pin"}
    assert load(RIGHT | token).key is KeyKind.PKCS11
    for name in list(token)[1:]:
        with pytest.raises(ConfigurationError, match=name):
            load(RIGHT | {k: v for k, v in token.items() if k != name})


def test_a_voucher_comes_from_one_place_and_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "voucher"
    file.write_text("PROV-AAAA-BBBB\n")
    settings = load(RIGHT | {"ENROLL_VOUCHER_FILE": str(file)})
    assert settings.voucher == "PROV-AAAA-BBBB"
    assert "PROV" not in repr(settings)
    with pytest.raises(ConfigurationError, match="set one of them"):
        load(RIGHT | {"ENROLL_VOUCHER_FILE": str(file), "ENROLL_VOUCHER": "x"})
    file.write_text("\n")
    with pytest.raises(ConfigurationError, match="holds no voucher"):
        load(RIGHT | {"ENROLL_VOUCHER_FILE": str(file)})


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("https://bridge.example", "https://bridge.example"),
        ("https://Bridge.example/", "https://bridge.example"),
        ("https://[::1]:8443/v1", "https://[::1]:8443/v1"),
        ("https://127.0.0.1:443", "https://127.0.0.1:443"),
        (" https://bridge.example/a/b/ ", "https://bridge.example/a/b"),
    ],
)
def test_base_urls(text: str, base: str) -> None:
    assert str(BridgeUrl.parse(text)) == base


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("localhost:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("vpn.example:51820", False),
        ("10.0.0.1:51820", False),
        ("[fd00::1]:51820", False),
    ],
)
def test_servers(text: str, loopback: bool) -> None:
    assert str(HostPort.parse(text)) == text
    assert HostPort.parse(text).loopback is loopback


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:", ":1", "host:0", "host:70000", "::1:1", "[host]:1", "a b:1", "h:1\n", "[fe80::1%eth0]:1"],
)
def test_what_is_no_server(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        HostPort.parse(text)
