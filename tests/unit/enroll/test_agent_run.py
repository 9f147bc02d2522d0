"""A whole run against a real HTTPS server: what is stored, what is asked, what is told."""

from __future__ import annotations

import json
import stat
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from enroll.config import TunnelMode
from enroll.disk.files import PosixDisk, locked
from enroll.errors import (
    BusyFolderError,
    ConfigurationError,
    ForeignAnswerError,
    RefusedError,
    RootMismatchError,
    StoppedError,
    UnreachableError,
)
from enroll.names import BridgeUrl, DeviceId, Fingerprint
from enroll.network.transport import HttpsNetwork

ALL_FILES = {
    "device.key",
    "device.csr",
    "device.crt",
    "ca-chain.crt",
    "root.crt",
    "wg.key",
    "wg0.conf",
    "enrolled",
}


def test_first_boot_writes_every_file_and_tells_every_step(device: Any, pki: Any) -> None:
    device.run()
    assert device.files() == ALL_FILES
    assert device.names() == ["keys", "root", "enrolled", "mqtt", "tunnel"]
    enrolled = device.event("enrolled")
    assert enrolled["issuer_chain"] == [
        "O=Tenant, CN=Tenant Sub-CA",
        "O=Tenant, CN=Provider ICA",
        "O=Tenant, CN=Provider Root",
    ]
    leaf = x509.load_pem_x509_certificate(device.read("device.crt"))
    assert enrolled["serial"] == str(leaf.serial_number)
    assert enrolled["address"] == "10.8.0.7"
    assert device.event("root")["sha256"] == pki.sha256
    assert x509.load_pem_x509_certificates(device.read("ca-chain.crt")) == pki.chain


def test_secrets_are_for_the_owner_alone(device: Any) -> None:
    device.run()
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in device.folder.iterdir()}
    assert {name for name, mode in modes.items() if mode == 0o600} == {"device.key", "wg.key", "wg0.conf"}
    assert set(modes.values()) == {0o600, 0o644}
    assert stat.S_IMODE(device.folder.stat().st_mode) == 0o700


def test_no_event_and_no_flag_holds_a_secret(device: Any) -> None:
    device.run(voucher="PROV-AAAA-BBBB")
    told = json.dumps([event.to_json() for event in device.events]) + device.read("enrolled").decode()
    told += "".join(event.sentence for event in device.events)
    for secret in ("PROV-AAAA-BBBB", device.read("wg.key").decode().strip(), "PRIVATE KEY"):
        assert secret not in told
    assert device.bridge.posts[0]["voucher"] == "PROV-AAAA-BBBB"


def test_the_config_text_of_the_answer_is_not_used(device: Any) -> None:
    device.run()
    conf = device.read("wg0.conf").decode()
    assert "PostUp" not in conf
    assert f"PrivateKey = {device.read('wg.key').decode().strip()}\n" in conf
    assert "Address = 10.8.0.7/32\n" in conf
    assert "AllowedIPs = 10.8.0.0/24\n" in conf


def test_a_second_run_asks_nobody(device: Any) -> None:
    device.run()
    before = len(device.bridge.requests)
    device.run()
    assert len(device.bridge.requests) == before
    assert device.names()[-3:] == ["already_enrolled", "mqtt", "tunnel"]


def test_without_the_flag_the_same_key_is_posted_again(device: Any) -> None:
    device.run()
    kept = {name: device.read(name) for name in ("device.key", "wg.key", "device.csr")}
    (device.folder / "enrolled").unlink()
    device.run()
    first, second = device.bridge.posts
    assert first == second
    assert kept == {name: device.read(name) for name in kept}
    assert "enrolled" in device.files()


@pytest.mark.parametrize("name", ["device.crt", "ca-chain.crt", "root.crt", "wg0.conf"])
@pytest.mark.parametrize("damage", [b"", b"\0" * 512, b"somebody else's", None])
def test_a_damaged_file_under_the_flag_is_fetched_again_with_the_same_key(
    device: Any, name: str, damage: bytes | None
) -> None:
    device.run()
    before = {file: device.read(file) for file in ALL_FILES}
    if damage is None:
        (device.folder / name).unlink()
    else:
        (device.folder / name).write_bytes(damage)
    device.run()
    assert len({post["csr_pem"] for post in device.bridge.posts}) == 1
    assert len(device.bridge.posts) == 2
    assert device.files() >= ALL_FILES
    assert {file: device.read(file) for file in ALL_FILES - {"enrolled"}} == {
        file: content for file, content in before.items() if file != "enrolled"
    }
    kept = [path for path in device.files() if ".bad-" in path]
    if damage is None:
        assert kept == []
    else:
        assert [device.read(path) for path in kept] == [damage]
        assert device.event("set_aside")["file"] == name


@pytest.mark.parametrize("damage", [b"", b"\0" * 241, b"-----BEGIN PRIVATE KEY-----\nMIG"])
def test_a_torn_key_is_set_aside_and_made_anew(device: Any, damage: bytes | None) -> None:
    device.folder.mkdir()
    (device.folder / "device.key").write_bytes(damage)
    device.run()
    kept = device.event("set_aside")["kept_as"]
    assert kept.startswith("device.key.bad-")
    assert device.read(kept) == damage
    assert device.files() >= ALL_FILES


def test_the_root_on_disk_is_used_only_while_it_is_the_pinned_one(device: Any, pki: Any) -> None:
    device.run()
    (device.folder / "enrolled").unlink()
    (device.folder / "root.crt").write_text(pki.pem(pki.new_root("Stranger").certificate))
    device.run()
    assert device.event("root")["source"] == "bridge"
    (device.folder / "enrolled").unlink()
    device.run()
    assert device.event("root")["source"] == "disk"


def test_an_expired_certificate_is_renewed_and_opens_no_door_until_then(device: Any, problem: Any) -> None:
    device.run()
    device.clock.belief += timedelta(days=31)
    device.bridge.enroll = lambda _: problem(409, "identity_exists", "the operator runs iot-bridge re-enroll")
    with pytest.raises(RefusedError, match="iot-bridge re-enroll"):
        device.run(budget=1.0)
    first, second = device.bridge.posts
    assert "proof" not in first
    assert device.bridge.claims(second["proof"])["act"] == "renew"
    assert device.files() >= ALL_FILES


def test_another_device_id_is_a_configuration_error(device: Any) -> None:
    device.run()
    with pytest.raises(ConfigurationError, match=r"DEVICE_ID.*dev-1"):
        device.run(device_id=DeviceId("dev-2"))
    assert len(device.bridge.posts) == 1


def test_a_busy_folder_is_left_alone(device: Any) -> None:
    with locked(PosixDisk(), device.folder), pytest.raises(BusyFolderError):
        device.run()
    assert device.files() == set()
    assert device.bridge.requests == []


@pytest.mark.parametrize(("code", "status"), [("retired", 403), ("bad_csr", 422)])
def test_a_final_word_ends_the_run_at_once(device: Any, problem: Any, code: str, status: int) -> None:
    device.bridge.enroll = lambda _: problem(status, code, "ask the operator to reinstate it")
    with pytest.raises(StoppedError, match="ask the operator to reinstate it") as stopped:
        device.run()
    assert stopped.value.code == code
    assert stopped.value.exit_code == 1
    assert len(device.bridge.posts) == 1
    assert device.files() == {"device.key", "device.csr", "wg.key"}


@pytest.mark.parametrize(("status", "code"), [(401, "voucher_required"), (409, "identity_exists"), (503, "pool_empty")])
def test_every_other_refusal_is_tried_again_within_the_budget(
    device: Any, problem: Any, status: int, code: str
) -> None:
    device.bridge.enroll = lambda _: problem(status, code)
    with pytest.raises(RefusedError) as refused:
        device.run(budget=30.0)
    assert refused.value.code == code
    assert refused.value.exit_code == 75
    assert device.clock.slept == [2.0, 4.0, 8.0]  # full jitter at its top; the next wait is past the budget
    assert len({post["csr_pem"] for post in device.bridge.posts}) == 1


def test_it_waits_as_long_as_it_is_asked_to(device: Any, problem: Any) -> None:
    device.bridge.script = [lambda _: problem(503, "in_progress", Retry_After="7")]
    device.run()
    assert device.clock.slept == [7.0 + 1.0]
    assert device.event("waiting")["code"] == "in_progress"


def test_a_wait_past_the_budget_ends_the_run_without_waiting(device: Any, problem: Any) -> None:
    device.bridge.enroll = lambda _: problem(429, "too_many", Retry_After="3000")
    with pytest.raises(RefusedError) as refused:
        device.run()
    assert refused.value.retry_after == 3000
    assert device.clock.slept == []


def test_a_lost_answer_is_asked_for_again(device: Any, reply: Any) -> None:
    device.bridge.script = [lambda request: reply(json.dumps(device.bridge.answer(request)).encode()[:-40], 201)]
    device.run()
    assert len(device.bridge.posts) == 2
    assert device.event("waiting")["code"] == "foreign_answer"


def test_a_bridge_that_is_down_is_waited_for(device: Any) -> None:
    device.bridge.close()
    with pytest.raises(UnreachableError):
        device.run(budget=5.0)
    assert device.files() == {"device.key", "device.csr", "wg.key"}


def test_the_first_request_of_a_fleet_is_spread(device: Any) -> None:
    device.run(start_spread=120.0)
    assert device.clock.slept == [120.0]
    device.run(start_spread=120.0)
    assert device.clock.slept == [120.0]  # an enrolled device has nothing to spread


def test_no_lease_is_no_tunnel(device: Any, reply: Any) -> None:
    device.bridge.enroll = lambda request: reply(device.bridge.answer(request) | {"wg": None})
    device.run()
    assert "wg0.conf" not in device.files()
    assert device.event("tunnel")["raised"] is False
    assert device.event("enrolled")["address"] is None
    device.run()
    assert len(device.bridge.posts) == 1


def test_a_path_prefix_is_kept(device: Any) -> None:
    device.run(bridge=BridgeUrl.parse(f"{device.bridge.url}/api/"))
    assert {path for method, path, _ in device.bridge.requests if method == "POST"} == {"/api/devices/dev-1/enroll"}


def test_the_second_pin_is_the_anchor(device: Any, pki: Any) -> None:
    device.run(issuer_pins=(Fingerprint(pki.digest(pki.sub.certificate)),))
    assert device.names()[:4] == ["keys", "root", "issuer", "enrolled"]
    device.run(issuer_pins=(Fingerprint(pki.digest(pki.sub.certificate)),))
    assert len(device.bridge.posts) == 1


def test_a_switched_off_tunnel_says_so(device: Any) -> None:
    device.run(tunnel=TunnelMode.NONE)
    assert "ENROLL_TUNNEL" in device.event("tunnel")["why"]


def test_a_root_that_is_unknown_there_is_told_with_both_values(device: Any, problem: Any, pki: Any) -> None:
    device.bridge.root = lambda: problem(404, "not_found", "this tenant's root has SHA-256 abcd")
    with pytest.raises(RootMismatchError, match=rf"SHA-256 abcd, pinned is {pki.sha256}"):
        device.run(budget=2.0)
    assert device.clock.slept == []  # this run ends at once; the next one tries again
    device.bridge.root = lambda: problem(404, "no_such_code")
    with pytest.raises(ForeignAnswerError):
        device.run(budget=2.0)


@pytest.mark.parametrize("proxy", ["nonsense://proxy.example", "http://127.0.0.1:1"])
def test_a_proxy_that_does_not_work_is_told_and_tried_again(device: Any, proxy: str) -> None:
    device.network = HttpsNetwork({"HTTPS_PROXY": proxy})
    with pytest.raises(UnreachableError):
        device.run(budget=1.0)
    assert device.bridge.requests == []
