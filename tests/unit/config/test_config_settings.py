"""The environment, read once: every error names its variable, no secret shows, embedded and real never mix."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bridge.config import Mode, Settings, load, mode_of
from bridge.config.modes import systems_of
from bridge.config.settings import SECRETS, variables
from bridge.config.values import parse_duration
from bridge.errors import Misconfigured
from bridge.model.records import System

REAL = {
    "STEP_CA_URL": "https://ca.example.com:9000",
    "STEP_CA_FINGERPRINT": "ab" * 32,
    "STEP_CA_PROVISIONER_NAME": "devices",
    "STEP_CA_PROVISIONER_PASSWORD": "s3cret-of-the-key",
    "BRIDGE_ADMISSION": "registered",
    "BRIDGE_TLS": "off",
}
THINGSBOARD = {
    "THINGSBOARD_URL": "https://tb.example.com",
    "THINGSBOARD_USERNAME": "bridge",
    "THINGSBOARD_PASSWORD": "s3cret-of-tb",
    "BRIDGE_WEBHOOK_SECRET": "s3cret-of-hook",
}
HAWKBIT = {
    "HAWKBIT_URL": "https://hb.example.com",
    "HAWKBIT_USERNAME": "bridge",
    "HAWKBIT_PASSWORD": "s3cret-of-hb",
}
WIREGUARD = {
    "WG_SUBNET": "10.9.0.0/24",
    "WG_SERVER_ENDPOINT": "vpn.example.com:51820",
    "WG_SERVER_PUBLIC_KEY": "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=",
}


def without(environment: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in names}


# -- single values -----------------------------------------------------------------------------------------------
def test_variables_of_the_users_table_and_ours_are_known() -> None:
    wanted = """STEP_CA_URL STEP_CA_FINGERPRINT STEP_CA_PROVISIONER_NAME STEP_CA_PROVISIONER_PASSWORD HAWKBIT_URL
        WG_SUBNET WG_SERVER_ENDPOINT WG_SERVER_PUBLIC_KEY BRIDGE_DATA BRIDGE_DATABASE_URL BRIDGE_TENANT
        BRIDGE_PUBLIC_HOST BRIDGE_PATH_PREFIX BRIDGE_ADMISSION BRIDGE_REENROLLMENT BRIDGE_WEBHOOK_SECRET
        BRIDGE_CERT_LIFETIME BRIDGE_RENEW_GRACE BRIDGE_SIGNING_KEY_FILE BRIDGE_TLS BRIDGE_TLS_CERT_FILE
        BRIDGE_TLS_KEY_FILE BRIDGE_SIGN_DEADLINE STEP_CA_PROFILE STEP_CA_PROVISIONER_KEY_FILE
        STEP_CA_SERVER_PROVISIONER_NAME STEP_CA_SERVER_PROVISIONER_PASSWORD STEP_CA_SERVER_PROVISIONER_KEY_FILE
        THINGSBOARD_URL THINGSBOARD_USERNAME THINGSBOARD_PASSWORD THINGSBOARD_MQTT_HOST THINGSBOARD_MQTT_PORT
        HAWKBIT_USERNAME HAWKBIT_PASSWORD HAWKBIT_TENANT HAWKBIT_PUBLIC_URL WG_DATA_DIR"""
    assert set(wanted.split()) <= set(variables())


def test_defaults_of_the_protocol() -> None:
    settings = load({})
    assert settings.bridge_sign_deadline == timedelta(seconds=15)
    assert settings.bridge_renew_grace == timedelta(days=30)
    assert settings.bridge_admission is None
    assert settings.hawkbit_tenant == "DEFAULT"
    assert settings.data.name == "iot-bridge"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BRIDGE_ADMISSION", "anybody"),
        ("BRIDGE_REENROLLMENT", "yes"),
        ("BRIDGE_TLS", "maybe"),
        ("BRIDGE_CERT_LIFETIME", "90"),
        ("BRIDGE_CERT_LIFETIME", "0d"),
        ("BRIDGE_CERT_LIFETIME", "-1d"),
        ("BRIDGE_CERT_LIFETIME", "99999999999999d"),
        ("BRIDGE_SIGN_DEADLINE", "15 seconds"),
        ("BRIDGE_PATH_PREFIX", "api"),
        ("BRIDGE_PATH_PREFIX", "/api/"),
        ("BRIDGE_TENANT", "x" * 65),
        ("STEP_CA_URL", "ca.example.com"),
        ("STEP_CA_URL", "ftp://ca.example.com"),
        ("STEP_CA_URL", "https://"),
        ("STEP_CA_URL", "https://user:pw@ca.example.com"),
        ("STEP_CA_URL", "https://ca.example.com?x=1"),
        ("STEP_CA_URL", "https://ca.example.com:99999"),
        ("STEP_CA_URL", "https://ca.example.com:nine"),
        ("STEP_CA_URL", "https://[::1"),
        ("STEP_CA_PROFILE", "lax"),
        ("THINGSBOARD_MQTT_PORT", "0"),
        ("THINGSBOARD_MQTT_PORT", "65536"),
        ("THINGSBOARD_MQTT_PORT", "mqtt"),
        ("WG_SUBNET", "10.8.0.1/24"),
        ("WG_SUBNET", "vpn"),
    ],
)
def test_wrong_value_is_told_by_the_name_of_its_variable(name: str, value: str) -> None:
    with pytest.raises(Misconfigured, match=rf"\b{name}: "):
        load({name: value})


def test_all_wrong_values_are_told_at_once() -> None:
    with pytest.raises(Misconfigured) as told:
        load({"BRIDGE_TLS": "maybe", "WG_SUBNET": "vpn", "HAWKBIT_URL": "no"})
    assert all(name in str(told.value) for name in ("BRIDGE_TLS", "WG_SUBNET", "HAWKBIT_URL"))


def test_empty_variable_counts_as_not_set() -> None:
    settings = load(dict.fromkeys(variables(), ""))
    assert mode_of(settings) is Mode.EMBEDDED
    assert settings == load({})


def test_url_loses_its_last_slash_and_the_network_is_typed() -> None:
    settings = load({"STEP_CA_URL": "https://ca.example.com/x/", "WG_SUBNET": "10.9.0.0/24"})
    assert settings.step_ca_url == "https://ca.example.com/x"
    assert settings.wg_subnet == IPv4Network("10.9.0.0/24")


def test_command_line_beats_the_environment_and_what_it_does_not_say_does_not(tmp_path: Path) -> None:
    environment = {"BRIDGE_DATA": "/elsewhere"}
    assert load(environment, bridge_data=tmp_path).data == tmp_path
    assert load(environment, bridge_data=None).data == Path("/elsewhere")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load({}).bridge_tenant = "other"


def test_process_environment_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_TENANT", "stray")
    assert load({}).bridge_tenant == "default"
    assert Settings().bridge_tenant == "default"


@pytest.mark.parametrize(
    ("text", "lasts"),
    [("90d", timedelta(90)), ("2160h", timedelta(90)), ("15m", timedelta(minutes=15)), (" 1s ", timedelta(seconds=1))],
)
def test_durations_as_people_write_them(text: str, lasts: timedelta) -> None:
    assert parse_duration(text) == lasts


@settings(deadline=None)
@given(st.text() | st.from_regex(r"\A[0-9]{1,30}[smhd]\Z"))
def test_no_text_ends_in_anything_but_a_duration_or_a_refusal(text: str) -> None:
    try:
        assert timedelta(0) < parse_duration(text) <= timedelta(days=36_525)
    except ValueError:
        return


# -- secrets -----------------------------------------------------------------------------------------------------
def test_no_secret_shows() -> None:
    marked = {name: f"s3cret-{name}" for name in SECRETS} | {"STEP_CA_URL": "https://ca.example.com"}
    settings = load(marked)
    for shown in (repr(settings), str(settings), repr(settings.model_dump()), settings.model_dump_json()):
        assert "s3cret" not in shown
    for name in SECRETS:
        assert getattr(settings, name.lower()).get_secret_value() == f"s3cret-{name}"


def test_no_secret_shows_in_an_error() -> None:
    with pytest.raises(Misconfigured) as told:
        load(dict.fromkeys(SECRETS, "s3cret") | {"BRIDGE_TLS": "s3cret-by-mistake"})
    assert "s3cret" not in str(told.value)


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_every_secret_can_come_from_a_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from-file\n")
    assert getattr(load({f"{name}_FILE": str(file)}), name.lower()).get_secret_value() == "from-file"
    with pytest.raises(Misconfigured, match=f"both {name} and {name}_FILE"):
        load({name: "x", f"{name}_FILE": str(file)})
    file.write_text(" \n")
    with pytest.raises(Misconfigured, match=f"{name}_FILE=.* is empty"):
        load({f"{name}_FILE": str(file)})
    with pytest.raises(Misconfigured, match=f"{name}_FILE=.* cannot be read"):
        load({f"{name}_FILE": str(tmp_path / "missing")})
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(Misconfigured, match=f"{name}_FILE="):
        load({f"{name}_FILE": str(file)})


def test_passwords_of_every_field_are_secrets() -> None:
    by_name = {name for name in variables() if name.endswith(("_PASSWORD", "_SECRET", "_SECRET_OLD"))}
    assert by_name <= SECRETS


# -- embedded or real --------------------------------------------------------------------------------------------
def test_nothing_configured_is_the_embedded_stack_with_every_system() -> None:
    settings = load({})
    assert mode_of(settings) is Mode.EMBEDDED
    assert systems_of(settings, Mode.EMBEDDED) == frozenset(System)


@pytest.mark.parametrize(
    "environment",
    [WIREGUARD, {"BRIDGE_TENANT": "t", "BRIDGE_ADMISSION": "open"}, {"BRIDGE_DATA": "/d"}, {"WG_DATA_DIR": "/w"}],
)
def test_our_own_variables_and_wireguards_do_not_end_embedded_mode(environment: dict[str, str]) -> None:
    assert mode_of(load(environment)) is Mode.EMBEDDED


OUTSIDE = [name for name in variables() if name.startswith(("STEP_CA_", "THINGSBOARD_", "HAWKBIT_"))]


@pytest.mark.parametrize("name", [*OUTSIDE, "BRIDGE_DATABASE_URL"])
def test_any_variable_of_an_outside_system_without_a_ca_is_an_error(name: str) -> None:
    values = {"STEP_CA_PROFILE": "plain", "THINGSBOARD_MQTT_PORT": "8883"}
    given_ = {name: values.get(name, "https://x.example.com")}
    if name == "STEP_CA_URL":
        with pytest.raises(Misconfigured, match="STEP_CA_FINGERPRINT"):
            mode_of(load(given_))
        return
    with pytest.raises(Misconfigured, match=f"STEP_CA_URL is missing, but {name} is set"):
        mode_of(load(given_))


def test_systems_without_url_are_off() -> None:
    settings = load(REAL)
    assert mode_of(settings) is Mode.REAL
    assert systems_of(settings, Mode.REAL) == {System.CA}
    everything = load(REAL | THINGSBOARD | HAWKBIT | WIREGUARD)
    assert systems_of(everything, mode_of(everything)) == frozenset(System)


@pytest.mark.parametrize("name", sorted(set(REAL) - {"STEP_CA_URL", "BRIDGE_TLS", "STEP_CA_PROVISIONER_PASSWORD"}))
def test_what_a_real_stack_cannot_do_without_is_named(name: str) -> None:
    with pytest.raises(Misconfigured, match=f"missing: {name}$"):
        mode_of(load(without(REAL, name)))


@pytest.mark.parametrize("part", [THINGSBOARD, HAWKBIT])
def test_system_with_a_url_needs_all_of_its_variables(part: dict[str, str]) -> None:
    url, *others = part
    for name in others:
        with pytest.raises(Misconfigured, match=f"missing: {name}$"):
            mode_of(load(REAL | without(part, name)))
    assert url


@pytest.mark.parametrize("name", WIREGUARD)
def test_vpn_needs_all_three_of_its_variables(name: str) -> None:
    with pytest.raises(Misconfigured, match=name):
        mode_of(load(REAL | without(WIREGUARD, name)))


def test_provisioners_key_comes_by_password_or_file() -> None:
    bare = without(REAL, "STEP_CA_PROVISIONER_PASSWORD")
    with pytest.raises(Misconfigured, match="STEP_CA_PROVISIONER_PASSWORD or STEP_CA_PROVISIONER_KEY_FILE"):
        mode_of(load(bare))
    assert mode_of(load(bare | {"STEP_CA_PROVISIONER_KEY_FILE": "/k"})) is Mode.REAL


def test_https_needs_files_or_a_provisioner_for_our_name() -> None:
    with pytest.raises(Misconfigured, match="BRIDGE_PUBLIC_HOST, STEP_CA_SERVER_PROVISIONER_NAME"):
        mode_of(load(without(REAL, "BRIDGE_TLS")))
    files = {"BRIDGE_TLS_CERT_FILE": "/c", "BRIDGE_TLS_KEY_FILE": "/k"}
    assert mode_of(load(without(REAL, "BRIDGE_TLS") | files)) is Mode.REAL


@pytest.mark.parametrize("base", [{}, REAL])
@pytest.mark.parametrize("name", ["BRIDGE_TLS_CERT_FILE", "BRIDGE_TLS_KEY_FILE"])
def test_certificate_and_key_go_together(base: dict[str, str], name: str) -> None:
    with pytest.raises(Misconfigured, match="BRIDGE_TLS_CERT_FILE and BRIDGE_TLS_KEY_FILE"):
        mode_of(load(base | {name: "/x"}))


# -- names of servers --------------------------------------------------------------------------------------------
def test_no_device_may_be_called_like_any_configured_host() -> None:
    environment: dict[str, Any] = (
        REAL
        | THINGSBOARD
        | HAWKBIT
        | WIREGUARD
        | {
            "HAWKBIT_PUBLIC_URL": "https://Updates.Example.com:8443/x",
            "BRIDGE_PUBLIC_HOST": "Bridge.example.com",
            "THINGSBOARD_MQTT_HOST": "mqtt.example.com",
            "BRIDGE_DATABASE_URL": "postgresql+psycopg://user:pw@db.example.com:5432/bridge",
        }
    )
    names = ("ca", "tb", "hb", "updates", "bridge", "mqtt", "vpn", "db")
    assert load(environment).reserved_hosts == {f"{name}.example.com" for name in names}


def test_database_url_that_is_none_is_the_stores_to_refuse() -> None:
    assert load({"BRIDGE_DATABASE_URL": "postgresql://[::1"}).reserved_hosts == frozenset()
