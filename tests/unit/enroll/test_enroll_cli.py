"""The command line: exit codes, JSON Lines, status; once as the separate process it will be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from enroll import errors
from enroll.cli import main
from enroll.config import FLAGS, VARIABLES
from enroll.errors import EnrollError, TryAgainError


@pytest.fixture
def environment(device: Any, pki: Any) -> dict[str, str]:
    return {
        "BRIDGE_API_URL": device.bridge.url,
        "DEVICE_ID": "dev-1",
        "CERTS_DIR": str(device.folder),
        "STEP_CA_FINGERPRINT": pki.sha256,
        "ENROLL_BUDGET": "2",
        "TENANT_ID": "ignored",
        "STEP_CA_URL": "ignored",
    }


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_first_boot_as_its_own_process(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "enroll", "run", "--json", "--device-type", "sensor"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr == ""
    assert ended.returncode == 0
    events = [event["event"] for event in lines(ended.stdout)]
    assert events == ["keys", "root", "enrolled", "mqtt", "tunnel", "done"]


def test_for_people_there_is_a_line_a_step(environment: dict[str, str], capsys: Any) -> None:
    assert main(["run"], environment) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 6
    assert "enrolled as dev-1 (generation 1) by O=Tenant, CN=Tenant Sub-CA <- " in said[2]


def test_labels_and_voucher_reach_the_bridge(
    environment: dict[str, str], device: Any, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "voucher").write_text("PROV-AAAA-BBBB\n")
    environment |= {"DEVICE_NAME": "Pump 7", "ENROLL_VOUCHER_FILE": str(tmp_path / "voucher")}
    assert main(["run", "--device-type", "sensor", "--json"], environment) == 0
    (post,) = device.bridge.posts
    assert (post["device_name"], post["device_type"], post["voucher"]) == ("Pump 7", "sensor", "PROV-AAAA-BBBB")
    assert "PROV-AAAA" not in capsys.readouterr().out


def test_a_final_word_is_exit_1(environment: dict[str, str], device: Any, problem: Any, capsys: Any) -> None:
    device.bridge.enroll = lambda _: problem(403, "retired", "ask for reinstate")
    assert main(["run", "--json"], environment) == 1
    out, err = capsys.readouterr()
    assert lines(out)[-1]["event"] == "stopped"
    assert lines(out)[-1]["code"] == "retired"
    assert lines(out)[-1]["exit_code"] == 1
    assert "ask for reinstate" in err


def test_a_wrong_fingerprint_is_exit_75_with_both_values(environment: dict[str, str], pki: Any, capsys: Any) -> None:
    assert main(["run", "--fingerprint", "AB:" * 31 + "AB"], environment) == 75
    err = capsys.readouterr().err
    assert "ab" * 32 in err
    assert pki.sha256 in err


def test_a_missing_variable_is_exit_2_and_named(environment: dict[str, str], capsys: Any) -> None:
    del environment["DEVICE_ID"]
    assert main(["run"], environment) == 2
    assert "DEVICE_ID" in capsys.readouterr().err


def test_an_unknown_flag_is_exit_2(environment: dict[str, str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--voucher", "PROV-AAAA-BBBB"], environment)
    assert ended.value.code == 2


def test_status_before_and_after(environment: dict[str, str], device: Any, pki: Any, capsys: Any) -> None:
    assert main(["status", "--json"], environment) == 1
    before = json.loads(capsys.readouterr().out)
    assert before["enrolled"] is False
    assert not device.folder.exists()  # asking changes nothing
    device.bridge.mqtt = None
    assert main(["run"], environment) == 0
    capsys.readouterr()
    assert main(["status", "--json"], {"CERTS_DIR": str(device.folder)}) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["enrolled"] is True
    assert (status["device_id"], status["generation"], status["address"]) == ("dev-1", 1, "10.8.0.7")
    assert status["root_sha256"] == pki.sha256
    assert status["hawkbit"] == {"url": "https://hawkbit.example", "tenant": "DEFAULT"}
    assert main(["status", "--certs-dir", str(device.folder)], {}) == 0
    text = capsys.readouterr().out
    assert "dev-1: enrolled, generation 1" in text
    for secret in (device.read("wg.key").decode().strip(), "PRIVATE"):
        assert secret not in text + json.dumps(status)


@pytest.mark.parametrize(
    "name", ["device.crt", "ca-chain.crt", "root.crt", "wg0.conf", "device.key", "wg.key", "enrolled"]
)
@pytest.mark.parametrize("damage", [b"", b"\0" * 64, b"{}", None])
def test_status_sees_every_damage(
    environment: dict[str, str], device: Any, capsys: Any, name: str, damage: bytes | None
) -> None:
    assert main(["run"], environment) == 0
    if damage is None:
        (device.folder / name).unlink()
    else:
        (device.folder / name).write_bytes(damage)
    capsys.readouterr()
    assert main(["status", "--json"], environment) == 1
    assert json.loads(capsys.readouterr().out)["why"]


def test_a_wrong_configuration_is_told_before_anything_slow_is_imported() -> None:
    code = (
        "import sys; from enroll.cli import main; status = main(['run'], {}); "
        "slow = {'cryptography', 'httpx', 'paho', 'asyncio'} & set(sys.modules); print(status, sorted(slow))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == "2 []\n"


def test_the_help_names_every_variable_and_flag(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in VARIABLES)
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = capsys.readouterr().out
    assert all(flag in text for flag in FLAGS)
    assert set(FLAGS.values()) <= set(VARIABLES)


def test_every_error_has_its_exit_code_and_stands_in_the_tree() -> None:
    def below(kind: type[EnrollError]) -> set[type[EnrollError]]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    own = {kind for kind in below(EnrollError) if kind.__module__ == "enroll.errors"}
    assert {kind.__name__ for kind in own if f"{kind.__name__} " not in (errors.__doc__ or "")} <= {"EnrollError"}
    assert {kind.exit_code for kind in own} == {1, 2, 75}
    assert all(kind.exit_code == 75 for kind in below(TryAgainError))


def test_system_trust_is_an_explicit_choice(
    environment: dict[str, str], pki: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's authorities vouch for the bridge; the root is still compared with its pin."""
    assert main(["run", "--tls-trust", "system"], environment) == 75
    store = tmp_path / "system.pem"
    store.write_text(pki.pem(pki.root.certificate))
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    assert main(["run", "--tls-trust", "system", "--fingerprint", "ab" * 32], environment) == 75
    assert main(["run", "--tls-trust", "system"], environment) == 0


def test_reset_says_what_it_removed_and_what_comes_next(environment: dict[str, str], device: Any, capsys: Any) -> None:
    assert main(["run"], environment) == 0
    key = device.read("device.key")
    capsys.readouterr()
    assert main(["reset"], environment) == 0
    said = capsys.readouterr().out
    assert "removed enrolled, device.key" in said
    assert "iot-bridge re-enroll ID" in said
    assert main(["status"], environment) == 1
    capsys.readouterr()
    assert main(["reset", "--json"], environment) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == []
    assert main(["run"], environment) == 0
    assert device.read("device.key") != key


def test_a_mistake_of_the_agent_itself_is_tried_again(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Exit 1 would stop the device for good, and nobody can go there."""

    def mistaken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("by nothing\nat all")

    monkeypatch.setattr("enroll.running.run", mistaken)
    assert main(["run", "--json"], environment) == 75
    told = capsys.readouterr()
    assert json.loads(told.out)["code"] == "internal"
    assert "ZeroDivisionError: by nothing at all; please report it" in told.err


def test_the_inventory_is_shown_as_it_is_sent(capsys: Any) -> None:
    assert main(["inventory"], {}) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["hardware"]["cpu_cores"] >= 1
    assert shown["network"]["hostname"]


def test_renew_renews_now(environment: dict[str, str], device: Any, capsys: Any) -> None:
    assert main(["run"], environment) == 0
    leaf = device.read("device.crt")
    capsys.readouterr()
    assert main(["renew", "--json"], environment) == 0
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert events == ["already_enrolled", "next", "next", "renewed", "mqtt", "tunnel", "done"]
    assert device.read("device.crt") != leaf
