"""What strangers say is shown on one short line, and not being able to show anything stops nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from enroll.errors import RefusedError, TryAgainError
from enroll.names import Fingerprint
from tests.unit.enroll.hostility import A_DAY


@pytest.fixture
def waiting(device: Any, problem: Any) -> Any:
    """A device with keys that was not admitted yet."""
    device.bridge.script = [lambda _: problem(403, "not_admitted")]
    with pytest.raises(RefusedError):
        device.run(budget=1.0)
    return device


LONG = '\x1b[31m\u202eevil\n{"event":"enrolled"}\r' + "A" * 200_000


def telling(reply: Any, problem: Any) -> dict[str, Callable[[Any, dict[str, Any]], Any]]:
    return {
        "a problem's text": lambda _b, _r: problem(503, "pool_empty", LONG),
        "another id": lambda b, r: reply(b.answer(r, device_id=LONG)),
        "a broker": lambda b, r: reply(b.answer(r, mqtt={"host": LONG, "port": 1})),
        "a broker's port": lambda b, r: reply(b.answer(r, mqtt={"host": "b", "port": int("9" * 4000)})),
        "a tunnel": lambda b, r: reply(b.answer(r, wg={"endpoint": LONG})),
        "a network": lambda b, r: reply(b.answer(r, wg={"allowed_ips": [LONG]})),
        "an address": lambda b, r: reply(b.answer(r, wg={"address": LONG})),
        "an update server": lambda b, r: reply(b.answer(r, hawkbit={"url": f"https://[{LONG}", "tenant": "x"})),
        "a redirect": lambda _b, _r: reply(b"", 302, {"Location": "A" * 30_000}),
        "a media type": lambda _b, _r: reply(b"", 200, {"Content-Type": "A" * 30_000}),
        "a time": lambda b, r: reply(b.answer(r, server_time=LONG)),
        "a state": lambda b, r: reply(b.answer(r, state=LONG)),
    }


def check_lines(device: Any) -> None:
    for event in device.events:
        for text in (event.sentence, *(str(value) for value in event.fields.values())):
            assert text.isprintable()
            assert len(text) < 1500


@pytest.mark.parametrize("name", telling(None, None))
def test_what_a_stranger_says_is_printed_on_one_short_line(waiting: Any, reply: Any, problem: Any, name: str) -> None:
    make = telling(reply, problem)[name]
    waiting.bridge.enroll = lambda request: make(waiting.bridge, request)
    with pytest.raises(TryAgainError) as caught:
        waiting.run(budget=4.0)
    assert waiting.event("waiting")["why"] == str(caught.value)
    check_lines(waiting)
    assert not re.search(r"A{420}", str(caught.value))


def test_a_subject_is_told_on_one_short_line(device: Any, pki: Any, reply: Any) -> None:
    """The agent shows the names in certificates, also of one that it refuses."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, LONG)])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(pki.now).not_valid_after(pki.now + A_DAY)
    root = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    made = root.sign(key, hashes.SHA256())
    device.bridge.root = lambda: reply({"ca": pki.pem(made)})
    with pytest.raises(TryAgainError):
        device.run(budget=1.0, root_pins=(Fingerprint(pki.digest(made)),))
    assert device.event("root")["subject"].startswith("O= [31m evil")
    check_lines(device)


def test_json_events_hold_one_object_a_line(waiting: Any, problem: Any, tmp_path: Path) -> None:
    waiting.bridge.enroll = lambda _: problem(503, "pool_empty", LONG)
    command = [sys.executable, "-m", "enroll", "run"]
    variables = {
        "BRIDGE_API_URL": waiting.bridge.url,
        "STEP_CA_FINGERPRINT": str(waiting.settings["root_pins"][0]),
        "DEVICE_ID": "dev-1",
        "CERTS_DIR": str(waiting.folder),
        "ENROLL_TUNNEL": "none",
        "ENROLL_BUDGET": "1",
        "ENROLL_RUN_DIR": str(tmp_path),
        "PYTHONIOENCODING": "ascii",
    }
    for arguments in (["--json"], []):
        done = subprocess.run([*command, *arguments], env=variables, capture_output=True, check=False, timeout=60)
        assert done.returncode == 75, done.stderr
        lines = done.stdout.decode("ascii").splitlines()
        assert max(map(len, lines)) < 4000
        assert all("event" in json.loads(line) for line in lines) if arguments else len(lines) <= 4
        assert done.stderr.count(b"\n") == 1
        assert done.stderr.rstrip(b"\n").decode("ascii").isprintable()


def test_a_log_on_a_full_disk_stops_nobody(device: Any, tmp_path: Path) -> None:
    variables = {
        "BRIDGE_API_URL": device.bridge.url,
        "STEP_CA_FINGERPRINT": str(device.settings["root_pins"][0]),
        "DEVICE_ID": "dev-1",
        "CERTS_DIR": str(device.folder),
        "ENROLL_TUNNEL": "none",
        "ENROLL_RUN_DIR": str(tmp_path),
    }
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "enroll", "run"], env=variables, stdout=full, stderr=full, check=False, timeout=60
        )
    assert done.returncode == 0
    assert "enrolled" in device.files()
