"""A device's whole life, through processes only: three phases, again, a new key, the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from tests.e2e.processes import Bridge, Device, Ended, refused_start, wait_for
from tests.e2e.referee import HandshakeFailed, accepted_as_client, accepted_as_server
from tests.e2e.tenants import Tenant, embedded_tenant, signed_by_embedded_ca
from wireguard.keys import PrivateKey

PRIVATE = {"device.key", "wg.key", "wg0.conf"}
FILES = {"device.key", "device.csr", "device.crt", "ca-chain.crt", "root.crt", "wg.key", "wg0.conf", "enrolled"}


def first_connect(tenant: Tenant, device: Device) -> dict[str, Any]:
    """ThingsBoard's attributes once the device's first connect has come round through the webhook."""

    def seen() -> dict[str, Any]:
        found = tenant.eyes.thingsboard.attributes(device.id) or {}
        assert "wireguard_ip" in found, found
        return found

    return wait_for(seen)


def settled(tenant: Tenant, device: Device) -> dict[str, Any]:
    """The registry's view once every system is in agreement."""

    def look() -> dict[str, Any]:
        view = tenant.bridge.show(device.id)
        assert {link["state"] for link in view["links"]} == {"agreed"}, view["links"]
        return view

    return wait_for(look, 30)


def served_issuers(tenant: Tenant, path: str) -> list[x509.Certificate]:
    with tenant.bridge.client(tenant.root_pem) as http:
        listed = http.get(path).raise_for_status().json()["crts"]
    return x509.load_pem_x509_certificates("".join(listed).encode())


@pytest.fixture(scope="module")
def device(tenant: Tenant) -> Device:
    """A device that is registered, and nothing else."""
    return tenant.device("first")


@pytest.fixture(scope="module")
def boot(device: Device) -> Ended:
    return device.run(DEVICE_NAME="Pump 7", DEVICE_TYPE="pump")


def test_it_ends_with_the_flag_and_an_accepted_connection(boot: Ended, device: Device) -> None:
    assert boot.status == 0, boot.errors
    assert boot.event("enrolled")["generation"] == 1
    assert boot.event("mqtt")["accepted"] is True
    assert boot.event("done")["exit_code"] == 0
    assert json.loads(device.path("enrolled").read_text())["serial"] == str(device.serial)


def test_phase_1_files_are_private_and_the_flag_is_the_last(boot: Ended, device: Device) -> None:
    found = {path.name: path.stat() for path in device.folder.iterdir() if not path.name.startswith(".")}

    assert set(found) >= FILES
    assert {name for name in found if found[name].st_mode & 0o077} & PRIVATE == set()
    assert max(FILES, key=lambda name: found[name].st_mtime_ns) == "enrolled"


def test_phase_1_openssl_takes_leaf_and_chain_for_a_clients_alone(boot: Ended, tenant: Tenant, device: Device) -> None:
    shown = device.write_chain()

    accepted_as_client(shown, device.path("device.key"), tenant.root_pem)

    with pytest.raises(HandshakeFailed, match="unsuitable certificate purpose"):
        accepted_as_server(shown, device.path("device.key"), tenant.root_pem, device.id)
    assert device.leaf.subject.rfc4514_string() == f"CN={device.id}"


def test_phase_2_the_broker_saw_the_leaf_and_the_webhook_came_round(
    boot: Ended, tenant: Tenant, device: Device
) -> None:
    found = first_connect(tenant, device)

    connect = found["lastConnectSeen"]
    assert (connect["clientId"], connect["subjectCn"]) == (device.id, device.id)
    assert connect["issuerCn"] == device.leaf.issuer.rfc4514_string().removeprefix("CN=")
    assert found["wireguard_ip"] == boot.event("enrolled")["address"]
    target = wait_for(lambda: tenant.eyes.hawkbit.target(device.id))
    assert target["controllerId"] == device.id
    assert target["name"] == "Pump 7"
    assert target["description"] == f"iot-bridge:{found['iot_bridge']}"


def test_phase_3_the_peer_is_published_and_reported_by_the_interface(
    boot: Ended, tenant: Tenant, device: Device
) -> None:
    address = boot.event("enrolled")["address"]
    key = str(PrivateKey.parse(device.path("wg.key").read_text().strip()).public_key)

    wait_for(lambda: tenant.applied().get(f"{address}/32") == key)
    assert tenant.tunnel_file("cdm_peers.json")[device.id] == address
    wanted = tenant.tunnel_file("peers.json")
    assert wanted["revision"] <= tenant.tunnel_file("applied.json")["revision"]
    assert f"Address = {address}/32" in device.path("wg0.conf").read_text()


def test_every_system_agrees_with_the_registry(boot: Ended, tenant: Tenant, device: Device) -> None:
    first_connect(tenant, device)
    view = settled(tenant, device)

    assert view["state"] == "active"
    assert view["proven"] is False  # admitted by its bare id
    assert view["address"] == boot.event("enrolled")["address"]
    assert [(one["serial"], one["state"]) for one in view["issuances"]] == [(str(device.serial), "current")]
    assert {link["system"] for link in view["links"]} == {"thingsboard", "hawkbit", "wireguard"}  # nothing to revoke


def test_another_run_asks_for_nothing(boot: Ended, tenant: Tenant, device: Device) -> None:
    before = device.serial
    again = device.run()

    assert again.status == 0, again.errors
    assert again.event("already_enrolled")["serial"] == str(before) == str(device.serial)
    assert again.event("mqtt")["accepted"] is True
    assert [one["event"] for one in again.events if one["event"] in {"keys", "enrolled"}] == []


def test_without_the_flag_the_same_key_gets_the_same_certificate(boot: Ended, tenant: Tenant, device: Device) -> None:
    before = device.path("device.crt").read_bytes()
    device.path("enrolled").unlink()
    device.path("device.crt").unlink()

    again = device.run()

    assert again.status == 0, again.errors
    assert again.event("enrolled")["generation"] == 1
    assert device.path("device.crt").read_bytes() == before
    assert len(tenant.bridge.show(device.id)["issuances"]) == 1


def test_a_second_key_is_refused_and_changes_nothing(boot: Ended, tenant: Tenant, device: Device) -> None:
    before = settled(tenant, device)

    refused = device.wiped().run(budget=1)

    assert refused.status == 75
    assert refused.event("stopped")["code"] == "identity_exists"
    after = tenant.bridge.show(device.id)
    assert [after[name] for name in ("issuances", "epoch", "address")] == [
        before[name] for name in ("issuances", "epoch", "address")
    ]


def test_a_device_that_nobody_registered_is_not_let_in(tenant: Tenant) -> None:
    stranger = tenant.device("stranger", registered=False)

    refused = stranger.run(budget=1)

    assert refused.status == 75
    assert refused.event("stopped")["code"] == "not_admitted"
    assert stranger.id not in {one["device_id"] for one in tenant.bridge.order("device", "list")}


def test_a_window_lets_a_new_key_in_once_and_cuts_the_old_identity(tenant: Tenant) -> None:
    old = tenant.booted("again")
    address = tenant.bridge.show(old.id)["address"]
    tenant.bridge.order("re-enroll", old.id)

    new = old.wiped()
    ended = new.run()

    assert ended.status == 0, ended.errors
    told = ended.event("enrolled")
    assert (told["generation"], told["address"]) == (2, address)
    assert ended.event("mqtt")["accepted"] is True
    wait_for(lambda: old.serial in tenant.revoked())
    assert new.serial not in tenant.revoked()
    # The old pair still lies on its medium: the broker no longer takes it.
    cut = old.run(budget=1)
    assert cut.status == 75
    assert cut.event("mqtt")["accepted"] is False
    states = {one["serial"]: one["state"] for one in settled(tenant, new)["issuances"]}
    assert states == {str(old.serial): "revoked", str(new.serial): "current"}
    third = Device(old.id, new.folder.with_name("third"), old.url, old.root_sha256).run(budget=1)
    assert third.event("stopped")["code"] == "identity_exists"


def test_decommission_ends_it_everywhere(tenant: Tenant) -> None:
    device = tenant.booted("end")
    first_connect(tenant, device)
    wait_for(lambda: tenant.eyes.hawkbit.target(device.id))
    address = tenant.bridge.show(device.id)["address"]

    ended = tenant.bridge.command("decommission", device.id, "--wait", "--json")

    assert ended.status == 0, ended.errors
    view = json.loads(ended.output)
    assert (view["state"], view["outstanding"]) == ("retired", [])
    assert {one["state"] for one in view["issuances"]} == {"revoked"}
    assert device.serial in tenant.revoked()
    assert tenant.eyes.hawkbit.target(device.id) is None
    assert tenant.eyes.thingsboard.attributes(device.id) is None
    assert device.id not in tenant.tunnel_file("cdm_peers.json")
    assert f"{address}/32" not in tenant.applied()
    # With what it has it is refused at the broker, and asks the bridge why; without the flag, or wiped, by the bridge.
    broker = device.run(budget=1)
    assert (broker.status, broker.event("mqtt")["accepted"]) == (1, False)
    assert broker.event("stopped")["code"] == "retired"
    assert "Not authorized" in broker.event("mqtt")["why"]
    device.path("enrolled").unlink()
    for one in (device, device.wiped()):
        refused = one.run()
        assert (refused.status, refused.event("stopped")["code"]) == (1, "retired")
    assert tenant.eyes.thingsboard.attributes(device.id) is None


def test_an_id_is_one_spelling(tenant: Tenant) -> None:
    known = tenant.booted("Spelled")
    other = Device(known.id.lower(), known.folder.with_name("other"), known.url, known.root_sha256)

    refused = other.run(budget=1)

    assert refused.event("stopped")["code"] == "id_spelling"
    assert tenant.eyes.thingsboard.attributes(known.id.lower()) is None


def test_a_base_url_may_have_a_path_and_the_issuing_ca_may_be_pinned_too(tenant: Tenant) -> None:
    device = tenant.device("prefix")
    device.url += "/api"
    issuing = served_issuers(tenant, "/api/intermediates")[0]

    boot = device.run(ENROLL_ISSUER_FINGERPRINT=issuing.fingerprint(hashes.SHA256()).hex())

    assert boot.status == 0, boot.errors
    assert boot.event("issuer")["subject"] == issuing.subject.rfc4514_string()
    assert boot.event("enrolled")["bridge"] == device.url


def test_a_restart_has_the_same_root_and_knows_its_devices(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Bridge(tmp_path_factory.mktemp("bridge")) as bridge:
        tenant = embedded_tenant(bridge, tmp_path_factory.mktemp)
        tenant.eyes.close()
        device = tenant.booted()
        root, installation = bridge.ready["root_sha256"], bridge.show(device.id)
        assert bridge.stop() == 0
        assert not (bridge.folder / "ready.json").exists()

        bridge.start()

        assert bridge.ready["root_sha256"] == root
        assert bridge.show(device.id)["issuances"] == installation["issuances"]
        # What it stored still holds, the broker included: nothing is asked of the bridge.
        again = device.run(budget=10)
        assert again.status == 0, (again.output, again.errors)
        assert again.event("already_enrolled")["serial"] == str(device.serial)
        assert signed_by_embedded_ca(bridge) == [device.serial]


def test_a_data_folder_is_one_installation_and_one_server(embedded: Tenant) -> None:
    folder = embedded.bridge.folder

    busy = refused_start(folder, {})

    assert busy.status == 2
    assert str(folder) in busy.errors
    with Bridge(folder.with_name(f"{folder.name}-other")) as bridge:
        pass
    other = refused_start(bridge.folder, {"BRIDGE_TENANT": "other"})
    assert other.status == 2
    assert "BRIDGE_TENANT: the registry was made for default, this start is for other" in other.errors


def test_embedded_and_real_are_never_mixed(tmp_path: Path) -> None:
    refused = refused_start(tmp_path, dict.fromkeys(("THINGSBOARD_URL", "HAWKBIT_URL"), "http://127.0.0.1:9"))

    assert refused.status == 2
    assert "STEP_CA_URL is missing" in refused.errors
    assert "HAWKBIT_URL" in refused.errors
    assert "STEP_CA_URL" in refused_start(tmp_path, {"BRIDGE_DATABASE_URL": "postgresql://x/y"}).errors


def test_the_root_a_device_stores_is_the_one_it_was_told(boot: Ended, tenant: Tenant, device: Device) -> None:
    stored = device.path("root.crt").read_text()
    assert stored.strip() == tenant.root_pem.strip()
    assert device.leaf.public_bytes(Encoding.PEM).decode() in device.path("device.crt").read_text()
