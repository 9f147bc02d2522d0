"""What came back from the CA: every fault is found and named."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from ca.check import check_leaf
from ca.errors import CaBadAnswer
from ca.models import Fingerprint, SignedChain, TrustAnchor
from ca.standin.hierarchy import make_authority, make_hierarchy

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


def failed(forge: Any, chain: SignedChain, **options: Any) -> str:
    with pytest.raises(CaBadAnswer) as caught:
        check_leaf(
            chain,
            options.get("expected", forge.expected),
            options.get("anchor", forge.hierarchy.anchor),
            now=options.get("now", forge.now),
        )
    assert caught.value.check
    return caught.value.failed


def test_a_good_leaf(forge: Any) -> None:
    leaf = forge.leaf()
    checked = check_leaf(forge.chain(leaf), forge.expected, forge.hierarchy.anchor, now=forge.now)
    assert checked.der == leaf.public_bytes(Encoding.DER)
    assert checked.fingerprint == Fingerprint.of(leaf)
    assert checked.serial == forge.serial
    assert checked.issuer == forge.hierarchy.anchor.issuing_fingerprint
    assert checked.chain_pem == forge.hierarchy.anchor.chain_pem
    assert checked.not_after == leaf.not_valid_after_utc
    assert len(checked.spki_sha256) == 64


def test_a_root_at_the_end_of_the_chain_is_dropped(forge: Any) -> None:
    anchor = forge.hierarchy.anchor
    chain = forge.chain(None, *anchor.chain, anchor.root)
    assert check_leaf(chain, forge.expected, anchor, now=forge.now).chain_pem == anchor.chain_pem


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ({"names": ["dev-2"]}, "cn"),
        ({"names": ["DEV-1"]}, "cn"),
        ({"names": ["dev-1", "dev-1"]}, "cn"),
        ({"names": []}, "cn"),
        ({"serial": 5}, "serial"),
        ({"san": None}, "san"),
        ({"san": [x509.DNSName("dev-2")]}, "san"),
        ({"san": [x509.DNSName("dev-1"), x509.DNSName("evil")]}, "san"),
        ({"san": [x509.DNSName("dev-1"), x509.DNSName("dev-1")]}, "san"),
        ({"san": [x509.RFC822Name("dev-1")]}, "san"),
        ({"eku": [CLIENT, SERVER]}, "eku"),
        ({"eku": [SERVER]}, "eku"),
        ({"eku": []}, "eku"),
        ({"eku": [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]}, "eku"),
        ({"usage": None}, "key_usage"),
        ({"extensions": [(x509.BasicConstraints(ca=True, path_length=None), True)]}, "basic_constraints"),
        (
            {"extensions": [(x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)]},
            "extension",
        ),
    ],
)
def test_attack_leaf_with_one_fault(forge: Any, fault: dict[str, Any], word: str) -> None:
    assert failed(forge, forge.chain(forge.leaf(**fault))) == word


def test_attack_leaf_that_may_sign_certificates(forge: Any, usage: Any) -> None:
    assert failed(forge, forge.chain(forge.leaf(usage=usage(cert=True)))) == "key_usage"
    assert failed(forge, forge.chain(forge.leaf(usage=usage(sign=False)))) == "key_usage"


def test_ca_false_and_unknown_extensions_that_are_not_critical_pass(forge: Any) -> None:
    extensions = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00"), False),
    ]
    check_leaf(forge.chain(forge.leaf(extensions=extensions)), forge.expected, forge.hierarchy.anchor, now=forge.now)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (timedelta(hours=-2), timedelta(days=30)),
        (timedelta(minutes=10), timedelta(days=30)),
        (timedelta(minutes=-1), timedelta(days=31)),
        (timedelta(minutes=-1), timedelta(days=29)),
        (timedelta(minutes=-2), timedelta(minutes=-1)),
    ],
)
def test_attack_validity(forge: Any, begin: timedelta, end: timedelta) -> None:
    leaf = forge.leaf(begin=forge.now + begin, end=forge.now + end)
    assert failed(forge, forge.chain(leaf)) == "validity"


def test_attack_another_key(forge: Any) -> None:
    leaf = forge.leaf(key=ec.generate_private_key(ec.SECP256R1()))
    assert failed(forge, forge.chain(leaf)) == "key"


def test_attack_another_tenants_sub_ca_under_the_same_root(forge: Any) -> None:
    other = forge.other_tenant()
    leaf = forge.leaf(issuer=other)
    assert failed(forge, forge.chain(leaf, other.certificate, *forge.hierarchy.anchor.intermediates)) == "issuer"
    assert failed(forge, forge.chain(leaf)) == "issuer"


def test_attack_issued_by_the_intermediate_itself(forge: Any) -> None:
    leaf = forge.leaf(issuer=forge.hierarchy.intermediate)
    assert failed(forge, forge.chain(leaf)) == "issuer"
    assert failed(forge, forge.chain(leaf, *forge.hierarchy.anchor.intermediates)) == "issuer"


def test_attack_right_name_wrong_signature(forge: Any) -> None:
    leaf = forge.leaf(signer=ec.generate_private_key(ec.SECP256R1()))
    assert failed(forge, forge.chain(leaf)) == "issuer"


def test_attack_another_root_with_the_same_names(forge: Any) -> None:
    twin = make_hierarchy(forge.now)
    leaf = forge.leaf(issuer=twin.issuing)
    assert failed(forge, forge.chain(leaf, *twin.anchor.chain)) == "issuer"
    mixed = TrustAnchor(twin.root.certificate, forge.hierarchy.issuing.certificate, ())
    assert failed(forge, forge.chain(), anchor=mixed) == "chain"


@pytest.mark.parametrize("issuers", ["missing", "swapped", "doubled", "stranger"])
def test_attack_chain_incomplete_or_out_of_order(forge: Any, issuers: str) -> None:
    issuing, intermediate = forge.hierarchy.anchor.chain
    stranger = make_authority("Stranger", None, 2, forge.now, 1).certificate
    listed = {
        "missing": [issuing],
        "swapped": [intermediate, issuing],
        "doubled": [issuing, intermediate, intermediate],
        "stranger": [issuing, intermediate, stranger],
    }[issuers]
    assert failed(forge, forge.chain(None, *listed)) in {"chain", "issuer"}


def test_attack_expired_chain(forge: Any) -> None:
    later = forge.now + timedelta(days=365 * 11)
    leaf = forge.leaf(begin=later - timedelta(minutes=1), end=later + timedelta(days=30))
    assert failed(forge, forge.chain(leaf), now=later) == "chain"
    earlier = forge.now - timedelta(days=365)
    leaf = forge.leaf(begin=earlier - timedelta(minutes=1), end=earlier + timedelta(days=30))
    assert failed(forge, forge.chain(leaf), now=earlier) == "chain"


def test_attack_intermediate_that_may_not_sign(forge: Any) -> None:
    shallow = make_authority("Shallow", forge.hierarchy.root, 0, forge.now, 5)
    below = make_authority("Below", shallow, 0, forge.now, 5)
    anchor = TrustAnchor(forge.hierarchy.root.certificate, below.certificate, (shallow.certificate,))
    chain = forge.chain(forge.leaf(issuer=below), below.certificate, shallow.certificate)
    assert failed(forge, chain, anchor=anchor) == "chain"


@pytest.mark.parametrize("text", ["", "garbage", "two", "empty"])
def test_attack_pem(forge: Any, text: str) -> None:
    good = forge.chain()
    leaf = {
        "two": good.leaf_pem * 2,
        "empty": "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
    }.get(text, text or "-")
    assert failed(forge, SignedChain(leaf, good.issuer_pems)) == "pem"
    assert failed(forge, SignedChain(good.leaf_pem, (leaf,))) == "pem"


def test_text_around_the_leaf_is_not_delivered(forge: Any) -> None:
    chain = forge.chain()
    padded = SignedChain(f"# remark\n{chain.leaf_pem}# more\n", chain.issuer_pems)
    assert check_leaf(padded, forge.expected, forge.hierarchy.anchor, now=forge.now).pem == chain.leaf_pem


def test_plain_profile_takes_the_cas_serial_and_more_purposes(forge: Any) -> None:
    plain = replace(forge.expected, profile="plain")
    anchor = forge.hierarchy.anchor
    leaf = forge.leaf(serial=77, eku=[SERVER, CLIENT])
    assert check_leaf(forge.chain(leaf), plain, anchor, now=forge.now).serial == 77
    assert failed(forge, forge.chain(forge.leaf(eku=[SERVER])), expected=plain) == "eku"
    assert failed(forge, forge.chain(forge.leaf(names=["dev-2"])), expected=plain) == "cn"


def test_a_root_that_issues_by_itself(forge: Any) -> None:
    root = make_authority("Small Root", None, 0, forge.now, 5)
    anchor = TrustAnchor(root.certificate, root.certificate)
    checked = check_leaf(forge.chain(forge.leaf(issuer=root), root.certificate), forge.expected, anchor, now=forge.now)
    assert checked.chain_pem == ""


def test_server_purpose(forge: Any) -> None:
    spki = forge.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    wanted = replace(forge.expected, spki_der=spki, purpose="server", serial=None)
    check_leaf(forge.chain(forge.leaf(eku=[SERVER])), wanted, forge.hierarchy.anchor, now=forge.now)
    assert failed(forge, forge.chain(), expected=wanted) == "eku"
