"""Proofs that must not hold, at both doors: nothing is signed, nothing changes, and what was refused is counted."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm

from bridge.errors import BadProof
from bridge.model.identity import DeviceId, Fingerprint, WireGuardKey
from bridge.routes.proofs import Expected, read_proof
from enroll.wire import MAX_PROOF, PROOF_TYPE, Act, ProofClaims, WireError

Forge = Callable[[Any, dict[str, Any], Any], str]
"""From a device, the claims of a sound proof, and the key that may sign it, to an attack."""


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def segments(header: Any, payload: bytes) -> str:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return f"{b64(head)}.{b64(payload)}"


def signed(key: ec.EllipticCurvePrivateKey, text: str) -> str:
    """Sign as ES256 does."""
    return f"{text}.{b64(ECAlgorithm(ECAlgorithm.SHA256).sign(text.encode(), key))}"


def raw(header: Any, claims: Any, key: Any) -> str:
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return signed(key, segments(header, payload))


SOUND = {"typ": PROOF_TYPE, "alg": "ES256"}


def with_header(**changes: Any) -> Forge:
    """Sound but for its header; ``None`` leaves a member out."""
    header = {name: value for name, value in (SOUND | changes).items() if value is not None}
    return lambda _, claims, key: raw(header, claims, key)


def with_claims(**changes: Any) -> Forge:
    return lambda _, claims, key: raw(SOUND, claims | changes, key)


def by_hmac(algorithm: str) -> Forge:
    """Sign with what everybody knows as if it were a secret."""

    def forge(_device: Any, claims: dict[str, Any], key: Any) -> str:
        text = segments({"typ": PROOF_TYPE, "alg": algorithm}, json.dumps(claims).encode())
        secret = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return f"{text}.{b64(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"

    return forge


def own_key_in_header(member: str) -> Forge:
    """Sign with a key of the attacker's and recommend it."""

    def forge(_device: Any, claims: dict[str, Any], _key: Any) -> str:
        mine = ec.generate_private_key(ec.SECP256R1())
        jwk = json.loads(ECAlgorithm.to_jwk(mine.public_key()))
        value = {"jwk": jwk, "jku": "https://evil.example/keys", "kid": "../../keys/mine", "x5c": ["MIIB"]}[member]
        return raw(SOUND | {member: value}, claims, mine)

    return forge


def by_another_kind(key: Any, algorithm: str) -> Forge:
    def forge(device: Any, claims: dict[str, Any], _key: Any) -> str:
        return str(device.sign(claims, key, {"alg": algorithm}))

    return forge


def by_rsa_under_another_name(_device: Any, claims: dict[str, Any], _key: Any) -> str:
    key = rsa.generate_private_key(65537, 2048)
    text = segments(SOUND, json.dumps(claims).encode())
    return f"{text}.{b64(key.sign(text.encode(), padding.PKCS1v15(), SHA256()))}"


def twice(field: str) -> Forge:
    """Name a claim twice: whoever reads the first sees another request than who reads the last."""

    def forge(_device: Any, claims: dict[str, Any], key: Any) -> str:
        payload = json.dumps(claims)[:-1] + f", {json.dumps(field)}: {json.dumps(claims[field])}}}"
        return raw(SOUND, payload.encode(), key)

    return forge


def changed_after_signing(_device: Any, claims: dict[str, Any], key: Any) -> str:
    header, _, signature = raw(SOUND, claims | {"device_id": "other"}, key).split(".")
    return f"{header}.{b64(json.dumps(claims).encode())}.{signature}"


def respelled(_device: Any, claims: dict[str, Any], key: Any) -> str:
    """Another text for the same signature octets: the unused bits of the last character are set."""
    text = raw(SOUND, claims, key)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]


def cut(_device: Any, claims: dict[str, Any], key: Any) -> str:
    return raw(SOUND, claims, key)[:-4]


def without_signature(_device: Any, claims: dict[str, Any], key: Any) -> str:
    return raw(SOUND, claims, key).rpartition(".")[0] + "."


def padded(_device: Any, claims: dict[str, Any], key: Any) -> str:
    return raw(SOUND, claims, key) + "=="


def without(field: str) -> Forge:
    return lambda _, claims, key: raw(SOUND, {k: v for k, v in claims.items() if k != field}, key)


HEX = "0" * 64
WG_KEY = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="
ATTACKS: dict[str, Forge] = {
    "alg none": lambda _, claims, _key: segments({"typ": PROOF_TYPE, "alg": "none"}, json.dumps(claims).encode()) + ".",
    "alg none with a signature": with_header(alg="none"),
    "alg None": with_header(alg="None"),
    "no alg": with_header(alg=None),
    "alg is a list": with_header(alg=["ES256"]),
    "HS256 with the public key": by_hmac("HS256"),
    "HS512 with the public key": by_hmac("HS512"),
    "an HMAC that says ES256": by_hmac("ES256"),
    "alg of another kind of key": with_header(alg="PS256"),
    "alg of another curve": with_header(alg="ES384"),
    "RSA that says ES256": by_rsa_under_another_name,
    "another device's key": by_another_kind(ec.generate_private_key(ec.SECP256R1()), "ES256"),
    "another kind of key": by_another_kind(ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    "RS256": by_another_kind(rsa.generate_private_key(65537, 2048), "RS256"),
    "jwk": own_key_in_header("jwk"),
    "jku": own_key_in_header("jku"),
    "kid": own_key_in_header("kid"),
    "x5c": own_key_in_header("x5c"),
    "typ JWT": with_header(typ="JWT"),
    "typ in capitals": with_header(typ=PROOF_TYPE.upper()),
    "typ as a media type": with_header(typ=f"application/{PROOF_TYPE}"),
    "no typ": with_header(typ=None),
    "crit": with_header(crit=["exp"], exp=1),
    "b64 false": with_header(b64=False, crit=["b64"]),
    "header is a list": lambda _, claims, key: raw(b'["ES256"]', claims, key),
    "header names alg twice": lambda _, claims, key: raw(
        f'{{"typ":"{PROOF_TYPE}","alg":"none","alg":"ES256"}}'.encode(), claims, key
    ),
    "another bridge": with_claims(aud=HEX),
    "several audiences": lambda _, claims, key: raw(SOUND, claims | {"aud": [claims["aud"]]}, key),
    "aud in capitals": lambda _, claims, key: raw(SOUND, claims | {"aud": claims["aud"].upper()}, key),
    "no such act": with_claims(act="reset"),
    "another device id": with_claims(device_id="pump-8"),
    "another spelling": with_claims(device_id="PUMP-7"),
    "a WireGuard key that the request has not": with_claims(wg_public_key=WG_KEY),
    "a leaf that is nobody's": with_claims(leaf=HEX),
    "leaf in capitals": lambda _, claims, key: raw(SOUND, claims | {"leaf": claims["leaf"].upper()}, key),
    "an unknown claim": with_claims(exp=1),
    "claims are null": lambda _, _claims, key: raw(SOUND, b"null", key),
    "claims are nested without end": lambda _, _claims, key: raw(SOUND, b"[" * 2000, key),
    "claims are no JSON": lambda _, _claims, key: raw(SOUND, b"{'act': 1}", key),
    "claims hold NaN": lambda _, claims, key: raw(SOUND, json.dumps(claims | {"leaf": float("nan")}).encode(), key),
    "claims are no UTF-8": lambda _, _claims, key: raw(SOUND, b'{"act": "\xff"}', key),
    "too long": with_claims(more="x" * MAX_PROOF),
    "changed after signing": changed_after_signing,
    "signature respelled": respelled,
    "signature cut": cut,
    "without signature": without_signature,
    "padded": padded,
    "blank behind": lambda _, claims, key: raw(SOUND, claims, key) + "\n",
    "four parts": lambda _, claims, key: raw(SOUND, claims, key) + ".AA",
    "no JWS": lambda *_: "a proof",
    "JSON serialisation": lambda _, claims, key: json.dumps({"payload": raw(SOUND, claims, key)}),
    **{f"{field} twice": twice(field) for field in ProofClaims.__slots__},
    **{f"without {field}": without(field) for field in ProofClaims.__slots__},
}


async def nothing_changed(device: Any, act: Callable[[], Awaitable[Any]]) -> Any:
    """Do it, and compare every row of every table."""

    def rows() -> list[Any]:
        with device.house.registry.engine.connect() as connection:
            names = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()
            return [connection.exec_driver_sql(f"SELECT * FROM {name}").all() for name in sorted(names)]

    before, signed_before = rows(), device.house.ca.signed
    answer = await act()
    assert rows() == before
    assert device.house.ca.signed == signed_before
    return answer


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_renewal_by_it_is_one_without_proof(pump: Any, attack: str) -> None:
    await pump.enroll()
    pump.next_key = ec.generate_private_key(ec.SECP256R1())
    csr = pump.make_csr(pump.name, key=pump.next_key)
    proof = ATTACKS[attack](pump, pump.claims(Act.RENEW, csr), pump.key)
    answer = await nothing_changed(pump, lambda: pump.renew(proof, csr_pem=csr))
    assert (answer.status_code, answer.json()["code"]) == (409, "identity_exists")
    assert pump.house.counted("iot_bridge_refused_proofs_total") == 1
    assert pump.house.counted("iot_bridge_enrollments_total", outcome="identity_exists") == 1
    # The same request with a sound proof: it was the proof.
    sound = pump.sign(pump.claims(Act.RENEW, csr))
    assert (await pump.renew(sound, csr_pem=csr)).status_code == 201


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_activation_by_it_is_a_bad_request(pump: Any, attack: str) -> None:
    await pump.enroll()
    await pump.renew()
    proof = ATTACKS[attack](pump, pump.claims(Act.ACTIVATE), pump.next_key)
    answer = await nothing_changed(pump, lambda: pump.activate(proof))
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_request")
    assert pump.house.counted("iot_bridge_activations_total", outcome="bad_request") == 1
    assert proof[-20:] not in answer.text
    assert (await pump.activate()).status_code == 200


@pytest.mark.parametrize("text", ["ES256", "HIGH", "é", "\udcff"])
async def test_text_that_is_no_ascii_is_no_proof(pump: Any, text: str) -> None:
    with pytest.raises(BadProof):
        read_proof(text, Expected(Act.RENEW, DeviceId("pump-7"), None, None), Fingerprint(pump.root))


async def test_header_members_about_keys_change_nothing_where_the_right_key_signed(pump: Any) -> None:
    await pump.enroll()
    await pump.renew()
    more = {"jwk": {"kty": "oct", "k": "AA"}, "jku": 7, "kid": ["x"], "x5c": None, "x5u": "file:///etc/passwd"}
    proof = raw(SOUND | more, pump.claims(Act.ACTIVATE), pump.next_key)
    assert (await pump.activate(proof)).status_code == 200


# -- replays -----------------------------------------------------------------------------------------------------
async def test_a_proof_is_for_one_csr(pump: Any) -> None:
    await pump.enroll()
    csr = pump.make_csr(pump.name)
    seen = pump.sign(pump.claims(Act.RENEW, csr))
    thief = await nothing_changed(pump, lambda: pump.renew(seen))
    assert thief.json()["code"] == "identity_exists"
    assert (await pump.renew(seen, csr_pem=csr)).status_code == 201


async def test_a_proof_is_dead_when_its_leaf_is_no_longer_current(pump: Any) -> None:
    await pump.enroll()
    csr = pump.make_csr(pump.name)
    unused = pump.sign(pump.claims(Act.RENEW, csr))
    await pump.renew()
    await pump.activate()
    late = await nothing_changed(pump, lambda: pump.renew(unused, csr_pem=csr))
    assert (late.status_code, late.json()["code"]) == (409, "identity_exists")
    # Its signature holds, so it is not counted as a forged one; it names a leaf that proves nothing any more.
    assert pump.house.counted("iot_bridge_refused_proofs_total") == 0


async def test_the_superseded_key_proves_nothing_and_activates_nothing(pump: Any) -> None:
    await pump.enroll()
    await pump.renew()
    await pump.activate()
    back = pump.sign(pump.claims(Act.ACTIVATE, leaf=pump.leaf))
    answer = await nothing_changed(pump, lambda: pump.activate(back))
    assert (answer.status_code, answer.json()["code"]) == (409, "superseded")


async def test_a_pending_leaf_renews_nothing(pump: Any) -> None:
    await pump.enroll()
    await pump.renew()
    pending, csr = pump.next_key, pump.make_csr(pump.name)
    proof = pump.sign(pump.claims(Act.RENEW, csr, leaf=pump.next_leaf), pending)
    answer = await nothing_changed(pump, lambda: pump.renew(proof, csr_pem=csr))
    assert (answer.status_code, answer.json()["code"]) == (409, "identity_exists")


async def test_the_current_key_does_not_activate_the_pending_leaf(pump: Any) -> None:
    await pump.enroll()
    await pump.renew()
    proof = pump.sign(pump.claims(Act.ACTIVATE), pump.key)
    answer = await nothing_changed(pump, lambda: pump.activate(proof))
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_request")


@pytest.mark.parametrize("act", Act)
async def test_a_proof_of_one_act_is_none_of_the_other(pump: Any, act: Act) -> None:
    await pump.enroll()
    csr = pump.make_csr(pump.name)
    await pump.renew()
    if act is Act.RENEW:
        proof = pump.sign(pump.claims(Act.RENEW, csr, leaf=pump.next_leaf), pump.next_key)
        assert (await pump.activate(proof)).json()["code"] == "bad_request"
    else:
        proof = pump.sign(pump.claims(Act.ACTIVATE, leaf=pump.leaf))
        answer = await nothing_changed(pump, lambda: pump.renew(proof, csr_pem=csr))
        assert answer.json()["code"] == "identity_exists"


async def test_another_devices_leaf_and_key_prove_nothing_for_this_one(pump: Any, new_csr: Any) -> None:
    await pump.enroll()
    other = type(pump)(pump.house, "pump-8", new_csr)
    await other.enroll()
    csr = pump.make_csr(pump.name)
    for device_id in ("pump-7", "pump-8"):
        proof = other.sign(pump.claims(Act.RENEW, csr, leaf=other.leaf, device_id=device_id))
        answer = await nothing_changed(pump, lambda p=proof: pump.renew(p, csr_pem=csr))
        assert answer.json()["code"] == "identity_exists"
    await other.renew()
    proof = other.sign(other.claims(Act.ACTIVATE, device_id="pump-7"), other.next_key)
    assert (await nothing_changed(pump, lambda: pump.activate(proof))).json()["code"] == "bad_request"


async def test_after_a_reenrollment_the_earlier_generation_proves_nothing(pump: Any) -> None:
    await pump.enroll()
    csr, old = pump.make_csr(pump.name), pump.sign
    proof = old(pump.claims(Act.RENEW, csr))
    now = pump.house.clock.now()
    await pump.house.registry.write(lambda tx: tx.tombstone(DeviceId(pump.name), now))
    await pump.house.registry.write(lambda tx: tx.reinstate(DeviceId(pump.name), now))
    pump.next_key = None
    await pump.enroll()
    answer = await nothing_changed(pump, lambda: pump.renew(proof, csr_pem=csr))
    assert answer.json()["code"] == "identity_exists"


# -- the reader, by itself ---------------------------------------------------------------------------------------
EXPECTED = Expected(Act.RENEW, DeviceId("pump-7"), Fingerprint(HEX), WireGuardKey(WG_KEY))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,200}\.[A-Za-z0-9_-]{0,90}", fullmatch=True))
def test_whatever_is_sent_is_refused_in_one_way(text: str) -> None:
    with pytest.raises(BadProof):
        read_proof(text, EXPECTED, Fingerprint(HEX))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(HEX),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(ProofClaims.__slots__) | st.text(max_size=4), json_values, max_size=8) | json_values
)
def test_claims_are_exactly_the_agreed_ones_or_refused(said: Any) -> None:
    try:
        claims = ProofClaims.from_json(said)
    except WireError:
        return
    assert claims.to_json() == said
