"""What a process does before it holds a key: no core dumps; OpenSSL configured, once, by starting again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from enroll.config import Settings, load
from enroll.errors import ConfigurationError
from enroll.keys import openssl_conf, prepare_process, process
from enroll.keys.file import FileKey

PROJECT = Path(__file__).parents[3]
NEEDED = {"BRIDGE_API_URL": "https://bridge.example", "DEVICE_ID": "dev-1", "STEP_CA_FINGERPRINT": "ab" * 32}
SCRIPT = """
import ctypes, json, os, resource, sys
from enroll.config import load
from enroll.keys import prepare_process
early = sorted(name for name in ("ssl", "_ssl", "hashlib", "cryptography", "subprocess") if name in sys.modules)
prepare_process(load(os.environ), os.environ, sys.orig_argv)
conf = os.environ.get("OPENSSL_CONF")
print(json.dumps({
    "early": early,
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
    "conf": open(conf).read() if conf else None,
    "starts": os.environ.get("IOT_ENROLL_RESTARTED"),
    "arguments": sys.argv[1:],
    "tcti": os.environ.get("TPM2OPENSSL_TCTI"),
    "tss2": os.environ.get("TSS2_LOG"),
    "options": sys.flags.dont_write_bytecode,
}))
"""


def settings(**variables: str) -> Settings:
    return load(NEEDED | variables)


def started(folder: Path, *, script: str = SCRIPT, **variables: str) -> subprocess.CompletedProcess[str]:
    file = folder / "script.py"
    file.write_text(script)
    known = {name: value for name, value in os.environ.items() if not name.startswith(("OPENSSL_", "TPM2", "TSS2"))}
    environment = known | NEEDED | {"PYTHONPATH": str(PROJECT)} | variables
    command = [sys.executable, "-B", str(file), "an argument", "--and=one more"]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def told(folder: Path, **variables: str) -> dict[str, Any]:

    done = started(folder, **variables)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def openssl_that(folder: Path, shell: str) -> dict[str, str]:
    """A PATH on which `openssl` is this shell script."""
    folder.mkdir()
    script = folder / "openssl"
    script.write_text(f"#!/bin/sh\n{shell}\n")
    script.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_a_key_in_a_file_needs_no_second_start(tmp_path: Path) -> None:
    found = told(tmp_path)
    assert found["early"] == []
    assert found["starts"] is None
    assert found["conf"] is None
    assert found["core"] == [0, 0]
    assert found["dumpable"] == 0


@pytest.mark.parametrize(("version", "preferred"), [("1.1.1", True), ("1.2.0", False), ("1.3.0", False), ("", True)])
def test_a_key_in_a_tpm_starts_the_interpreter_again_once(tmp_path: Path, version: str, preferred: bool) -> None:
    lines = (
        f"Providers:\\n  default\\n    version: 3.0.1\\n  tpm2\\n    name: TPM 2.0 Provider\\n    version: {version}\\n"
    )
    path = openssl_that(tmp_path / "bin", f"printf '{lines}'" if version else "exit 1")
    found = told(tmp_path, ENROLL_KEY="tpm", TPM2OPENSSL_TCTI="tabrmd", **path)
    assert found["starts"] == "1"
    assert found["arguments"] == ["an argument", "--and=one more"]
    assert found["options"] == 1
    assert found["conf"] == openssl_conf.for_tpm(tuple(map(int, version.split("."))) if version else None)
    assert ("default_properties = ?tpm2.signature=yes" in found["conf"]) is preferred
    assert "tpm2 = tpm2_section" in found["conf"]
    assert found["tss2"] == "all+none"
    assert found["tcti"] == "tabrmd"
    assert found["core"] == [0, 0]
    assert found["dumpable"] == 0


@pytest.mark.parametrize("name", ["device.key", "device-key.pem"])
def test_a_key_from_before_the_tpm_is_served_first(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FileKey.generate().content())
    path = openssl_that(tmp_path / "bin", "printf 'Providers:\\n  tpm2\\n    version: 1.1.1\\n'")
    found = told(tmp_path, ENROLL_KEY="tpm", TPM2OPENSSL_TCTI="tabrmd", CERTS_DIR=str(tmp_path), **path)
    assert "tpm2 = tpm2_section" in found["conf"]
    assert "default_properties" not in found["conf"]


def test_an_openssl_conf_that_is_set_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "own.cnf").write_text("# mine\n")
    found = told(tmp_path, ENROLL_KEY="tpm", OPENSSL_CONF=str(tmp_path / "own.cnf"))
    assert found["conf"] == "# mine\n"
    assert found["starts"] is None


def test_the_marker_ends_the_loop(tmp_path: Path) -> None:
    found = told(tmp_path, ENROLL_KEY="tpm", IOT_ENROLL_RESTARTED="1")
    assert found["conf"] is None


def token(folder: Path) -> dict[str, str]:
    return {
        "ENROLL_KEY": "pkcs11",
        "ENROLL_PKCS11_MODULE": "/usr/lib/token.so",
        "ENROLL_PKCS11_TOKEN": "dev",
        "ENROLL_PKCS11_PIN_FILE": "/etc/pin",
        "OPENSSL_MODULES": str(folder),
    }


def test_a_token_without_openssls_provider_needs_no_second_start(tmp_path: Path) -> None:
    assert told(tmp_path, **token(tmp_path))["starts"] is None


def test_a_token_with_openssls_provider_is_configured_without_its_pin(tmp_path: Path) -> None:
    (tmp_path / "pkcs11.so").touch()
    conf = told(tmp_path, **token(tmp_path))["conf"]
    assert "pkcs11-module-path = /usr/lib/token.so" in conf
    assert "pkcs11-module-token-pin = file:/etc/pin" in conf


def test_the_provider_is_looked_for_where_distributions_put_it(tmp_path: Path) -> None:
    assert not openssl_conf.has_pkcs11_provider({}, (tmp_path,))
    for place in ("lib/x86_64-linux-gnu", "lib64", "lib"):
        module = tmp_path / place / "usr" / place / "ossl-modules" / "pkcs11.so"
        module.parent.mkdir(parents=True)
        module.touch()
        assert openssl_conf.has_pkcs11_provider({}, (tmp_path / place / "usr",))


def test_a_path_that_openssl_would_misread_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pkcs11.so").touch()
    variables = token(tmp_path) | {"ENROLL_PKCS11_MODULE": "/usr/lib/$ENV::HOME.so"}
    with pytest.raises(ConfigurationError, match="ENROLL_PKCS11_MODULE"):
        openssl_conf.for_token(settings(**variables), variables)


def test_an_abort_leaves_no_core(tmp_path: Path) -> None:
    script = SCRIPT + "\nsys.stdout.flush()\nos.abort()\n"
    file = tmp_path / "script.py"
    file.write_text(script)
    environment = os.environ | NEEDED | {"PYTHONPATH": str(PROJECT)}
    pid = os.posix_spawn(sys.executable, [sys.executable, str(file)], environment)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    assert not os.WCOREDUMP(status)
    assert not list(tmp_path.glob("core*"))


def test_what_is_started_again_is_said_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: nothing is replaced, and the limits of the test runner stay."""
    monkeypatch.setattr(process, "forbid_core_dumps", lambda: None)
    seen: list[tuple[str, list[str], dict[str, str]]] = []
    environment = {"PATH": str(tmp_path), "TPM2OPENSSL_TCTI": "tabrmd", "ENROLL_VOUCHER": "kept"}
    line = ["python", "-m", "enroll", "run"]
    prepare_process(settings(ENROLL_KEY="tpm"), environment, line, lambda *given: seen.append(given))
    [(program, arguments, handed)] = seen
    assert program == sys.executable
    assert arguments == line
    assert handed.items() >= environment.items()
    descriptor = int(handed["OPENSSL_CONF"].rpartition("/")[2])
    assert os.get_inheritable(descriptor)
    os.close(descriptor)
