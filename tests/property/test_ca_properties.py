"""Laws of the CA's package that hold for every input."""

import json
from base64 import b64encode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.answers import certificates, provisioners, signed_chain
from ca.check import Expected, check_leaf
from ca.errors import CaBadAnswer
from ca.models import MAX_SERIAL, Fingerprint, SignedChain, check_serial, new_serial
from ca.standin.durations import parse
from ca.standin.hierarchy import make_hierarchy
from ca.standin.refusals import Refusal
from ca.standin.signing import Signer, Wish
from ca.standin.store import Store
from ca.standin.tokens import TokenJudge
from ca.template import go_duration, server_template

NOW = datetime.now(UTC).replace(microsecond=0)
PKI = make_hierarchy(NOW)
SIGNER = Signer(PKI)
KEY = PKI.root.key.public_key()  # any key will do
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.from_regex(r"\A[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?\Z").filter(
    lambda name: not name.replace(".", "").isdigit()
)


@given(st.binary(min_size=32, max_size=32))
def test_a_fingerprint_reads_what_it_writes(digest: bytes) -> None:
    colons = ":".join(f"{octet:02X}" for octet in digest)
    assert Fingerprint.parse(colons) == Fingerprint.parse(digest.hex()) == Fingerprint(digest.hex())


@given(st.text(max_size=100))
def test_a_fingerprint_is_64_digits_or_an_error(text: str) -> None:
    try:
        assert len(Fingerprint.parse(text).value) == 64
    except ValueError as error:
        assert "fingerprint" in str(error)  # noqa: PT017 - either outcome is right


@given(st.binary(min_size=20, max_size=20))
def test_serials_are_positive_and_of_twenty_octets(octets: bytes) -> None:
    serial = new_serial(lambda _n: octets)
    assert 2**158 <= check_serial(serial) <= MAX_SERIAL


@given(st.integers(min_value=0, max_value=10**9))
def test_durations_come_back(seconds: int) -> None:
    assert parse(go_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@given(JSON)
def test_any_json_is_an_answer_or_a_bad_answer(value: Any) -> None:
    answer = value if isinstance(value, dict) else {"certChain": value, "crts": value, "provisioners": value}
    for read in (signed_chain, certificates, provisioners):
        try:
            read(answer)
        except CaBadAnswer as error:
            assert error.check  # noqa: PT017 - either outcome is right


@given(st.text(max_size=60))
def test_no_name_breaks_out_of_a_template(name: str) -> None:
    try:
        text = server_template((name,))
    except ValueError:
        return
    assert text.count('"') == server_template(("a",)).count('"')
    assert text.count("}}") == server_template(("a",)).count("}}")


@settings(max_examples=40, deadline=None)
@given(NAMES, st.integers(min_value=1, max_value=MAX_SERIAL))
def test_what_the_embedded_ca_signs_passes_the_check(name: str, serial: int) -> None:
    end = NOW + timedelta(days=30)
    wish = Wish(name, (name,), KEY, NOW - timedelta(minutes=1), end, "p", "k")
    leaf = SIGNER.device(wish, {"serial": str(serial)})
    spki = KEY.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    chain = SignedChain(leaf.public_bytes(Encoding.PEM).decode(), SIGNER.chain_pems)
    checked = check_leaf(chain, Expected(name, spki, serial, timedelta(days=30)), PKI.anchor, now=NOW)
    assert checked.serial == serial


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_leaf_with_one_flipped_bit_never_passes() -> None:
    """Every bit, not a sample; parse errors included, nothing but CaBadAnswer comes out.

    The one octet around the signature that nobody signs (unused bits of its BIT STRING) may change nothing signed.
    """
    serial = 2**158
    wish = Wish("dev-1", ("dev-1",), KEY, NOW - timedelta(minutes=1), NOW + timedelta(days=30), "p", "k")
    good = SIGNER.device(wish, {"serial": str(serial)}).public_bytes(Encoding.DER)
    spki = KEY.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    expected = Expected("dev-1", spki, serial, timedelta(days=30))
    check_leaf(SignedChain(_pem(good), SIGNER.chain_pems), expected, PKI.anchor, now=NOW)
    for bit in range(len(good) * 8):
        der = bytearray(good)
        der[bit // 8] ^= 1 << bit % 8
        try:
            passed = check_leaf(SignedChain(_pem(bytes(der)), SIGNER.chain_pems), expected, PKI.anchor, now=NOW)
        except CaBadAnswer:
            continue
        except Exception as error:
            raise AssertionError(f"bit {bit}: {error!r}") from error
        assert _signed_part(passed.der) == _signed_part(good), f"bit {bit} passed"


def _signed_part(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).tbs_certificate_bytes


def _pem(der: bytes) -> str:
    text = b64encode(der).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])


def _token(header: Any, payload: Any) -> str:
    parts = [urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=").decode() for one in (header, payload)]
    return ".".join([*parts, "c2ln"])


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=40) | st.builds(_token, JSON, JSON))
def test_any_token_is_judged_and_never_crashes(token: str) -> None:
    store = Store.__new__(Store)  # no known provisioner: the store is never reached
    judge = TokenJudge((), ("localhost",), store, lambda: NOW)
    with pytest.raises(Refusal) as caught:
        judge.judge(token, "sign")
    assert caught.value.status == 401


def test_the_embedded_names_are_the_pictures() -> None:
    subjects = [one.subject.rfc4514_string() for one in (PKI.anchor.root, *reversed(PKI.anchor.chain))]
    assert subjects == ["CN=Provider Root CA", "CN=Intermediate CA", "CN=Tenant Sub-CA"]
    assert isinstance(PKI.anchor.root, x509.Certificate)
