"""What only a token does: it is pulled out, exchanged, initialised anew, full, locked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import jwt
import pkcs11
import pytest

from compose.real.soft_token import SoftToken
from enroll.config import load
from enroll.errors import ConfigurationError, StorageError
from enroll.keys import KeyFormatError, KeyProvider, csr, provider
from enroll.keys.token import _library
from tests.contract.keys.conftest import NEEDED, TOKEN, token_variables

pytestmark = pytest.mark.real


def keys(tokens: SoftToken, label: str = TOKEN, **variables: str) -> KeyProvider:
    own = {"ENROLL_KEY": "pkcs11", "ENROLL_PKCS11_TOKEN": label}
    return provider(load(NEEDED | token_variables(tokens) | own | variables))


def delete(tokens: SoftToken, label: str) -> None:
    command = ["softhsm2-util", "--delete-token", "--token", label]
    subprocess.run(command, env=os.environ | tokens.environment, check=True, capture_output=True, timeout=60)


def look_again(tokens: SoftToken) -> None:
    """Let the library see tokens that came and went, as the next process would: SoftHSM looks once."""
    _library(tokens.module).reinitialize()


def test_device_key_names_the_key_and_never_the_pin(tokens: SoftToken) -> None:
    content = keys(tokens).generate().content().decode()
    assert content.startswith("pkcs11:token=a%20token%3B%20of%20this%20test;serial=")
    assert ";object=iot-enroll%20dev-1;type=private\n-----BEGIN PKCS#11 PROVIDER URI-----\n" in content
    assert "pin" not in content
    assert tokens.pin not in content


def test_a_token_that_is_not_there_may_come_back(tokens: SoftToken) -> None:
    tokens.make("pulled")
    look_again(tokens)
    key = keys(tokens, "pulled").generate()
    content = key.content()
    moved = tokens.folder / "tokens"
    away = moved.rename(tokens.folder / "away")
    moved.mkdir()
    look_again(tokens)
    try:
        for attempt in (
            keys(tokens, "pulled").generate,
            lambda: keys(tokens, "pulled").read(content),
            lambda: csr.build(key.private, "dev-1"),
        ):
            with pytest.raises(StorageError, match="is not there"):
                attempt()
    finally:
        moved.rmdir()
        away.rename(moved)
        look_again(tokens)
    assert keys(tokens, "pulled").read(content).content() == content


def test_another_token_with_the_same_label_is_no_reason_for_a_new_key(tokens: SoftToken) -> None:
    tokens.make("exchanged")
    look_again(tokens)
    content = keys(tokens, "exchanged").generate().content()
    delete(tokens, "exchanged")
    tokens.make("exchanged")
    look_again(tokens)
    with pytest.raises(StorageError, match="is another one"):
        keys(tokens, "exchanged").read(content)


def test_two_tokens_of_one_label(tokens: SoftToken) -> None:
    tokens.make("twin")
    tokens.make("twin")
    look_again(tokens)
    with pytest.raises(ConfigurationError, match="several tokens"):
        keys(tokens, "twin").generate()


def test_a_key_of_the_other_token(tokens: SoftToken) -> None:
    content = keys(tokens).generate().content()
    tokens.make("second")
    with pytest.raises(ConfigurationError, match="ENROLL_PKCS11_TOKEN"):
        keys(tokens, "second").read(content)


def test_a_key_that_was_deleted(tokens: SoftToken) -> None:
    key = keys(tokens).generate()
    assert keys(tokens).sweep([]) >= 1
    with pytest.raises(KeyFormatError, match="does not have any more"):
        keys(tokens).read(key.content())
    with pytest.raises(StorageError, match="since this run began"):
        csr.build(key.private, "dev-1")


def test_a_sweep_leaves_the_keys_of_others(tokens: SoftToken) -> None:
    other = keys(tokens, DEVICE_ID="dev-2").generate()
    keys(tokens).generate()
    keys(tokens).sweep([])
    assert keys(tokens, DEVICE_ID="dev-2").read(other.content()).spki_sha256 == other.spki_sha256
    with pytest.raises(StorageError, match="no key was removed"):
        keys(tokens, DEVICE_ID="dev-2").sweep([b"torn"])
    assert keys(tokens, DEVICE_ID="dev-2").read(other.content()).spki_sha256 == other.spki_sha256


@pytest.mark.parametrize(
    ("content", "mode", "text"),
    [
        (b"wrong\n", 0o600, "does not take this PIN"),
        (b"1" * 200 + b"\n", 0o600, "does not take this PIN"),
        (b"", 0o600, "holds no PIN"),
        (b"two\nlines\n", 0o600, "holds no PIN"),
        (b"\xff\xfe", 0o600, "holds no text"),
        (b"1234\n", 0o644, "open to everyone"),
        (None, 0, "cannot read"),
    ],
)
def test_pins_that_do_not_open_it(
    tokens: SoftToken, tmp_path: Path, content: bytes | None, mode: int, text: str
) -> None:
    pin = tmp_path / "pin"
    if content is not None:
        pin.write_bytes(content)
        pin.chmod(mode)
    with pytest.raises(ConfigurationError, match=text) as raised:
        keys(tokens, ENROLL_PKCS11_PIN_FILE=str(pin)).generate()
    assert "ENROLL_PKCS11_PIN_FILE" in str(raised.value)
    for told in (raised.value, raised.value.__cause__):
        assert not content or content.strip().decode(errors="replace") not in repr(told)


def test_what_is_no_library(tokens: SoftToken, tmp_path: Path) -> None:
    (tmp_path / "no.so").write_bytes(b"no library")
    for module in (tmp_path / "no.so", tmp_path / "missing.so"):
        with pytest.raises(ConfigurationError, match="ENROLL_PKCS11_MODULE"):
            keys(tokens, ENROLL_PKCS11_MODULE=str(module)).generate()


def test_a_login_of_somebody_else_in_this_process(tokens: SoftToken) -> None:
    """OpenSSL's provider logs in too, and logins belong to the process."""
    library = pkcs11.lib(str(tokens.module))
    with library.get_token(token_label=TOKEN).open(user_pin=tokens.pin):
        key = keys(tokens).generate()
        jwt.encode({}, key.private, "ES256")
    jwt.encode({}, key.private, "ES256")
