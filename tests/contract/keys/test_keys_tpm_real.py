"""What only a TPM does: keys that no other TPM takes, and what is said when it is not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import jwt
import pytest

from compose.real.software_tpm import SoftwareTpm
from enroll.errors import ConfigurationError, StorageError
from enroll.keys import KeyFormatError, csr
from enroll.keys.tpm import TpmKeys
from tests.contract.keys.conftest import Kind

pytestmark = pytest.mark.real


def keys(variables: Mapping[str, str]) -> TpmKeys:
    return TpmKeys(os.environ | dict(variables))


def test_a_key_works_after_power_was_lost(tmp_path: Path) -> None:
    with SoftwareTpm(tmp_path / "tpm") as tpm:
        content = keys(tpm.environment).generate().content()
    with SoftwareTpm(tmp_path / "tpm") as tpm:
        key = keys(tpm.environment).read(content)
        assert csr.fits(csr.build(key.private, "dev-1"), key.private, "dev-1")


def test_a_key_of_another_tpm_is_told_from_one_that_is_not_there(tpm: SoftwareTpm, tmp_path: Path) -> None:
    content = keys(tpm.environment).generate().content()
    with SoftwareTpm(tmp_path / "other") as other:
        with pytest.raises(KeyFormatError, match="wrapped by another TPM"):
            keys(other.environment).read(content)
        gone = other.environment
    with pytest.raises(StorageError, match="cannot be reached"):
        keys(gone).read(content)
    with pytest.raises(StorageError, match="cannot be reached"):
        keys(gone).generate()
    assert keys(tpm.environment).read(content).content() == content


def test_a_tpm_that_was_cleared_takes_none_of_its_old_keys(tmp_path: Path) -> None:
    with SoftwareTpm(tmp_path / "tpm") as tpm:
        provider = keys(tpm.environment)
        key = provider.generate()
        tpm.clear()
        with pytest.raises(KeyFormatError, match="cleared"):
            keys(tpm.environment).read(key.content())
        with pytest.raises(StorageError, match="since this run began"):
            csr.build(key.private, "dev-1")
        assert keys(tpm.environment).generate().spki_sha256 != key.spki_sha256


def test_a_tpm_that_goes_away_during_a_run(tmp_path: Path) -> None:
    tpm = SoftwareTpm(tmp_path / "tpm")
    with tpm:
        key = keys(tpm.environment).generate()
    with pytest.raises(StorageError, match="cannot be reached"):
        jwt.encode({}, key.private, "ES256")


@pytest.mark.parametrize(
    ("variables", "error", "text"),
    [
        ({"TPM2OPENSSL_TCTI": "no such way"}, ConfigurationError, "names no way to a TPM"),
        ({"TPM2OPENSSL_TCTI": "device:/dev/no-such-tpm"}, StorageError, "cannot be reached"),
        ({"TPM2OPENSSL_TCTI": "swtpm:host=127.0.0.1,port=9"}, StorageError, "cannot be reached"),
        ({"TPM2OPENSSL_TCTI": "device:/dev/tpm0"}, ConfigurationError, "resource manager"),
        ({"OPENSSL_MODULES": "/nowhere"}, ConfigurationError, "install tpm2-openssl"),
        ({"PATH": "/nowhere"}, ConfigurationError, "no openssl command"),
    ],
)
def test_what_is_wrong_is_named(tpm: SoftwareTpm, variables: dict[str, str], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        keys(tpm.environment | variables).generate()


def test_a_key_with_a_changed_byte_within_the_wrapping(tpm: SoftwareTpm) -> None:
    content = keys(tpm.environment).generate().content()
    *lines, last, end = content.decode().splitlines()
    changed = "\n".join([*lines[:-1], lines[-1][::-1], last, end, ""]).encode()
    with pytest.raises(KeyFormatError):
        keys(tpm.environment).read(changed)


def test_no_secret_is_in_an_argument(kinds: Callable[[str], Kind], tmp_path: Path) -> None:
    """Every run of openssl is watched; the digest and the wrapped key go past the argument list."""
    real = "/usr/bin/openssl"
    script = tmp_path / "openssl"
    script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {tmp_path}/seen\nexec {real} "$@"\n')
    script.chmod(0o755)
    environment = kinds("tpm").environment
    provider = TpmKeys(environment | {"PATH": f"{tmp_path}:{environment['PATH']}"})
    key = provider.generate()
    jwt.encode({}, key.private, "ES256")
    commands = (tmp_path / "seen").read_text().splitlines()
    assert [line.split()[0] for line in commands] == ["genpkey", "pkey", "pkeyutl"]
    for line in key.content().decode().splitlines()[1:-1]:
        assert line not in "".join(commands)
    assert {word for line in commands for word in line.split() if "/" in word} == {
        word for line in commands for word in line.split() if word.startswith("/proc/self/fd/")
    }
