"""Configuration of update clients: read back by parsers of the test's own, whatever text came in."""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enroll import updaters
from enroll.config import KeyKind, Settings
from enroll.errors import AnswerRejectedError, ConfigurationError
from enroll.names import BridgeUrl, DeviceId, Fingerprint
from enroll.record import Record

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FOLDER = Path("/certs")
SETTINGS = Settings(BridgeUrl.parse("https://b.example"), DeviceId("dev-1"), FOLDER, (Fingerprint("0" * 64),))


def record(url: str | None = "https://hawkbit.example:8443", tenant: str | None = "DEFAULT") -> Record:
    return Record(
        device_id="dev-1", generation=1, serial=1, leaf_sha256="0" * 64, address=None, not_after=NOW, renew_after=NOW,
        enrolled_at=NOW, bridge="https://b.example", endpoint=None, mqtt=None, hawkbit_url=url, hawkbit_tenant=tenant,
    )  # fmt: skip


def settings(**changes: Any) -> Settings:
    return dataclasses.replace(SETTINGS, **changes)


def key_file(content: bytes) -> dict[str, dict[str, str]]:
    """Read a GKeyFile; values of [client] as strings, unescaped, those of [device] as they are."""
    groups: dict[str, dict[str, str]] = {}
    for line in content.decode().split("\n"):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("["):
            assert line.endswith("]")
            current = groups.setdefault(line[1:-1], {})
            name = line[1:-1]
            continue
        key, equals, value = line.partition("=")
        assert equals
        assert re.fullmatch("[a-z_]+", key)
        assert key not in current
        value = value.lstrip()
        if name == "client":
            value = re.sub(r"\\(.)", lambda m: {"s": " ", "\\": "\\"}[m[1]], value)
        current[key] = value
    return groups


def libconfig(content: bytes) -> dict[str, str | int]:
    """Read the one group of a libconfig file."""
    text = "\n".join(line for line in content.decode().split("\n") if not line.startswith("#"))
    found = re.fullmatch(r"\s*suricatta :\s*\{(.*)\};\s*", text, re.DOTALL)
    assert found
    values: dict[str, str | int] = {}
    setting = re.compile(r'\s*([a-z]+) = (?:([0-9]+)|"((?:[^"\\\n]|\\["\\])*)");')
    rest = found[1]
    while match := setting.match(rest):
        assert match[1] not in values
        values[match[1]] = int(match[2]) if match[2] else re.sub(r"\\(.)", r"\1", match[3])
        rest = rest[match.end() :]
    assert not rest.strip()
    return values


def test_raucs_client_gets_its_options() -> None:
    read = key_file(updaters.rauc(settings(device_type="Pump \\ 7 "), record(), FOLDER))
    assert read["client"] == {
        "hawkbit_server": "hawkbit.example:8443",
        "ssl": "true",
        "ssl_verify": "true",
        "tenant_id": "DEFAULT",
        "target_name": "dev-1",
        "ssl_key": "/certs/device.key",
        "ssl_cert": "/certs/device.crt",
        "bundle_download_location": "/var/tmp/iot-enroll-bundle.raucb",
        "resume_downloads": "true",
    }
    assert read["device"] == {"device_id": "dev-1", "device_type": "Pump \\ 7"}


def test_swupdate_gets_its_section() -> None:
    assert libconfig(updaters.swupdate(SETTINGS, record("https://hawkbit.example/hb/"), FOLDER)) == {
        "tenant": "DEFAULT",
        "id": "dev-1",
        "url": "https://hawkbit.example/hb",
        "polldelay": 300,
        "retry": 4,
        "cafile": "/certs/root.crt",
        "sslkey": "/certs/device.key",
        "sslcert": "/certs/device.crt",
    }


def test_only_what_is_asked_for_is_written() -> None:
    both = settings(rauc_config=Path("/etc/r.conf"), swupdate_config=Path("/etc/s.cfg"))
    assert [path for path, _ in updaters.wanted(both, record(), FOLDER)] == [Path("/etc/r.conf"), Path("/etc/s.cfg")]
    assert updaters.wanted(SETTINGS, record(), FOLDER) == []
    assert updaters.wanted(both, record(None, None), FOLDER) == []
    one = updaters.wanted(settings(swupdate_config=Path("/s")), record("https://h.example/hb"), FOLDER)
    assert one == [(Path("/s"), updaters.swupdate(SETTINGS, record("https://h.example/hb"), FOLDER))]


@pytest.mark.parametrize(
    ("url", "tenant", "words"),
    [
        ("http://hawkbit.example", "DEFAULT", "must begin with https"),
        ("https://user:pw@hawkbit.example", "DEFAULT", "no user"),
        ("https://hawkbit.example/?q=1", "DEFAULT", "no user, query"),
        ("https://haw\nkbit.example:x", "DEFAULT", "hawkbit.url"),
        ("https://[::1", "DEFAULT", "hawkbit.url"),
        ("https://hawkbit.example", "DEF AULT", "hawkbit.tenant"),
        ("https://hawkbit.example", 'D";\nshellscript = "id', "hawkbit.tenant"),
        ("https://hawkbit.example", "", "hawkbit.tenant"),
    ],
)
def test_what_no_client_can_be_given(url: str, tenant: str, words: str) -> None:
    for render in (updaters.rauc, updaters.swupdate):
        with pytest.raises(AnswerRejectedError, match=words):
            render(SETTINGS, record(url, tenant), FOLDER)


def test_raucs_client_has_no_path() -> None:
    with pytest.raises(AnswerRejectedError, match="has a path"):
        updaters.rauc(SETTINGS, record("https://hawkbit.example/hb"), FOLDER)


def test_what_the_owner_must_do_by_hand_is_told() -> None:
    with pytest.raises(ConfigurationError, match="ENROLL_RAUC_CONFIG: a key in a PKCS"):
        updaters.rauc(settings(key=KeyKind.PKCS11), record(), FOLDER)
    with pytest.raises(ConfigurationError, match="CERTS_DIR"):
        updaters.swupdate(SETTINGS, record(), Path("/certs\nx"))


printable = st.text(max_size=40).filter(lambda text: text.isprintable() and "\0" not in text)
tricky = st.text("abc \\\";={}[]#@/'", max_size=30)


@given(
    st.one_of(
        st.just("https://h.example:1"), st.text(max_size=60), tricky.map(lambda text: f"https://h.example/{text}")
    ),
    st.one_of(st.just("DEFAULT"), st.text(max_size=40), tricky),
    st.one_of(printable, tricky).map(lambda text: Path(f"/{text.strip()}")),
    st.one_of(printable, tricky),
)
def test_whatever_comes_in_is_refused_or_reads_back(url: str, tenant: str, folder: Path, kind: str) -> None:
    chosen, known = settings(device_type=kind), record(url, tenant)
    paths = {f"{folder}/{name}" for name in ("device.key", "device.crt", "root.crt")}
    for render in (updaters.rauc, updaters.swupdate):
        try:
            content = render(chosen, known, folder)
        except (AnswerRejectedError, ConfigurationError):
            continue
        if render is updaters.rauc:
            groups = key_file(content)
            assert set(groups) == {"client", "device"}
            client: dict[str, Any] = groups["client"]
            assert set(groups["device"]) <= {"device_id", "device_type"}
            assert groups["device"].get("device_type", "") == kind.strip()
            assert (client["tenant_id"], client["target_name"], len(client)) == (tenant, "dev-1", 9)
            assert {client["ssl_key"], client["ssl_cert"]} < paths
        else:
            section = libconfig(content)
            assert (section["tenant"], section["id"], len(section)) == (tenant, "dev-1", 8)
            assert {section["sslkey"], section["sslcert"], section["cafile"]} == paths
