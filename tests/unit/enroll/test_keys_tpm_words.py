"""What a person is told when the TPM does not do what it was asked, from what openssl really wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from enroll.errors import ConfigurationError, StorageError
from enroll.keys import KeyFormatError
from enroll.keys import tpm_command as module
from enroll.keys.tpm_command import TCTI, TpmCommand, way

UNLOADED = "pkeyutl: unable to load provider tpm2\nHint: use -provider-path option or OPENSSL_MODULES\n"
INIT = "40:error:078C0105:common libcrypto routines:provider_init:init fail:../crypto/provider_core.c:943:name=tpm2\n"
LOAD = """\
WARNING:esys:src/tss2-esys/api/Esys_Load.c:324:Esys_Load_Finish() Received TPM Error
ERROR:esys:src/tss2-esys/api/Esys_Load.c:112:Esys_Load() Esys Finish ErrorCode (0x{code}) \x1b[31m
Could not read private key from /proc/self/fd/9
"""
SAID = [
    (UNLOADED + "40:error:40000006:lib(128)::reason(6)::-1:655370 tcti:IO failure\n" + INIT, StorageError, "cannot be"),
    (UNLOADED + "40:error:40000006::: tcti:Functionality not supported\n" + INIT, ConfigurationError, f"{TCTI}: 'way'"),
    (UNLOADED + "dlfcn_load:could not load the shared library: tpm2.so\n", ConfigurationError, "install tpm2-openssl"),
    (LOAD.format(code="000001df"), KeyFormatError, "another TPM"),
    (LOAD.format(code="000b01df"), KeyFormatError, "another TPM"),
    (LOAD.format(code="00000902"), StorageError, "resource manager"),
    (LOAD.format(code="00000921"), StorageError, "lockout"),
    (LOAD.format(code="0000098e"), StorageError, r"refused: ERROR:esys:.*0000098e\) +\[31m; check"),
    ("pkeyutl: Error initializing context\n", StorageError, "refused: pkeyutl: Error initializing"),
    ("", StorageError, "no reason was given"),
]


def command_that(folder: Path, shell: str, **variables: str) -> TpmCommand:
    script = folder / "openssl"
    script.write_text(f"#!/bin/sh\n{shell}\n")
    script.chmod(0o755)
    return TpmCommand({"PATH": f"{folder}:{os.environ['PATH']}", TCTI: "way"} | variables)


@pytest.mark.parametrize(("told", "error", "text"), SAID)
def test_each_trouble_has_its_own_sentence(tmp_path: Path, told: str, error: type[Exception], text: str) -> None:
    (tmp_path / "told").write_text(told)
    command = command_that(tmp_path, f"cat {tmp_path / 'told'} >&2; exit 1")
    with pytest.raises(error, match=text) as raised:
        command.run("pkey", key=b"a key")
    assert str(raised.value).isprintable()


def test_a_tpm_that_nobody_named_and_none_there(tmp_path: Path) -> None:
    (tmp_path / "told").write_text(UNLOADED + INIT)
    command = command_that(tmp_path, f"cat {tmp_path / 'told'} >&2; exit 1", **{TCTI: ""})
    with pytest.raises(StorageError, match="no TPM found"):
        command.run("pkey")


def test_no_openssl_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no openssl command"):
        TpmCommand({"PATH": str(tmp_path)}).run("pkey")


def test_an_openssl_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.2)
    with pytest.raises(StorageError, match="did not answer within"):
        command_that(tmp_path, "exec sleep 30").run("pkey")


def test_the_key_is_in_no_argument_and_the_environment_is_not_handed_on(tmp_path: Path) -> None:
    script = 'echo "$@" >&2; env >&2; cat "$7" >&2; cat >&2; exit 0'
    command = command_that(tmp_path, f"exec 2>{tmp_path / 'seen'}\n{script}", ENROLL_VOUCHER="secret", TSS2_X="handed")
    assert command.run("pkeyutl", "-inkey", "KEY", key=b"the key\n", given=b"the digest\n") == b""
    arguments, *rest = (tmp_path / "seen").read_text().splitlines()
    assert arguments.startswith("pkeyutl -provider tpm2 -provider default -inkey /proc/self/fd/")
    assert "the key" not in arguments
    assert rest[-2:] == ["the key", "the digest"]
    assert "TSS2_X=handed" in rest
    assert not [line for line in rest if "secret" in line]


def test_the_way_to_the_tpm(tmp_path: Path) -> None:
    manager = tmp_path / "tpmrm0"
    assert way({}, manager) == {}
    manager.touch()
    assert way({}, manager) == {TCTI: f"device:{manager}"}
    assert way({TCTI: "tabrmd:bus_type=system"}, manager) == {}
    for direct in ("device", "device:/dev/tpm0"):
        with pytest.raises(ConfigurationError, match="no resource manager"):
            way({TCTI: direct}, manager)


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("Providers:\n  tpm2\n    name: TPM 2.0 Provider\n    version: 1.1.1\n    status: active\n", (1, 1, 1)),
        ("Providers:\n  default\n    version: 3.0.1\n  tpm2\n    version: 1.3\n", (1, 3)),
        ("Providers:\n  default\n    version: 3.0.1\n", None),
    ],
)
def test_the_version_is_the_tpm2_providers(tmp_path: Path, told: str, version: tuple[int, ...] | None) -> None:
    (tmp_path / "told").write_text(told)
    assert command_that(tmp_path, f"cat {tmp_path / 'told'}").version() == version
