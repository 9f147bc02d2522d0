"""Everything of the CA's API but signing: discovery, keys, revocation, lists, the server's provisioner."""

import secrets
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from cryptography import x509

from ca.bootstrap import context_for, context_for_root, fetch_trust
from ca.errors import CaError, CaMisconfigured, CaRefused
from ca.models import Fingerprint, new_serial
from ca.provisioner_key import decrypt_key
from ca.server_certificate import request_server_certificate
from ca.template import judge, require_ours, server_template
from ca.token import TokenSigner

LIFETIME = timedelta(days=30)


def now() -> datetime:
    return datetime.now(UTC)


def connect(tls: ssl.SSLContext) -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=tls)


async def test_health(client: Any) -> None:
    await client.health()


@pytest.mark.parametrize("which", ["root_fingerprint", "issuing_fingerprint"])
async def test_trust_from_either_fingerprint(server: Any, which: str) -> None:
    assert await fetch_trust(server.url, getattr(server.anchor, which), connect) == server.anchor


async def test_attack_wrong_fingerprint(server: Any) -> None:
    with pytest.raises(CaMisconfigured, match="neither a root nor an issuing CA") as caught:
        await fetch_trust(server.url, Fingerprint("0" * 64), connect)
    assert "STEP_CA_FINGERPRINT" in caught.value.check


async def test_the_intermediates_fingerprint_is_not_an_anchor(server: Any) -> None:
    with pytest.raises(CaMisconfigured, match="not the one that issues"):
        await fetch_trust(server.url, Fingerprint.of(server.anchor.intermediates[0]), connect)


@pytest.mark.parametrize("context", [context_for, context_for_root])
async def test_contexts_reach_the_ca(server: Any, context: Any) -> None:
    async with connect(context(server.anchor)) as http:
        assert (await http.get(f"{server.url}/health")).json() == {"status": "ok"}


async def test_our_provisioner_is_found_over_pages_and_judged_ours(client: Any, server: Any) -> None:
    provisioner = await client.provisioner(server.device_provisioner)
    assert judge(provisioner, lifetime=LIFETIME) == ()
    assert provisioner.max_duration == timedelta(days=365)
    assert provisioner.default_duration == timedelta(days=30)
    require_ours(provisioner)


async def test_a_longer_lifetime_than_allowed_is_a_problem(client: Any, server: Any) -> None:
    provisioner = await client.provisioner(server.device_provisioner)
    with pytest.raises(CaMisconfigured) as caught:
        require_ours(provisioner, lifetime=timedelta(days=400))
    assert '"maxTLSCertDuration": "9600h"' in caught.value.check


async def test_the_servers_provisioner_is_not_the_devices(client: Any, server: Any) -> None:
    provisioner = await client.provisioner(server.server_provisioner)
    assert [problem.what for problem in judge(provisioner)] == [
        "the provisioner's certificate template is not the bridge's"
    ]
    assert provisioner.template == server_template(("localhost", "bridge.example.com"))


async def test_provisioner_renamed(client: Any) -> None:
    with pytest.raises(CaMisconfigured, match="no JWK provisioner called 'gone'") as caught:
        await client.provisioner("gone")
    assert "STEP_CA_PROVISIONER_NAME" in caught.value.check


async def test_attack_wrong_password(client: Any, server: Any) -> None:
    provisioner = await client.provisioner(server.device_provisioner)
    encrypted = await client.encrypted_key(provisioner.kid)
    with pytest.raises(CaMisconfigured) as caught:
        decrypt_key(provisioner, encrypted, "wrong")
    assert "STEP_CA_PROVISIONER_PASSWORD" in caught.value.check


async def test_a_key_that_is_not_published(client: Any) -> None:
    with pytest.raises(CaMisconfigured) as caught:
        await client.encrypted_key("nobody")
    assert "STEP_CA_PROVISIONER_KEY_FILE" in caught.value.check


async def test_revocation_is_in_the_list_at_once_and_twice_is_done(bench: Any, client: Any, server: Any) -> None:
    serial, other = (new_serial(secrets.token_bytes) for _ in range(2))
    for _ in range(2):
        await client.revoke(serial, bench.tokens.for_revoke(serial), reason_code=1, reason="test")
        crl = await client.crl(server.anchor.issuing_ca)
        assert crl.is_revoked(serial)
        assert not crl.is_revoked(other)
        assert crl.is_fresh(now())
        assert not crl.is_fresh(now() + timedelta(hours=25))


async def test_a_small_serial_too(bench: Any, client: Any, server: Any) -> None:
    await client.revoke(7, bench.tokens.for_revoke(7))
    assert (await client.crl(server.anchor.issuing_ca)).is_revoked(7)


async def test_crl_numbers_rise(bench: Any, client: Any, server: Any) -> None:
    numbers = []
    for _ in range(3):
        serial = new_serial(secrets.token_bytes)
        await client.revoke(serial, bench.tokens.for_revoke(serial))
        numbers.append((await client.crl(server.anchor.issuing_ca)).number)
    assert numbers == sorted(set(numbers))


async def test_a_crl_of_another_ca_is_not_believed(client: Any, server: Any) -> None:
    with pytest.raises(CaError, match="not signed by the trusted issuing CA"):
        await client.crl(server.anchor.intermediates[0])


async def test_revocation_that_step_ca_refuses(bench: Any) -> None:
    serial = str(new_serial(secrets.token_bytes))
    good = {"serial": serial, "passive": True, "reasonCode": 0, "reason": ""}

    async def answer(ott_serial: int, **more: object) -> tuple[int, str]:
        body = good | {"ott": bench.tokens.for_revoke(ott_serial)} | more
        got = await bench.post("/1.0/revoke", body)
        return got.status_code, got.json()["message"]

    assert await answer(int(serial), passive=False) == (
        501,
        (
            "The requested method is not implemented by the certificate authority. "
            "Please see the certificate authority logs for more info."
        ),
    )
    status, text = await answer(5)
    assert status == 403
    assert text == (
        "The request was forbidden by the certificate authority: "
        f'request serial number "{serial}" and token subject "5" do not match.'
    )
    status, text = await answer(int(serial), reasonCode=11)
    assert (status, text) == (400, "The request could not be completed: reasonCode out of bounds.")
    assert (await answer(int(serial), serial=""))[0] == 400
    assert (await answer(int(serial), serial="abc"))[0] == 400
    assert (await answer(8, serial="011"))[0] == 403  # octal nine
    assert (await answer(int(serial), ott=""))[0] == 400
    assert (await answer(int(serial), ott=bench.forge({"sub": serial})))[0] == 401


async def test_already_revoked_in_step_cas_words(bench: Any, client: Any) -> None:
    serial = new_serial(secrets.token_bytes)
    await client.revoke(serial, bench.tokens.for_revoke(serial))
    body = {"serial": str(serial), "passive": True, "ott": bench.tokens.for_revoke(serial)}
    again = await bench.post("/revoke", body)
    assert again.status_code == 400
    words = f"The request could not be completed: certificate with serial number '{serial}' is already revoked."
    assert again.json()["message"] == words


async def test_attack_revocation_token_used_twice(bench: Any, client: Any) -> None:
    serial = new_serial(secrets.token_bytes)
    token = bench.tokens.for_revoke(serial)
    await client.revoke(serial, token)
    with pytest.raises(CaRefused) as caught:
        await client.revoke(serial, token)
    assert caught.value.status == 401


async def test_server_certificate_of_the_second_provisioner(client: Any, server: Any) -> None:
    provisioner = await client.provisioner(server.server_provisioner)
    key = decrypt_key(provisioner, await client.encrypted_key(provisioner.kid), server.password)
    signer = TokenSigner(key, issuer=provisioner.name, url=server.url, clock=now, randomness=secrets.token_bytes)
    made = await request_server_certificate(
        client, signer, server.anchor, name="bridge.example.com", lifetime=LIFETIME, now=now()
    )
    assert made.names == ("bridge.example.com",)
    leaf = x509.load_pem_x509_certificates(made.chain_pem.encode())[0]
    assert leaf.not_valid_after_utc == made.not_after
    with pytest.raises(CaRefused) as caught:
        await request_server_certificate(
            client, signer, server.anchor, name="evil.example.com", lifetime=LIFETIME, now=now()
        )
    assert caught.value.status == 400
    assert "only localhost, bridge.example.com" in caught.value.upstream


async def test_attack_the_servers_key_makes_no_device(bench: Any, client: Any, make_device: Any, server: Any) -> None:
    provisioner = await client.provisioner(server.server_provisioner)
    key = decrypt_key(provisioner, await client.encrypted_key(provisioner.kid), server.password)
    device = make_device("dev-1")
    signer = TokenSigner(key, issuer=provisioner.name, url=server.url, clock=now, randomness=secrets.token_bytes)
    answer = await bench.sign(device, signer.for_sign("dev-1", device.der, device.serial))
    assert answer.status_code == 400


@pytest.mark.parametrize("prefix", ["", "/1.0"])
@pytest.mark.parametrize(
    ("path", "status", "keys"),
    [
        ("/health", 200, {"status"}),
        ("/version", 200, {"version"}),
        ("/roots", 201, {"crts"}),
        ("/intermediates", 201, {"crts"}),
        ("/provisioners", 200, {"provisioners", "nextCursor"}),
        ("/provisioners?limit=1", 200, {"provisioners", "nextCursor"}),
        ("/provisioners?limit=x", 400, {"status", "message"}),
        ("/provisioners/nobody/encrypted-key", 404, {"status", "message"}),
        (f"/root/{'0' * 64}", 404, {"status", "message"}),
    ],
)
async def test_the_same_shapes(
    http: httpx.AsyncClient, server: Any, prefix: str, path: str, status: int, keys: Any
) -> None:
    answer = await http.get(f"{server.url}{prefix}{path}")
    assert answer.status_code == status
    assert keys <= set(answer.json())
    assert answer.headers["content-type"] == "application/json"


async def test_root_and_pem_lists(http: httpx.AsyncClient, server: Any) -> None:
    answer = await http.get(f"{server.url}/root/{server.anchor.root_fingerprint}")
    assert answer.json() == {"ca": server.anchor.root_pem}
    assert (await http.get(f"{server.url}/roots.pem")).text == server.anchor.root_pem
    assert (await http.get(f"{server.url}/intermediates.pem")).text == server.anchor.chain_pem
    pem = (await http.get(f"{server.url}/1.0/crl?pem")).content
    assert x509.load_pem_x509_crl(pem).issuer == server.anchor.issuing_ca.subject


async def test_pages_of_one_hold_every_provisioner_once(http: httpx.AsyncClient, server: Any) -> None:
    names, cursor = [], ""
    while True:
        page = (await http.get(f"{server.url}/provisioners?limit=1&cursor={cursor}")).json()
        names += [one["name"] for one in page["provisioners"]]
        cursor = page["nextCursor"]
        if not cursor:
            break
    assert len(names) == len(set(names))
    assert {server.device_provisioner, server.server_provisioner} <= set(names)


async def test_unknown_paths_and_methods(http: httpx.AsyncClient, server: Any) -> None:
    assert (await http.get(f"{server.url}/nothing")).text == "404 page not found\n"
    assert (await http.get(f"{server.url}/1.0/sign")).status_code == 405
