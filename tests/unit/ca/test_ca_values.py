"""Models, answers, template and revocation list: what they take and what they refuse."""

from base64 import b64encode
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from ca.answers import certificates, provisioners
from ca.crl import parse_crl
from ca.errors import CaBadAnswer, CaMisconfigured
from ca.models import Fingerprint, Provisioner, SignedChain, check_serial, new_serial
from ca.standin.signing import Signer
from ca.standin.store import Revoked
from ca.template import (
    DEVICE_TEMPLATE,
    device_template,
    go_duration,
    judge,
    provisioner_entry,
    require_ours,
    server_template,
)

OURS = Provisioner("iot-bridge", "kid", {}, template=DEVICE_TEMPLATE, disable_renewal=True)


def test_fingerprints_as_people_paste_them() -> None:
    plain = "ab" * 32
    colons = ":".join(["AB"] * 32)
    assert {Fingerprint.parse(text).value for text in (plain, plain.upper(), colons, f" {plain}\n")} == {plain}


@pytest.mark.parametrize("text", ["", "ab", "ab" * 31 + "zz", "ab" * 33, ":".join(["ab"] * 31), "a:b" * 32, "ab:" * 32])
def test_what_is_no_fingerprint(text: str) -> None:
    with pytest.raises(ValueError, match="fingerprint"):
        Fingerprint.parse(text)


def test_fingerprint_values_are_canonical() -> None:
    with pytest.raises(ValueError, match="lower-case"):
        Fingerprint("AB" * 32)


def test_new_serials_have_twenty_octets() -> None:
    for octets in (b"\x00" * 20, b"\xff" * 20):
        serial = check_serial(new_serial(lambda _n, o=octets: o))
        assert (serial.bit_length() + 7) // 8 == 20


def test_a_chain_needs_an_issuer() -> None:
    with pytest.raises(ValueError, match="issuer"):
        SignedChain("leaf", ())


def test_the_answers_of_old_and_odd_provisioners() -> None:
    key = {"kty": "EC", "kid": "k"}
    page = {
        "provisioners": [
            {"type": "ACME", "name": "acme"},
            {"type": "JWK", "name": "bare", "key": key},
            {
                "type": "JWK",
                "name": "base64",
                "key": key,
                "encryptedKey": "jwe",
                "claims": {"disableRenewal": True, "maxTLSCertDuration": "1h30m0s"},
                "options": {"x509": {"template": b64encode(DEVICE_TEMPLATE.encode()).decode()}},
            },
            {"type": "JWK", "name": "file", "key": key, "options": {"x509": {"templateFile": "/x"}}},
            {"type": "JWK", "name": "odd", "key": key, "claims": None, "options": {"x509": None}},
        ],
        "nextCursor": "next",
    }
    (bare, encoded, file, odd), cursor = provisioners(page)
    assert cursor == "next"
    assert (bare.template, bare.disable_renewal, bare.max_duration) == (None, False, None)
    assert encoded.template == DEVICE_TEMPLATE
    assert encoded.max_duration == timedelta(minutes=90)
    assert "jwe" not in repr(encoded)
    assert judge(encoded) == ()
    assert file.template is None
    assert odd.template is None


@pytest.mark.parametrize(
    "page",
    [
        {"provisioners": 5},
        {"provisioners": [], "nextCursor": 5},
        {"provisioners": [{"type": "JWK"}]},
        {"provisioners": [{"type": "JWK", "name": "x", "key": {}}]},
    ],
)
def test_pages_that_make_no_sense(page: dict[str, Any]) -> None:
    with pytest.raises(CaBadAnswer):
        provisioners(page)


@pytest.mark.parametrize("answer", [{}, {"crts": []}, {"crts": "x"}, {"crts": [5]}, {"crts": ["x"] * 65}])
def test_lists_of_certificates_that_are_none(answer: dict[str, Any]) -> None:
    with pytest.raises(CaBadAnswer):
        certificates(answer)


def test_ours_is_ours_whatever_its_blanks() -> None:
    assert judge(OURS) == ()
    assert judge(replace(OURS, template="  " + DEVICE_TEMPLATE.replace("\n", "\r\n\t"))) == ()


@pytest.mark.parametrize(
    ("change", "what", "line"),
    [
        ({"template": None}, "no readable certificate template", '"template": "{\\n  \\"subject\\"'),
        ({"template": "{}"}, "is not the bridge's", '"template": "{\\n  \\"subject\\"'),
        ({"template": DEVICE_TEMPLATE.replace("clientAuth", "serverAuth")}, "is not the bridge's", "clientAuth"),
        ({"disable_renewal": False}, "without asking the bridge", '"claims": {"disableRenewal": true}'),
    ],
)
def test_a_provisioner_that_is_not_ours_is_refused_with_the_lines_to_add(
    change: dict[str, Any], what: str, line: str
) -> None:
    with pytest.raises(CaMisconfigured, match=what) as caught:
        require_ours(replace(OURS, **change))
    assert line in caught.value.check
    assert "STEP_CA_PROFILE=plain" in caught.value.check


def test_every_problem_is_told_at_once() -> None:
    bare = Provisioner("p", "k", {}, max_duration=timedelta(hours=24))
    assert len(judge(bare, lifetime=timedelta(days=90))) == 3


@pytest.mark.parametrize("names", [(), ("a b",), ('x"}}',), ("",), ("-a",), ("a\n",)])
def test_attack_a_server_name_that_breaks_out_of_its_quotes(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="host name"):
        server_template(names)


def test_an_entry_without_encrypted_key_publishes_none() -> None:
    entry = provisioner_entry("p", {"kid": "k"}, device_template())
    assert "encryptedKey" not in entry
    assert entry["claims"]["disableRenewal"] is True
    assert provisioner_entry("p", {}, "t", encrypted_key="jwe")["encryptedKey"] == "jwe"


def test_durations_as_go_reads_them() -> None:
    assert [go_duration(timedelta(**x)) for x in ({"days": 30}, {"seconds": 90}, {"minutes": 90})] == [
        "720h",
        "90s",
        "5400s",
    ]


def _crl(hierarchy: Any, now: datetime, *extensions: tuple[x509.ExtensionType, bool]) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(hierarchy.issuing.certificate.subject)
        .last_update(now)
        .next_update(now + timedelta(days=1))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(hierarchy.issuing.key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_a_list_of_the_issuing_ca(hierarchy: Any, now: datetime) -> None:
    der = Signer(hierarchy).crl([Revoked(5, now, 1), Revoked(2**150, now, 0)], 9, now, "https://x/1.0/crl")
    crl = parse_crl(der, hierarchy.issuing.certificate)
    assert crl.serials == {5, 2**150}
    assert crl.number == 9
    assert crl.is_fresh(now)
    assert parse_crl(_crl(hierarchy, now), hierarchy.issuing.certificate).number is None


def test_attack_a_list_that_covers_only_a_part(hierarchy: Any, now: datetime) -> None:
    def point(**only: Any) -> x509.IssuingDistributionPoint:
        nothing = {
            "full_name": None,
            "relative_name": None,
            "only_contains_user_certs": False,
            "only_contains_ca_certs": False,
            "only_some_reasons": None,
            "indirect_crl": False,
            "only_contains_attribute_certs": False,
        }
        return x509.IssuingDistributionPoint(**(nothing | only))

    issuer = hierarchy.issuing.certificate
    parse_crl(_crl(hierarchy, now, (point(only_contains_user_certs=True), True)), issuer)
    for extension in (
        point(only_contains_ca_certs=True),
        point(only_some_reasons=frozenset([x509.ReasonFlags.key_compromise])),
        point(indirect_crl=True),
        x509.DeltaCRLIndicator(1),
    ):
        with pytest.raises(CaBadAnswer, match="only some"):
            parse_crl(_crl(hierarchy, now, (extension, True)), issuer)


def test_attack_lists_that_are_not_believed(hierarchy: Any, now: datetime, forge: Any) -> None:
    good = Signer(hierarchy).crl([Revoked(5, now, 1)], 1, now, "https://x/1.0/crl")
    flipped = good.replace(good[-8:], bytes(b ^ 0x55 for b in good[-8:]))
    for der in (flipped, b"", b"<html>"):
        with pytest.raises(CaBadAnswer):
            parse_crl(der, hierarchy.issuing.certificate)
    with pytest.raises(CaBadAnswer, match="not signed"):
        parse_crl(good, forge.other_tenant().certificate)
