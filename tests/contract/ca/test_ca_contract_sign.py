"""What both CAs sign and what both refuse: the same statuses and the same words."""

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ca.bootstrap import context_for
from ca.check import check_leaf
from ca.errors import CaRefused
from ca.models import new_serial

NEVER_WHY = (
    "The request lacked necessary authorization to be completed. "
    "Please see the certificate authority logs for more info."
)
FORBIDDEN = "The request was forbidden by the certificate authority: certificate request "
LIFETIME = timedelta(days=30)


def now() -> datetime:
    return datetime.now(UTC)


def message(answer: Any) -> str:
    body = answer.json()
    assert body["status"] == answer.status_code
    return str(body["message"])


async def test_signs_the_serial_we_chose_for_client_authentication_alone(
    bench: Any, client: Any, make_device: Any, server: Any
) -> None:
    device = make_device("dev-1")
    chain = await client.sign(device.pem, bench.tokens.for_sign("dev-1", device.der, device.serial), LIFETIME)
    leaf = check_leaf(chain, device.expected, server.anchor, now=now())
    assert leaf.serial == device.serial
    assert leaf.chain_pem == server.anchor.chain_pem
    parsed = x509.load_pem_x509_certificate(leaf.pem.encode())
    assert x509.ObjectIdentifier("1.3.6.1.4.1.37476.9000.64.1") in {e.oid for e in parsed.extensions}


@pytest.mark.parametrize("name", ["dev_1", "a..b", "a" * 64, "a-.b", "1.2.3", "Dev-1.", "DEV"])
async def test_names_that_are_no_host_names_are_signed_as_spelled(
    bench: Any, client: Any, make_device: Any, server: Any, name: str
) -> None:
    device = make_device(name)
    chain = await client.sign(device.pem, bench.tokens.for_sign(name, device.der, device.serial), LIFETIME)
    assert check_leaf(chain, device.expected, server.anchor, now=now()).serial == device.serial


@pytest.mark.parametrize("key", ["p384", "ed25519", "rsa"])
async def test_other_keys(bench: Any, client: Any, make_device: Any, server: Any, key: Any) -> None:
    make = {
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
    }
    if key == "ed25519":
        device = make_device("dev-1")  # the CSR builder wants no digest for Ed25519: built below
        device.key = make[key]()
        device.csr = x509.CertificateSigningRequestBuilder().subject_name(device.csr.subject).sign(device.key, None)
    else:
        device = make_device("dev-1", key=make[key]())
    chain = await client.sign(device.pem, bench.tokens.for_sign("dev-1", device.der, device.serial), LIFETIME)
    assert check_leaf(chain, device.expected, server.anchor, now=now()).serial == device.serial


async def test_an_address_becomes_an_ip_san(bench: Any, client: Any, make_device: Any) -> None:
    device = make_device("10.0.0.1")
    token = bench.tokens.for_sign("10.0.0.1", device.der, device.serial)
    chain = await client.sign(device.pem, token, LIFETIME)
    san = x509.load_pem_x509_certificate(chain.leaf_pem.encode()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert list(san.value) == [x509.IPAddress(ip_address("10.0.0.1"))]


async def test_a_repeated_serial_is_not_refused(bench: Any, client: Any, make_device: Any) -> None:
    first, second = make_device("dev-1"), make_device("dev-2", serial=new_serial(secrets.token_bytes))
    for device in (first, second):
        await client.sign(device.pem, bench.tokens.for_sign(device.name, device.der, first.serial), LIFETIME)


async def test_attack_token_used_twice(bench: Any, make_device: Any) -> None:
    device = make_device("dev-1")
    token = bench.tokens.for_sign("dev-1", device.der, device.serial)
    assert (await bench.sign(device, token)).status_code == 201
    again = await bench.sign(device, token)
    assert (again.status_code, message(again)) == (401, NEVER_WHY)


async def test_a_token_is_spent_before_the_csr_is_compared(bench: Any, make_device: Any) -> None:
    device, other = make_device("dev-1"), make_device("dev-1")
    token = bench.tokens.for_sign("dev-1", device.der, device.serial)
    assert (await bench.sign(other, token)).status_code == 403
    assert (await bench.sign(device, token)).status_code == 401


async def test_one_token_sent_sixteen_times_at_once_signs_once(bench: Any, make_device: Any) -> None:
    device = make_device("dev-1")
    token = bench.tokens.for_sign("dev-1", device.der, device.serial)
    answers = await asyncio.gather(*(bench.sign(device, token) for _ in range(16)))
    assert sorted(a.status_code for a in answers) == [201] + [401] * 15


async def test_attack_csr_swapped_under_the_token(bench: Any, make_device: Any) -> None:
    device, thief = make_device("dev-1"), make_device("dev-1")
    answer = await bench.sign(thief, bench.tokens.for_sign("dev-1", device.der, device.serial))
    assert answer.status_code == 403
    assert message(answer).startswith(FORBIDDEN + 'fingerprint does not match "')


async def test_attack_other_name(bench: Any, make_device: Any) -> None:
    thief = make_device("dev-2")
    answer = await bench.sign(thief, bench.tokens.for_sign("dev-1", thief.der, thief.serial))
    wanted = "does not contain the valid common name - got dev-2, want [dev-1 dev-1]."
    assert (answer.status_code, message(answer)) == (403, FORBIDDEN + wanted)


@pytest.mark.parametrize(
    ("sans", "words"),
    [
        (
            [x509.DNSName("dev-1"), x509.DNSName("evil")],
            "does not contain the valid DNS names - got [dev-1 evil], want [dev-1].",
        ),
        ([x509.DNSName("evil")], "does not contain the valid DNS names - got [evil], want [dev-1]."),
        (
            [x509.IPAddress(ip_address("10.0.0.1"))],
            "does not contain the valid IP addresses - got [10.0.0.1], want [].",
        ),
        (
            [x509.RFC822Name("a@b.example")],
            "does not contain the valid email addresses - got [a@b.example], want [].",
        ),
    ],
)
async def test_attack_extra_san(bench: Any, make_device: Any, sans: Any, words: str) -> None:
    thief = make_device("dev-1", sans=sans)
    answer = await bench.sign(thief, bench.tokens.for_sign("dev-1", thief.der, thief.serial))
    assert (answer.status_code, message(answer)) == (403, FORBIDDEN + words)


async def test_attack_no_serial_in_the_token(bench: Any, make_device: Any) -> None:
    device = make_device("dev-1")
    answer = await bench.sign(device, bench.forge({}, without=("serial",)))
    assert answer.status_code == 400
    assert "no serial" in message(answer)


async def test_weak_rsa_key(bench: Any, make_device: Any) -> None:
    device = make_device("dev-1", key=rsa.generate_private_key(65537, 1024))
    answer = await bench.sign(device, bench.tokens.for_sign("dev-1", device.der, device.serial))
    assert answer.status_code == 403
    assert message(answer).startswith(FORBIDDEN + "RSA key must be at least 2048 bits")


def _seconds(offset: int) -> int:
    return int(now().timestamp()) + offset


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param(lambda: {"iss": "somebody"}, id="issuer"),
        pytest.param(lambda: {"aud": "https://other.example/1.0/sign"}, id="audience"),
        pytest.param(lambda: {"aud": "https://localhost/1.0/revoke"}, id="audience of revoke"),
        pytest.param(lambda: {"sub": ""}, id="no subject"),
        pytest.param(lambda: {"exp": _seconds(-120), "iat": _seconds(0)}, id="expired"),
        pytest.param(lambda: {"nbf": _seconds(120)}, id="not yet"),
        pytest.param(lambda: {"iat": _seconds(-86400)}, id="before the CA's start"),
    ],
)
async def test_attack_bad_claims(bench: Any, make_device: Any, claims: Any) -> None:
    answer = await bench.sign(make_device("dev-1"), bench.forge(claims()))
    assert (answer.status_code, message(answer)) == (401, NEVER_WHY)


async def test_attack_forged_signature_and_foreign_kid(bench: Any, make_device: Any) -> None:
    device = make_device("dev-1")
    stranger = ec.generate_private_key(ec.SECP256R1())
    for token in (bench.forge({}, key=stranger), bench.forge({}, kid="nobody"), "garbage", "a.b.c"):
        answer = await bench.sign(device, token)
        assert (answer.status_code, message(answer)) == (401, NEVER_WHY)


async def test_attack_algorithm_none(bench: Any, make_device: Any) -> None:
    header, payload, _ = bench.forge({}).split(".")
    unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"
    for token in (f"{unsigned}.{payload}.", f"{header}.{payload}."):
        assert (await bench.sign(make_device("dev-1"), token)).status_code == 401


async def test_a_token_without_jti_is_single_use_too(bench: Any, make_device: Any) -> None:
    device = make_device("dev-1")
    token = bench.forge({}, without=("jti",))
    assert [(await bench.sign(device, token)).status_code for _ in range(2)] == [201, 401]


@pytest.mark.parametrize("aud", ["https://localhost/1.0/sign", "https://127.0.0.1:1/sign"])
async def test_ports_of_an_audience_do_not_count(bench: Any, make_device: Any, aud: str) -> None:
    assert (await bench.sign(make_device("dev-1"), bench.forge({"aud": aud}))).status_code == 201


@pytest.mark.parametrize("path", ["/1.0/sign", "/sign"])
@pytest.mark.parametrize("csr", ["", None, "garbage", 5, "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
async def test_garbage_csr(bench: Any, path: str, csr: Any) -> None:
    answer = await bench.post(path, {"csr": csr, "ott": bench.forge({}), "notAfter": "720h"})
    assert answer.status_code == 400
    wanted = "missing csr" if not csr else "error decoding json"
    assert message(answer) == f"The request could not be completed: {wanted}."


@pytest.mark.parametrize("body", ["", "[]", "null garbage", '{"csr":', "\x00"])
async def test_garbage_body(bench: Any, body: str) -> None:
    answer = await bench.http.post(f"{bench.server.url}/1.0/sign", content=body)
    assert answer.status_code == 400


async def test_missing_token(bench: Any, make_device: Any) -> None:
    answer = await bench.sign(make_device("dev-1"), "")
    assert (answer.status_code, message(answer)) == (400, "The request could not be completed: missing ott.")


async def test_broken_self_signature(bench: Any, make_device: Any) -> None:
    device = make_device("dev-1")
    signature = device.csr.signature
    broken = device.der.replace(signature[-8:], bytes(b ^ 0x55 for b in signature[-8:]))
    csr = x509.load_der_x509_csr(broken)
    pem = csr.public_bytes(Encoding.PEM).decode()
    answer = await bench.post("/1.0/sign", {"csr": pem, "ott": bench.forge({})})
    assert answer.status_code == 400
    assert message(answer) == "The request could not be completed: invalid csr."


@pytest.mark.parametrize(
    ("not_after", "status", "words"),
    [
        ("8761h", 403, "requested duration of 8761h1m0s is more than the authorized maximum"),
        ("1m", 403, "requested duration of 2m0s is less than the authorized minimum"),
        ("-1h", 400, "notAfter cannot be in the past"),
        ("soon", 400, "error decoding json"),
        (5, 400, "error decoding json"),
        ("8760h", 201, None),
        ("1h30m", 201, None),
        ("", 201, None),
    ],
)
async def test_durations(bench: Any, make_device: Any, not_after: Any, status: int, words: str) -> None:
    device = make_device("dev-1")
    token = bench.tokens.for_sign("dev-1", device.der, device.serial)
    answer = await bench.sign(device, token, notAfter=not_after)
    assert answer.status_code == status
    if words:
        assert words in message(answer)


async def test_rfc_3339_and_default_duration(bench: Any, make_device: Any) -> None:
    device = make_device("dev-1")
    until = (now() + timedelta(days=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
    for not_after, wanted in ((until, timedelta(days=3)), ("", timedelta(days=30))):
        answer = await bench.sign(device, bench.forge({}), notAfter=not_after)
        leaf = x509.load_pem_x509_certificate(answer.json()["crt"].encode())
        assert abs(leaf.not_valid_after_utc - now() - wanted) < timedelta(minutes=2)
        assert abs(now() - timedelta(minutes=1) - leaf.not_valid_before_utc) < timedelta(minutes=1)


async def test_the_answer_has_the_chain_in_order(bench: Any, make_device: Any, server: Any) -> None:
    answer = (await bench.sign(make_device("dev-1"), bench.forge({}))).json()
    chain = [x509.load_pem_x509_certificate(pem.encode()) for pem in answer["certChain"]]
    assert tuple(chain[1:]) == server.anchor.chain
    assert answer["crt"] == answer["certChain"][0]
    assert answer["ca"] == answer["certChain"][1]
    assert "tlsOptions" in answer


async def test_the_client_says_refused_and_keeps_the_message_for_the_log(
    bench: Any, client: Any, make_device: Any
) -> None:
    device, thief = make_device("dev-1"), make_device("dev-1")
    with pytest.raises(CaRefused) as caught:
        await client.sign(thief.pem, bench.tokens.for_sign("dev-1", device.der, device.serial), LIFETIME)
    assert caught.value.status == 403
    assert "fingerprint does not match" in caught.value.upstream
    assert "fingerprint" not in str(caught.value)
    assert "log" in caught.value.check


COULD_NOT = "The request could not be completed: "


@pytest.mark.parametrize(
    ("claims", "status", "words"),
    [
        ({"serial": ""}, 400, COULD_NOT + "no serial."),
        ({"serial": 0}, 400, COULD_NOT + "no serial."),
        ({"serial": "abc"}, 500, "error applying certificate template"),
        (
            {"serial": "-5"},
            500,
            (
                "The certificate authority encountered an Internal Server Error. "
                "Please see the certificate authority logs for more info."
            ),
        ),
        ({"cnf": {"x5rt#S256": "!!"}}, 403, FORBIDDEN[: -len("certificate request ")] + "error decoding fingerprint."),
        ({"cnf": "x"}, 401, NEVER_WHY),
        ({"sans": "dev-1"}, 401, NEVER_WHY),
        ({"sans": ["dev-1", 5]}, 401, NEVER_WHY),
    ],
)
async def test_odd_claims_in_the_same_words(bench: Any, make_device: Any, claims: Any, status: int, words: str) -> None:
    answer = await bench.sign(make_device("dev-1"), bench.forge(claims))
    assert (answer.status_code, message(answer)) == (status, words)


@pytest.mark.parametrize(
    ("claims", "serial"),
    [({"serial": 5}, 5), ({"serial": "0x10"}, 16), ({"serial": "010"}, 8), ({"sans": []}, None)],
)
async def test_odd_claims_that_are_signed(bench: Any, make_device: Any, claims: Any, serial: Any) -> None:
    answer = await bench.sign(make_device("dev-1"), bench.forge(claims))
    assert answer.status_code == 201
    leaf = x509.load_pem_x509_certificate(answer.json()["crt"].encode())
    assert serial in {None, leaf.serial_number}


@pytest.mark.parametrize("path", ["/1.0/renew", "/1.0/rekey", "/renew", "/rekey"])
async def test_attack_a_live_leaf_renews_nothing_at_the_ca(
    bench: Any, client: Any, make_device: Any, server: Any, tmp_path: Any, path: str
) -> None:
    device = make_device("dev-1")
    chain = await client.sign(device.pem, bench.tokens.for_sign("dev-1", device.der, device.serial), LIFETIME)
    files = tmp_path / "leaf.pem", tmp_path / "leaf.key"
    files[0].write_text(chain.leaf_pem + "".join(chain.issuer_pems))
    files[1].write_bytes(device.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    tls = context_for(server.anchor)
    tls.load_cert_chain(*files)
    async with httpx.AsyncClient(verify=tls) as http:
        answer = await http.post(server.url + path, json={"csr": device.pem})
    assert (answer.status_code, message(answer)) == (401, NEVER_WHY)
