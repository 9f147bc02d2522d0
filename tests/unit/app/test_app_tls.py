"""The bridge's own certificate: taken up in place on a real socket, and never lost to a pair that does not fit."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from bridge.app import tls
from bridge.app.tls import CertificateFiles, keep_fresh, write_files
from bridge.errors import CaUnreachable, Misconfigured

NOW = datetime.now(UTC).replace(microsecond=0)
LIFE = timedelta(days=30)


ROOT_KEY = ec.generate_private_key(ec.SECP256R1())
ROOT_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Root of the tests")])
ROOT = (
    x509.CertificateBuilder(ROOT_NAME, ROOT_NAME, ROOT_KEY.public_key(), 1)
    .not_valid_before(NOW - LIFE)
    .not_valid_after(NOW + 10 * LIFE)
    .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    .sign(ROOT_KEY, hashes.SHA256())
)


def pair(begins: datetime = NOW) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder(ROOT_NAME, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(ROOT_KEY, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM).decode(), pem.decode()


@dataclass
class HandClock:
    moment: datetime = NOW

    def now(self) -> datetime:
        return self.moment


@dataclass
class Door:
    """A listening TLS socket whose certificate is kept fresh."""

    files: CertificateFiles
    clock: HandClock
    port: int = 0
    obtained: int = 0
    failures: list[Exception] = field(default_factory=list)
    makes: Callable[[], object] | None = None

    async def obtain(self) -> CertificateFiles:
        self.obtained += 1
        if self.failures:
            raise self.failures.pop(0)
        if self.makes is not None:
            self.makes()
        return self.files

    async def shown(self) -> bytes:
        """Shake hands and return the leaf that was shown."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=ROOT.public_bytes(Encoding.PEM).decode())
        _, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname="localhost")
        leaf = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return leaf

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - the keeper tells nobody
                await asyncio.sleep(0.005)

    async def until_shown(self, chain: str) -> None:
        async with asyncio.timeout(20):
            while await self.shown() != ssl.PEM_cert_to_DER_cert(chain):  # noqa: ASYNC110 - each look is a handshake
                await asyncio.sleep(0.01)

    async def looks(self) -> None:
        """Wait for long enough that the keeper has looked several times."""
        await asyncio.sleep(0.05)

    def place(self, chain: str, key: str) -> str:
        write_files(self.files.chain.parent, chain, key)
        return chain


@pytest.fixture
async def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    monkeypatch.setattr(tls, "_LOOK_EVERY", timedelta(milliseconds=5))
    made = Door(CertificateFiles(tmp_path / "server.crt", tmp_path / "server.key"), HandClock())
    made.place(*pair())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.files.chain, made.files.key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        made.port = server.sockets[0].getsockname()[1]
        keeper = asyncio.create_task(keep_fresh(context, made.files, made.obtain, made.clock))
        yield made
        assert not keeper.done(), "it runs until cancelled"
        keeper.cancel()
        await asyncio.wait({keeper})


async def test_young_certificate_is_left_alone(door: Door) -> None:
    before = await door.shown()
    door.clock.moment = NOW + LIFE * 2 / 3 - timedelta(seconds=1)
    await door.looks()
    assert door.obtained == 0
    assert await door.shown() == before


async def test_new_certificate_is_shown_to_the_next_handshake(door: Door) -> None:
    new = pair(NOW - LIFE / 10)
    door.makes = lambda: door.place(*new)
    door.clock.moment = NOW + LIFE * 2 / 3
    await door.until(lambda: door.obtained > 0)
    await door.until_shown(new[0])
    assert door.obtained == 1


async def test_files_that_an_operator_replaced_are_taken_up_without_being_due(door: Door) -> None:
    new = door.place(*pair())
    await door.until_shown(new)
    assert door.obtained == 0


async def test_pair_that_does_not_fit_is_never_served_and_loses_nothing(door: Door) -> None:
    before = await door.shown()
    (chain, _), (_, key) = pair(), pair()
    write_files(door.files.chain.parent, chain, key)
    await door.looks()
    assert await door.shown() == before

    new = door.place(*pair())
    await door.until_shown(new)


@pytest.mark.parametrize("garbage", ["", "half a certif", None])
async def test_file_that_cannot_be_read_is_survived(door: Door, garbage: str | None) -> None:
    before = await door.shown()
    if garbage is None:
        door.files.chain.unlink()
    else:
        door.files.chain.write_text(garbage)
    await door.looks()
    assert await door.shown() == before
    new = door.place(*pair())
    await door.until_shown(new)


async def test_source_that_fails_is_asked_again_after_a_while_and_not_before(door: Door) -> None:
    door.failures = [CaUnreachable("down")]
    door.clock.moment = NOW + LIFE * 2 / 3
    await door.until(lambda: door.obtained == 1)
    await door.looks()
    assert door.obtained == 1
    door.makes = lambda: door.place(*pair(door.clock.moment - LIFE / 10))
    door.clock.moment += timedelta(minutes=5)
    await door.until(lambda: door.obtained == 2)


async def test_operator_who_forgets_is_reminded_twice_a_day(door: Door) -> None:
    door.clock.moment = NOW + LIFE * 2 / 3
    await door.until(lambda: door.obtained == 1)
    door.clock.moment += timedelta(hours=11)
    await door.looks()
    assert door.obtained == 1
    door.clock.moment += timedelta(hours=1)
    await door.until(lambda: door.obtained == 2)


def test_files_are_private_and_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    for _ in range(2):
        files = write_files(folder, *pair())
        files.check()
    assert {path.name for path in folder.iterdir()} == {"server.crt", "server.key"}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())


def test_files_that_cannot_be_served_are_told_by_their_variables(tmp_path: Path) -> None:
    (chain, _), (_, key) = pair(), pair()
    with pytest.raises(Misconfigured, match="BRIDGE_TLS_CERT_FILE and BRIDGE_TLS_KEY_FILE"):
        write_files(tmp_path, chain, key).check()
    with pytest.raises(Misconfigured, match="cannot be read"):
        CertificateFiles(tmp_path / "missing", tmp_path / "server.key").check()
    with pytest.raises(Misconfigured, match="BRIDGE_TLS_KEY_FILE"):
        CertificateFiles(tmp_path / "server.crt", tmp_path / "missing").check()
