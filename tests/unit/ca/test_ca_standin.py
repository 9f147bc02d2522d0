"""The embedded CA as a server: what survives a restart, who may read its files, what it writes down."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ca.bootstrap import context_for
from ca.client import StepCaClient
from ca.errors import CaRefused
from ca.provisioner_key import decrypt_key
from ca.standin import LOCALHOST, StandInCa, StandInSettings, read_signed, server
from ca.standin.hierarchy import load_or_make
from ca.token import TokenSigner

LIFETIME = timedelta(days=30)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings(tmp_path: Path) -> StandInSettings:
    return StandInSettings(tmp_path / "ca")


def make_csr() -> tuple[str, bytes]:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dev-1")])
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return csr.public_bytes(Encoding.PEM).decode(), csr.public_bytes(Encoding.DER)


async def tools(ca: StandInCa, http: httpx.AsyncClient, clock: Callable[[], datetime]) -> tuple[Any, Any]:
    client = StepCaClient(http, ca.url)
    provisioner = await client.provisioner(ca.device_provisioner)
    key = decrypt_key(provisioner, await client.encrypted_key(provisioner.kid), ca.password)
    octets = iter(range(1, 10_000))
    return client, TokenSigner(
        key,
        issuer=provisioner.name,
        url=ca.url,
        clock=clock,
        randomness=lambda n: hash((next(octets), id(ca))).to_bytes(n, "big", signed=True),
    )


def connect(ca: StandInCa) -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=context_for(ca.anchor))


async def test_a_restart_is_the_same_ca_and_remembers(settings: StandInSettings, clock: Clock) -> None:
    pem, der = make_csr()
    async with StandInCa(settings, clock=clock) as first, connect(first) as http:
        client, tokens = await tools(first, http, clock)
        spent = tokens.for_sign("dev-1", der, 1001)
        await client.sign(pem, spent, LIFETIME)
        await client.revoke(1002, tokens.for_revoke(1002))
        number = (await client.crl(first.anchor.issuing_ca)).number
    async with StandInCa(settings, clock=clock) as second, connect(second) as http:
        assert second.anchor == first.anchor
        assert second.password == first.password
        client = StepCaClient(http, second.url)
        crl = await client.crl(second.anchor.issuing_ca)
        assert crl.is_revoked(1002)
        assert crl.number > number
        with pytest.raises(CaRefused) as caught:
            await client.sign(pem, spent, LIFETIME)
        assert caught.value.status == 401
        assert second.signed_serials() == {1001}


async def test_the_log_of_signed_certificates_is_read_beside_the_running_ca(
    settings: StandInSettings, clock: Clock
) -> None:
    pem, der = make_csr()
    async with StandInCa(settings, clock=clock) as ca, connect(ca) as http:
        client, tokens = await tools(ca, http, clock)
        chain = await client.sign(pem, tokens.for_sign("dev-1", der, 1001), LIFETIME)
        (signed,) = read_signed(settings.folder / "ca.sqlite")
        leaf = x509.load_pem_x509_certificate(chain.leaf_pem.encode())
        assert signed == ca.signed()[0]
        assert (signed.serial, signed.name, signed.provisioner) == (1001, "dev-1", "iot-bridge")
        assert signed.sha256 == leaf.fingerprint(hashes.SHA256()).hex()
        assert signed.not_after == leaf.not_valid_after_utc
        with pytest.raises(CaRefused):
            await client.sign(pem, tokens.for_sign("dev-2", der, 1002), LIFETIME)
        assert ca.signed_serials() == {1001}


async def test_nobody_else_reads_its_files(settings: StandInSettings, clock: Clock) -> None:
    async with StandInCa(settings, clock=clock):
        for path in [settings.folder, *settings.folder.rglob("*")]:
            assert path.stat().st_mode & 0o077 == 0, path


async def test_a_token_older_than_the_start_is_refused(settings: StandInSettings, clock: Clock) -> None:
    pem, der = make_csr()
    clock.ahead = timedelta(seconds=30)
    async with StandInCa(settings, clock=clock) as ca, connect(ca) as http:
        _client, early = await tools(ca, http, lambda: datetime.now(UTC))
        client, tokens = await tools(ca, http, clock)
        with pytest.raises(CaRefused) as caught:
            await client.sign(pem, early.for_sign("dev-1", der, 1), LIFETIME)
        assert caught.value.status == 401
        await client.sign(pem, tokens.for_sign("dev-1", der, 1), LIFETIME)


async def test_the_list_is_made_anew_before_it_ends(settings: StandInSettings, clock: Clock) -> None:
    async with StandInCa(settings, clock=clock) as ca, connect(ca) as http:
        client = StepCaClient(http, ca.url)
        first = await client.crl(ca.anchor.issuing_ca)
        assert await client.crl(ca.anchor.issuing_ca) == first
        clock.ahead = timedelta(hours=13)
        second = await client.crl(ca.anchor.issuing_ca)
        assert second.number > first.number
        assert second.is_fresh(clock() + timedelta(hours=20))


async def test_every_reason_code_is_listed(settings: StandInSettings, clock: Clock) -> None:
    async with StandInCa(settings, clock=clock) as ca, connect(ca) as http:
        client, tokens = await tools(ca, http, clock)
        for code in range(11):
            await client.revoke(100 + code, tokens.for_revoke(100 + code), reason_code=code, reason="x")
        assert (await client.crl(ca.anchor.issuing_ca)).serials == set(range(100, 111))


async def test_a_server_certificate_for_the_doors_of_the_embedded_stack(
    settings: StandInSettings, clock: Clock, tmp_path: Path
) -> None:
    ca = StandInCa(settings, clock=clock)
    made = ca.issue_server_certificate()
    assert made.names == LOCALHOST
    leaf = x509.load_pem_x509_certificate(made.chain_pem.encode())
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(one) for one in san.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    path = tmp_path / "door.pem"
    path.write_text(made.chain_pem + made.key_pem)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)
    await ca.stop()


async def test_idle_connections_do_not_hold_the_stop_up(settings: StandInSettings, clock: Clock) -> None:
    ca = StandInCa(settings, clock=clock)
    await ca.start()
    async with connect(ca) as http:
        await http.get(f"{ca.url}/health")
        async with asyncio.timeout(2):
            await ca.stop()


async def test_a_taken_port_is_an_error(settings: StandInSettings, clock: Clock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ca = StandInCa(StandInSettings(settings.folder, port=port), clock=clock)
        with pytest.raises(OSError, match="in use"):
            await ca.start()
        await ca.stop()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_it_listens_on_loopback_only(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        StandInSettings(tmp_path, host=host)


async def test_attack_a_body_without_end(settings: StandInSettings, clock: Clock) -> None:
    async with StandInCa(settings, clock=clock) as ca, connect(ca) as http:
        answer = await http.post(f"{ca.url}/1.0/sign", content=b"[" * (2 << 20))
        assert answer.status_code == 400


async def test_its_own_certificate_is_renewed_in_place(
    settings: StandInSettings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = [asyncio.Event(), asyncio.Event()]
    renewals = iter(waited)

    async def sleep(_seconds: float) -> None:
        await next(renewals).wait()

    monkeypatch.setattr(server, "_sleep", sleep)
    async with StandInCa(settings, clock=clock) as ca:
        context = context_for(ca.anchor)

        async def shown() -> bytes:
            port = int(ca.url.rsplit(":", 1)[1])
            _reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
            der: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.transport.abort()
            return der

        first = await shown()
        assert await shown() == first
        waited[0].set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await shown() != first


def test_an_interrupted_start_is_made_anew(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    made = load_or_make(tmp_path / "pki", now)
    assert load_or_make(tmp_path / "pki", now).anchor == made.anchor
    (tmp_path / "pki" / "issuing.pem").unlink()
    again = load_or_make(tmp_path / "pki", now)
    assert again.anchor != made.anchor
    assert load_or_make(tmp_path / "pki", now).anchor == again.anchor
