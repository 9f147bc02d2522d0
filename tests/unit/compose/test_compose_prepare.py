import json
import shutil
import stat
from pathlib import Path

import pytest
from cryptography import x509

from ca.answers import provisioners
from ca.template import judge
from compose.prepare import prepare
from wireguard.keys import PublicKey

HOST = "bridge.example.com"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("compose")
    return folder, prepare(HOST, folder)


def test_step_ca_gets_our_provisioners(made: tuple[Path, dict[str, str]]) -> None:
    configuration = json.loads((made[0] / "tenant/step-ca/config/ca.json").read_text())
    page = {"provisioners": configuration["authority"]["provisioners"]}
    devices, servers = provisioners(page)[0]
    assert judge(devices) == ()
    assert (devices.name, servers.name) == ("iot-bridge", "iot-bridge-server")
    assert HOST in (servers.template or "")
    assert f"https://{configuration['dnsNames'][0]}/1.0/crl" in (devices.template or "")


def test_the_chain_is_the_pinned_one(made: tuple[Path, dict[str, str]]) -> None:
    folder, variables = made
    certificates = folder / "tenant/step-ca/certs"
    issuing, intermediate = x509.load_pem_x509_certificates((certificates / "chain.crt").read_bytes())
    root = x509.load_pem_x509_certificate((certificates / "root.crt").read_bytes())
    issuing.verify_directly_issued_by(intermediate)
    intermediate.verify_directly_issued_by(root)
    mqtt = x509.load_pem_x509_certificates((folder / "tenant/mqtt/server.crt").read_bytes())[0]
    mqtt.verify_directly_issued_by(issuing)
    PublicKey.parse(variables["WG_SERVER_PUBLIC_KEY"])


def test_secrets_are_for_their_owner_only(made: tuple[Path, dict[str, str]]) -> None:
    tenant = made[0] / "tenant"
    assert stat.S_IMODE(tenant.stat().st_mode) == 0o700
    open_to_others = {path.name for path in tenant.rglob("*") if path.is_file() and path.stat().st_mode & 0o077}
    assert open_to_others == {"server.crt", "server.key"}
    assert stat.S_IMODE((made[0] / ".env").stat().st_mode) == 0o600


def test_a_second_run_keeps_everything(tmp_path: Path) -> None:
    first = prepare(HOST, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert prepare(HOST, tmp_path) == first
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_without_the_offline_keys_nothing_is_made_anew(tmp_path: Path) -> None:
    prepare(HOST, tmp_path)
    shutil.rmtree(tmp_path / "tenant" / "offline")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="prepared already"):
        prepare(HOST, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("host", ["", "https://bridge", "a b", 'x"; {{ .Token }}', "-x"])
def test_what_is_no_host_name(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValueError, match="host name"):
        prepare(host, tmp_path)
