"""Renewal, activation, promotion, refresh, takeover and reset, against a bridge that remembers what it answered."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll.disk import reset, takeover
from enroll.disk.files import PosixDisk
from enroll.errors import AnswerRejectedError, RefusedError, StoppedError, TryAgainError, UnreachableError
from enroll.keys.file import FileKey

DUE = timedelta(days=25)
"""Past ``renew_after`` (day 20) and its spread (2.5 days more), before the end (day 30)."""


def leaf_of(device: Any) -> x509.Certificate:
    return x509.load_pem_x509_certificate(device.read("device.crt"))


def spki(key: Any) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def check_pair(device: Any) -> None:
    """Key and certificate fit, the flag names the certificate, and the bridge calls it the current one."""
    key = serialization.load_pem_private_key(device.read("device.key"), None)
    leaf = leaf_of(device)
    digest = device.bridge.pki.digest(leaf)
    assert spki(key.public_key()) == spki(leaf.public_key())
    record = json.loads(device.read("enrolled"))
    assert (record["leaf_sha256"], record["state"]) == (digest, "current")
    assert device.bridge.current == digest
    csr = x509.load_pem_x509_csr(device.read("device.csr"))
    assert spki(csr.public_key()) == spki(key.public_key())
    assert [path.name for path in (device.folder / "next").iterdir()] == []


def test_a_due_certificate_is_renewed_with_a_new_key(device: Any) -> None:
    device.run()
    first, wireguard = leaf_of(device), device.read("wg.key")
    device.clock.belief += DUE
    device.run()
    assert leaf_of(device) != first
    check_pair(device)
    assert device.read("wg.key") == wireguard
    renew, activate = device.bridge.posts[1:]
    assert device.bridge.claims(renew["proof"])["act"] == "renew"
    assert device.bridge.claims(renew["proof"])["leaf"] == device.bridge.pki.digest(first)
    assert "wg_public_key" not in renew
    assert "voucher" not in renew
    assert device.bridge.claims(activate["proof"])["act"] == "activate"
    assert device.event("renewed")["replaces"] == device.bridge.pki.digest(first)


def test_a_certificate_that_is_not_due_is_left_alone(device: Any) -> None:
    device.run()
    device.clock.belief += timedelta(days=19)
    before = {name: device.read(name) for name in ("device.key", "device.crt", "enrolled")}
    device.run()
    assert len(device.bridge.posts) == 1
    assert before == {name: device.read(name) for name in before}


def test_an_operator_renews_now(device: Any) -> None:
    device.run()
    first = leaf_of(device)
    device.run(renew_now=True)
    assert leaf_of(device) != first
    check_pair(device)


def test_a_lost_answer_to_the_renewal_is_asked_for_with_the_same_key(device: Any, reply: Any) -> None:
    device.run()
    answer = device.bridge.enroll

    def lost(request: dict[str, Any]) -> Any:
        answer(request)
        return reply(b"", 502)

    device.bridge.enroll = lost
    with pytest.raises(TryAgainError, match="502"):
        device.run(renew_now=True)
    check_unchanged = leaf_of(device)
    device.bridge.enroll = answer
    device.run(renew_now=True)
    asked = [post["csr_pem"] for post in device.bridge.posts if "csr_pem" in post and "proof" in post]
    assert len(asked) == 2
    assert asked[0] == asked[1]
    assert leaf_of(device) != check_unchanged
    check_pair(device)


def test_a_lost_answer_to_the_activation_is_repeated_before_connecting(device: Any, reply: Any) -> None:
    device.run()
    answer = device.bridge.activate

    def lost(request: dict[str, Any]) -> Any:
        answer(request)
        return reply(b"", 502)

    device.bridge.activate = lost
    with pytest.raises(TryAgainError, match="502"):
        device.run(renew_now=True)
    assert device.bridge.current != device.bridge.pki.digest(leaf_of(device))
    device.bridge.activate = answer
    device.run()
    check_pair(device)


@pytest.mark.parametrize("code", ["key_in_use", "expired"])
def test_a_next_key_that_can_never_be_current_is_given_up(device: Any, problem: Any, code: str) -> None:
    device.run()
    answer = device.bridge.enroll
    device.bridge.enroll = lambda _: problem(409, code)
    with pytest.raises(RefusedError):
        device.run(renew_now=True)
    assert device.event("dropped")["code"] == code
    device.bridge.enroll = answer
    device.run(renew_now=True)
    asked = [post["csr_pem"] for post in device.bridge.posts if "csr_pem" in post and "proof" in post]
    assert asked[0] != asked[1]
    check_pair(device)


def test_a_superseded_pair_is_given_up_and_the_next_run_begins_anew(device: Any, problem: Any) -> None:
    device.run()
    first, answer = leaf_of(device), device.bridge.activate
    device.bridge.activate = lambda _: problem(409, "superseded")
    with pytest.raises(RefusedError, match="superseded"):
        device.run(renew_now=True)
    assert leaf_of(device) == first
    device.bridge.activate = answer
    device.run(renew_now=True)
    check_pair(device)


@pytest.mark.parametrize("code", ["identity_exists", "in_progress"])
def test_any_other_refusal_keeps_the_next_key(device: Any, problem: Any, code: str) -> None:
    device.run()
    device.bridge.enroll = lambda _: problem(409, code)
    for _ in range(2):
        with pytest.raises(RefusedError, match=code):
            device.run(renew_now=True)
    asked = {post["csr_pem"] for post in device.bridge.posts if "proof" in post}
    assert len(asked) == 1


def test_a_retired_device_stops_for_good_at_its_renewal(device: Any, problem: Any) -> None:
    device.run()
    device.bridge.enroll = lambda _: problem(403, "retired", "an operator may reinstate it")
    with pytest.raises(StoppedError, match="an operator may reinstate it"):
        device.run(renew_now=True)


def test_a_renewal_that_fails_holds_no_connection_up(device: Any, start_bridge: Any) -> None:
    device.run()
    device.bridge.close()
    with pytest.raises(UnreachableError):
        device.run(renew_now=True)
    assert device.names().count("mqtt") == 2
    assert device.names().count("tunnel") == 2
    assert device.event("postponed")["what"] == "renew"


def test_an_answer_that_does_not_hold_leaves_the_identity_in_use(device: Any, pki: Any, reply: Any) -> None:
    device.run()
    before = {name: device.read(name) for name in ("device.key", "device.crt", "enrolled", "wg0.conf")}
    stranger = FileKey.generate().private.public_key()
    device.bridge.enroll = lambda r: reply(device.bridge.answer(r, leaf=pki.sub.leaf(stranger, "dev-1")))
    with pytest.raises(AnswerRejectedError, match="another key"):
        device.run(renew_now=True)
    assert before == {name: device.read(name) for name in before}
    assert {path.name for path in (device.folder / "next").iterdir()} == {"device.key", "device.csr"}


def test_an_expired_certificate_still_proves_and_is_renewed(device: Any) -> None:
    device.run()
    device.clock.belief += timedelta(days=31)
    fresh = {"begin": device.clock.belief - timedelta(minutes=5), "end": device.clock.belief + timedelta(days=30)}
    answer = device.bridge._full_answer
    device.bridge.leaf_for = lambda key, name: device.bridge.leaves.setdefault(
        spki(key).hex(), device.bridge.pki.sub.leaf(key, name, **fresh)
    )
    later = device.clock.belief.isoformat()
    renew = (device.clock.belief + timedelta(days=20)).isoformat()
    device.bridge._full_answer = lambda *a, **k: answer(*a, **k) | {"server_time": later, "renew_after": renew}
    device.run()
    check_pair(device)


def test_the_old_pair_is_lost_and_the_new_one_is_activated(device: Any, problem: Any) -> None:
    """Flash may lose the pair in use while the next one waits for its confirmation: that one is the way back."""
    device.run()
    answer = device.bridge.activate
    device.bridge.activate = lambda _: problem(503, "store_unavailable")
    with pytest.raises(RefusedError):
        device.run(renew_now=True)
    for name in ("device.key", "device.crt"):
        (device.folder / name).write_bytes(b"\0" * 100)
    device.bridge.activate = answer
    device.run()
    check_pair(device)


@pytest.mark.parametrize("name", ["device.key", "device.crt", "device.csr", "ca-chain.crt", "enrolled"])
@pytest.mark.parametrize("damage", [b"", b"\0" * 64, b"-----BEGIN"])
def test_a_damaged_next_file_is_set_aside_and_the_device_recovers(
    device: Any, problem: Any, name: str, damage: bytes
) -> None:
    device.run()
    answer = device.bridge.activate
    device.bridge.activate = lambda _: problem(503, "store_unavailable")
    with pytest.raises(RefusedError):
        device.run(renew_now=True)
    (device.folder / "next" / name).write_bytes(damage)
    device.bridge.activate = answer
    device.run(renew_now=True)
    kept = [path for path in (device.folder / "next").iterdir() if ".bad-" in path.name]
    assert damage in [path.read_bytes() for path in kept] or name == "device.csr"
    for path in kept:
        path.unlink()
    check_pair(device)


# -- older clients -----------------------------------------------------------------------------------------
@pytest.fixture
def older(device: Any, pki: Any) -> Any:
    """A device with the folder of a complete-device-management client, known to the bridge."""
    device.run()
    folder = device.folder
    (folder / "device.key").rename(folder / "device-key.pem")
    (folder / "device.crt").rename(folder / "device.pem")
    (folder / "wg.key").rename(folder / "wg-private.key")
    chain = (folder / "ca-chain.crt").read_bytes() + (folder / "root.crt").read_bytes()
    (folder / "ca-chain.pem").write_bytes(chain)
    (folder / ".enrolled").write_text("10.8.0.7\n")
    for name in ("ca-chain.crt", "root.crt", "enrolled", "device.csr"):
        (folder / name).unlink()
    device.events.clear()
    return device


def test_an_older_clients_folder_is_taken_over_without_a_second_enrollment(older: Any) -> None:
    key, leaf = older.read("device-key.pem"), older.read("device.pem")
    older.run()
    assert older.event("taken_over")["certificate"] is True
    assert older.read("device.crt") == leaf
    assert older.read("device.key") == key
    assert len(older.bridge.leaves) == 1
    assert json.loads(older.read("enrolled"))["complete"] is True
    assert older.read("device-key.pem") == key
    older.run()
    assert len(older.bridge.posts) == 2  # the first enrollment, and one question for the servers


def test_an_older_certificate_is_good_without_the_bridge(older: Any) -> None:
    older.bridge.close()
    with pytest.raises(UnreachableError):
        older.run()
    assert json.loads(older.read("enrolled"))["complete"] is False
    assert "mqtt" in older.names()


def test_of_an_older_certificate_that_does_not_hold_the_key_is_taken_over(older: Any, pki: Any) -> None:
    key = serialization.load_pem_private_key(older.read("device-key.pem"), None)
    wide = pki.sub.leaf(key.public_key(), "dev-1", usages=[pki.client_auth, pki.server_auth])
    (older.folder / "device.pem").write_text(pki.pem(wide))
    older.run()
    assert older.event("taken_over")["certificate"] is False
    assert len(older.bridge.leaves) == 1
    check = x509.load_pem_x509_certificate(older.read("device.crt"))
    assert spki(check.public_key()) == spki(key.public_key())


def test_an_older_key_that_is_torn_is_not_taken_over(older: Any) -> None:
    (older.folder / "device-key.pem").write_bytes(b"\0" * 100)
    older.run()
    assert "taken_over" not in older.names()
    assert older.read("device-key.pem") == b"\0" * 100


# -- reset -------------------------------------------------------------------------------------------------
def test_reset_forgets_everything_and_the_next_run_has_a_new_key(device: Any) -> None:
    device.run()
    first = device.read("device.key")
    device.run(renew_now=True)
    (device.folder / ".device.key.new").write_bytes(first)
    removed = reset.forget(device.folder, PosixDisk(), "wg0")
    assert removed[:2] == ["enrolled", "device.key"]
    assert {path.name for path in device.folder.iterdir()} == {"next"}
    assert list((device.folder / "next").iterdir()) == []
    device.run()
    assert device.read("device.key") != first
    check_pair(device)


def test_reset_also_forgets_what_would_be_taken_over_again(older: Any) -> None:
    reset.forget(older.folder, PosixDisk(), "wg0")
    assert takeover.OLDER_KEY not in older.files()
    older.run()
    assert "taken_over" not in older.names()


def test_a_disk_that_refuses_to_set_a_file_aside_holds_no_identity_up(device: Any) -> None:
    class ReadOnly(PosixDisk):
        def rename(self, source: Any, target: Any) -> None:
            raise OSError(30, "Read-only file system")

    device.run()
    (device.folder / "wg0.conf").write_bytes(b"torn")
    device.events.clear()
    device.disk = ReadOnly()
    device.run()
    assert device.event("postponed")["code"] == "storage"
    assert "mqtt" in device.names()
    assert device.read("wg0.conf") == b"torn"
