"""The agent with a key that is in no file: in a TPM, in a token; enrolled, connected to Mosquitto, renewed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from ca.standin.hierarchy import load_or_make
from compose.real.mosquitto import RealMosquitto
from compose.real.soft_token import SoftToken
from compose.real.software_tpm import SoftwareTpm
from enroll.keys import KeyFormatError
from enroll.keys.openssl_conf import has_pkcs11_provider
from enroll.keys.tpm import TpmKeys
from tests.e2e.background import Background
from tests.e2e.observers import open_eyes
from tests.e2e.processes import BIN, Bridge, Device, Ended, run
from tests.e2e.standins import USER, StandIns, now, standins
from tests.e2e.tenants import Tenant

pytestmark = pytest.mark.real

TOKEN = "dev"


@dataclass(frozen=True)
class Place:
    """A bridge that names a Mosquitto as its devices' broker."""

    tenant: Tenant
    broker: RealMosquitto


def mosquitto(systems: StandIns, folder: Path) -> RealMosquitto:
    """A broker that admits whom the tenant's CA certified."""
    folder.mkdir()
    pki = load_or_make(systems.folder / "ca" / "pki", now())
    anchors, crl = folder / "ca.pem", folder / "crl.pem"
    anchors.write_bytes(pki.issuing.pem + pki.intermediate.pem + pki.root.pem)
    nobody = x509.CertificateRevocationListBuilder(pki.issuing.certificate.subject, now(), now() + timedelta(days=1))
    crl.write_bytes(nobody.sign(pki.issuing.key, hashes.SHA256()).public_bytes(Encoding.PEM))
    return RealMosquitto(folder, anchors, crl, *systems.certificate)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, background: Background) -> Iterator[Place]:
    with ExitStack() as stack:
        systems = stack.enter_context(standins(tmp_path_factory.mktemp("systems"), background))
        broker = stack.enter_context(mosquitto(systems, tmp_path_factory.mktemp("broker") / "mosquitto"))
        door = {"THINGSBOARD_MQTT_HOST": "localhost", "THINGSBOARD_MQTT_PORT": str(broker.port)}
        bridge = stack.enter_context(Bridge(tmp_path_factory.mktemp("bridge"), systems.variables() | door))
        eyes = open_eyes(bridge, USER, USER)
        stack.callback(eyes.close)
        root = systems.ca.anchor.root_pem
        tenant = Tenant(bridge, root, eyes, bridge.data, systems.signed, tmp_path_factory.mktemp)
        yield Place(tenant, broker)


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    with SoftwareTpm(tmp_path_factory.mktemp("tpm")) as made:
        yield made


def agent(command: str, device: Device, variables: dict[str, str]) -> Ended:
    device.folder.mkdir(mode=0o700, exist_ok=True)
    known = {
        "BRIDGE_API_URL": device.url,
        "STEP_CA_FINGERPRINT": device.root_sha256,
        "DEVICE_ID": device.id,
        "CERTS_DIR": str(device.folder),
        "ENROLL_TUNNEL": "none",
        "ENROLL_BUDGET": "30",
    }
    return run(BIN / "iot-enroll", command, "--json", variables=known | variables, cwd=device.folder)


def private_keys(folder: Path) -> list[str]:
    """Files below the folder that hold a private key in the open."""
    marks = (b"BEGIN PRIVATE KEY", b"BEGIN EC PRIVATE KEY", b"BEGIN RSA PRIVATE KEY", b"BEGIN ENCRYPTED")
    found = (path for path in folder.rglob("*") if path.is_file())
    return [path.name for path in found if any(mark in path.read_bytes() for mark in marks)]


def test_a_whole_life_with_a_key_in_the_tpm(place: Place, tpm: SoftwareTpm, tmp_path: Path) -> None:
    variables = {"ENROLL_KEY": "tpm"} | tpm.environment
    device = place.tenant.device("tpm", registered=False)

    boot = agent("run", device, variables)
    assert boot.status == 0, (boot.output, boot.errors)
    assert boot.event("mqtt")["accepted"] is True
    assert f"u'{device.id}'" in place.broker.log
    assert boot.errors == ""

    first = device.path("device.key").read_bytes()
    assert first.startswith(b"-----BEGIN TSS2 PRIVATE KEY-----\n")
    assert private_keys(device.folder) == []
    with SoftwareTpm(tmp_path / "other") as other, pytest.raises(KeyFormatError, match="another TPM"):
        TpmKeys(os.environ | other.environment).read(first)

    again = agent("run", device, variables)
    assert again.status == 0, (again.output, again.errors)
    assert device.path("device.key").read_bytes() == first

    serial = device.serial
    renewed = agent("renew", device, variables)
    assert renewed.status == 0, (renewed.output, renewed.errors)
    assert renewed.event("mqtt")["accepted"] is True
    assert device.serial != serial
    second = device.path("device.key").read_bytes()
    assert second != first
    assert second.startswith(b"-----BEGIN TSS2 PRIVATE KEY-----\n")
    assert private_keys(device.folder) == []
    assert place.tenant.bridge.show(device.id)["issuances"][0]["serial"] in {str(serial), str(device.serial)}


def test_a_tpm_that_is_away_costs_a_try_and_no_key(place: Place, tpm: SoftwareTpm) -> None:
    variables = {"ENROLL_KEY": "tpm"} | tpm.environment
    device = place.tenant.device("away", registered=False)
    assert agent("run", device, variables).status == 0
    files = {path.name: path.read_bytes() for path in device.folder.iterdir() if path.is_file()}

    gone = agent("run", device, variables | {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere"})
    assert gone.status == 75, (gone.output, gone.errors)
    assert "the TPM cannot be reached" in gone.errors
    assert {path.name: path.read_bytes() for path in device.folder.iterdir() if path.is_file()} == files

    wrong = agent("run", device, variables | {"ENROLL_KEY": "file"})
    assert wrong.status == 2, (wrong.output, wrong.errors)
    assert "set ENROLL_KEY=tpm" in wrong.errors
    assert {path.name: path.read_bytes() for path in device.folder.iterdir() if path.is_file()} == files


def test_a_fleet_moves_from_files_to_the_tpm_by_renewal(place: Place, tpm: SoftwareTpm) -> None:
    device = place.tenant.device("moving", registered=False)
    assert agent("run", device, {}).status == 0
    assert private_keys(device.folder) == ["device.key"]

    variables = {"ENROLL_KEY": "tpm"} | tpm.environment
    before = agent("run", device, variables)
    assert before.status == 0, (before.output, before.errors)
    assert before.event("mqtt")["accepted"] is True
    agent("renew", device, variables)  # an old tpm2-openssl serves one kind of key in one process
    after = agent("run", device, variables)
    assert after.status == 0, (after.output, after.errors)
    assert after.event("mqtt")["accepted"] is True
    assert private_keys(device.folder) == []
    assert place.tenant.bridge.show(device.id)["state"] == "active"


def test_enrollment_and_renewal_with_a_key_in_a_token(place: Place, tmp_path: Path) -> None:
    tokens = SoftToken(tmp_path / "token")
    tokens.make(TOKEN)
    variables = tokens.environment | {
        "ENROLL_KEY": "pkcs11",
        "ENROLL_PKCS11_MODULE": str(tokens.module),
        "ENROLL_PKCS11_TOKEN": TOKEN,
        "ENROLL_PKCS11_PIN_FILE": str(tokens.pin_file),
    }
    device = place.tenant.device("token", registered=False)
    with_tls = has_pkcs11_provider(os.environ)

    boot = agent("run", device, variables)
    assert boot.event("enrolled")["generation"] == 1
    mqtt = boot.event("mqtt")
    assert (boot.status, mqtt["accepted"]) == ((0, True) if with_tls else (75, False)), (boot.output, boot.errors)
    assert with_tls or "pkcs11-provider" in mqtt["why"]
    first = device.path("device.key").read_bytes()
    assert first.startswith(b"pkcs11:token=dev;serial=")
    assert x509.load_pem_x509_csr(device.path("device.csr").read_bytes()).is_signature_valid
    assert private_keys(device.folder) == []

    serial = device.serial
    renewed = agent("renew", device, variables)
    assert renewed.event("renewed"), (renewed.output, renewed.errors)
    assert device.serial != serial
    assert device.path("device.key").read_bytes() != first
    for told in (boot, renewed):
        assert tokens.pin not in told.output + told.errors
    # Of the two keys the token keeps the one in use.
    assert len(list((tokens.folder / "tokens").rglob("*-*.object"))) == 2, "one private and one public half"
