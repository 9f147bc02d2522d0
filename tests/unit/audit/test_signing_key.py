"""The signing key: made once, private, the same at every start, changed by an operator's word only."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import delete

from bridge.adapters.signing import FileSigner
from bridge.app.signing import signer_of, trust
from bridge.config import load
from bridge.errors import Misconfigured
from bridge.model.signing import NotSigned, Purpose, VerifyKey, key_named_in
from bridge.store.schema import SIGNING_KEY

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
async def bare(archive: Any) -> Any:
    """A registry that names no key yet."""
    with archive.store.engine.begin() as connection:
        connection.execute(delete(SIGNING_KEY))
    return archive


def files_in(folder: Path) -> list[str]:
    return [one.name for one in folder.glob("signing*")]


async def test_it_is_made_at_the_first_start_and_used_at_each(bare: Any, tmp_path: Path) -> None:
    settings = load({}, bridge_data=tmp_path)
    first = await signer_of(bare.store, settings, bare.clock)
    path = tmp_path / "signing.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert files_in(tmp_path) == ["signing.key"]
    again = await signer_of(bare.store, settings, bare.clock)
    assert again.public_key == first.public_key
    assert await bare.store.read(lambda t: t.signing_keys()) == (first.public_key,)
    await bare.seal_all(bare.sequencer(signer=first))
    verdict = await bare.check(own=first.public_key)
    assert (verdict.good, verdict.entries) == (True, 1)  # that the key is trusted now


async def test_another_key_is_refused_until_an_operator_trusts_it(
    bare: Any, tmp_path: Path, another_signer: Any
) -> None:
    settings = load({}, bridge_data=tmp_path)
    first = await signer_of(bare.store, settings, bare.clock)
    (tmp_path / "signing.key").unlink()
    with pytest.raises(Misconfigured, match=r"missing.*trust-key"):
        await signer_of(bare.store, settings, bare.clock)
    other = FileSigner.make(tmp_path / "signing.key")
    with pytest.raises(Misconfigured, match=f"{other.public_key.fingerprint}.*{first.public_key.fingerprint}"):
        await signer_of(bare.store, settings, bare.clock)
    await bare.seal_all(bare.sequencer(signer=first))
    now = bare.clock.now()
    assert await bare.store.write(lambda t: trust(t, other.public_key, "operator:me", now))
    assert not await bare.store.write(lambda t: trust(t, other.public_key, "operator:me", now))
    assert (await signer_of(bare.store, settings, bare.clock)).public_key == other.public_key
    await bare.write(2)
    await bare.seal_all(bare.sequencer(signer=other))
    verdict = await bare.check(own=other.public_key)
    assert (verdict.good, verdict.heads, len(verdict.keys)) == (True, 2, 2)


async def test_a_configured_file_is_never_made(bare: Any, tmp_path: Path) -> None:
    settings = load({"BRIDGE_SIGNING_KEY_FILE": str(tmp_path / "x.key")}, bridge_data=tmp_path)
    with pytest.raises(Misconfigured, match=r"x\.key cannot be read.*openssl genpkey"):
        await signer_of(bare.store, settings, bare.clock)


@pytest.mark.parametrize("content", [b"", b"no key", "ec"])
def test_a_file_with_something_else_is_told(tmp_path: Path, content: Any, database: Any) -> None:
    if content == "ec":
        key = generate_private_key(SECP256R1())
        content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "k").write_bytes(content)
    with pytest.raises(Misconfigured, match="BRIDGE_SIGNING_KEY_FILE"):
        FileSigner.read(tmp_path / "k")


def test_of_two_that_make_it_one_wins(tmp_path: Path, database: Any) -> None:
    first, second = FileSigner.make(tmp_path / "k"), FileSigner.make(tmp_path / "k")
    assert first.public_key == second.public_key


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, database: Any) -> None:
    with pytest.raises(Misconfigured, match="BRIDGE_DATA"):
        FileSigner.make(tmp_path / "missing" / "k")


def test_a_signature_holds_to_the_last_bit(another_signer: Any, database: Any) -> None:
    key: VerifyKey = another_signer.public_key
    jws = another_signer.sign(b"payload", Purpose.RECEIPT)
    assert key.check(jws, Purpose.RECEIPT) == b"payload"
    assert key_named_in(jws) == key.fingerprint
    assert VerifyKey.from_pem(key.pem) == key
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.="
    for place, octet in enumerate(jws):
        other = alphabet[(alphabet.index(octet) + 1) % len(alphabet)]
        with pytest.raises(NotSigned):
            key.check(jws[:place] + other + jws[place + 1 :], Purpose.RECEIPT)
    with pytest.raises(NotSigned):
        key.check(jws, Purpose.AUDIT_HEAD)
    for bad in ("", "a.b", "é.b.c", "bnVsbA.b.c", f"{jws}.x", jws + "="):
        with pytest.raises(NotSigned):
            key.check(bad, Purpose.RECEIPT)
