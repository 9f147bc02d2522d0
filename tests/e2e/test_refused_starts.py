"""A server that could not do its work does not start: exit 2 names the variable and the mend, 75 what to wait for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ca.standin import StandInCa, StandInSettings
from compose.real.step_ca import KEYLESS_PROVISIONER, PASSWORD, PLAIN_PROVISIONER, RealStepCa, real_step_ca
from tests.e2e.background import Background
from tests.e2e.processes import BIN, Bridge, Ended, refused_start, run
from tests.e2e.standins import USER, StandIns, now, standins

CASES: dict[str, tuple[dict[str, str], int, tuple[str, ...]]] = {
    "wrong-password": ({"STEP_CA_PROVISIONER_PASSWORD": "wrong"}, 2, ("STEP_CA_PROVISIONER_PASSWORD",)),
    "renamed": ({"STEP_CA_PROVISIONER_NAME": "renamed"}, 2, ("STEP_CA_PROVISIONER_NAME", "'renamed'")),
    "another-template": (
        {"STEP_CA_PROVISIONER_NAME": "iot-bridge-server"},
        2,
        ('"options": {"x509": {"template":', "clientAuth", "STEP_CA_PROFILE=plain"),
    ),
    "too-long": ({"BRIDGE_CERT_LIFETIME": "900d"}, 2, ('"maxTLSCertDuration": "21600h"',)),
    "another-ca": ({"STEP_CA_FINGERPRINT": "0" * 64}, 2, ("STEP_CA_FINGERPRINT",)),
    "no-fingerprint": ({"STEP_CA_FINGERPRINT": "x"}, 2, ("STEP_CA_FINGERPRINT", "64 hex digits")),
    "nothing-listens": ({"STEP_CA_URL": "https://localhost:9"}, 75, ("STEP_CA_URL=https://localhost:9",)),
    "not-https": ({"STEP_CA_URL": "http://localhost:9"}, 2, ("STEP_CA_URL",)),
    "no-admission": ({"BRIDGE_ADMISSION": ""}, 2, ("BRIDGE_ADMISSION",)),
    "unknown-admission": ({"BRIDGE_ADMISSION": "everybody"}, 2, ("BRIDGE_ADMISSION",)),
    "half-configured": (
        {"THINGSBOARD_PASSWORD": "", "HAWKBIT_USERNAME": "", "WG_SUBNET": "10.8.0.0/24"},
        2,
        ("THINGSBOARD_PASSWORD", "HAWKBIT_USERNAME", "WG_SERVER_ENDPOINT", "WG_SERVER_PUBLIC_KEY"),
    ),
    "two-secrets": ({"HAWKBIT_PASSWORD_FILE": "/dev/null"}, 2, ("HAWKBIT_PASSWORD and HAWKBIT_PASSWORD_FILE",)),
    "short-deadline": ({"BRIDGE_SIGN_DEADLINE": "5s"}, 2, ("BRIDGE_SIGN_DEADLINE",)),
    "no-certificate": ({"BRIDGE_TLS_CERT_FILE": "/nowhere.crt"}, 2, ("/nowhere.crt",)),
    "old-database": ({"BRIDGE_DATABASE_URL": "mysql://localhost/x"}, 2, ("BRIDGE_DATABASE_URL",)),
}


def serve(folder: Path, variables: dict[str, str]) -> Ended:
    command = (BIN / "iot-bridge", "serve", "--port", "0", "--data", folder / "data")
    return run(*command, variables=variables, cwd=folder)


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory, background: Background) -> Iterator[StandIns]:
    with standins(tmp_path_factory.mktemp("systems"), background) as made:
        yield made


@pytest.mark.parametrize("case", CASES)
def test_it_says_what_to_change(systems: StandIns, tmp_path: Path, case: str) -> None:
    changed, status, texts = CASES[case]

    ended = refused_start(tmp_path, systems.variables() | changed)

    assert ended.status == status, ended.errors
    assert [text for text in texts if text not in ended.errors] == [], ended.errors
    assert systems.ca.password not in ended.errors
    assert USER[1] not in ended.errors


@pytest.mark.parametrize("case", ["wrong-password", "nothing-listens"])
def test_the_command_leaves_with_that_code_and_without_a_traceback(
    systems: StandIns, tmp_path: Path, case: str
) -> None:
    changed, status, texts = CASES[case]

    ended = serve(tmp_path, systems.variables() | changed)

    assert ended.status == status, ended.errors
    assert "Traceback" not in ended.errors
    assert [text for text in texts if text not in ended.errors] == [], ended.errors
    assert systems.ca.password not in ended.output + ended.errors


def test_a_registry_keeps_to_its_ca_and_its_mode(systems: StandIns, background: Background, tmp_path: Path) -> None:
    with Bridge(tmp_path, systems.variables()):
        pass
    other = StandInCa(StandInSettings(tmp_path / "other"), clock=now)
    background.run(other.start())
    moved = {
        "STEP_CA_URL": other.url,
        "STEP_CA_FINGERPRINT": other.fingerprint.value,
        "STEP_CA_PROVISIONER_PASSWORD": other.password,
    }
    try:
        another_ca = refused_start(tmp_path, systems.variables() | moved)
    finally:
        background.run(other.stop())
    embedded = refused_start(tmp_path, {})

    assert (another_ca.status, embedded.status) == (2, 2)
    assert f"root CA: the registry was made for {systems.ca.fingerprint}" in another_ca.errors
    assert "mode: the registry was made for real" in embedded.errors


@pytest.fixture(scope="module")
def step_ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStepCa]:
    with real_step_ca(tmp_path_factory.mktemp("step-ca")) as server:
        yield server


@pytest.mark.real
@pytest.mark.parametrize(
    ("provisioner", "password", "texts"),
    [
        (PLAIN_PROVISIONER, PASSWORD, ("certificate template", '"options": {"x509":', '"disableRenewal": true')),
        (KEYLESS_PROVISIONER, PASSWORD, ("STEP_CA_PROVISIONER_KEY_FILE",)),
        ("iot-bridge", "wrong", ("STEP_CA_PROVISIONER_PASSWORD",)),
        ("renamed", PASSWORD, ("STEP_CA_PROVISIONER_NAME",)),
    ],
)
def test_the_real_step_ca_is_judged_before_the_first_certificate(
    step_ca: RealStepCa, tmp_path: Path, provisioner: str, password: str, texts: tuple[str, ...]
) -> None:
    variables = {
        "STEP_CA_URL": step_ca.url,
        "STEP_CA_FINGERPRINT": step_ca.fingerprint.value,
        "STEP_CA_PROVISIONER_NAME": provisioner,
        "STEP_CA_PROVISIONER_PASSWORD": password,
        "BRIDGE_ADMISSION": "registered",
        "BRIDGE_TLS": "off",
    }

    ended = serve(tmp_path, variables)

    assert ended.status == 2, ended.errors
    assert [text for text in texts if text not in ended.errors] == [], ended.errors
