"""The device's own certificate: own key, own name, for clients only."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from enroll.errors import AnswerRejectedError
from enroll.trust import leaf

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
OWN = ec.generate_private_key(ec.SECP256R1()).public_key()
OTHER = ec.generate_private_key(ec.SECP256R1()).public_key()
SPKI = hashlib.sha256(
    OWN.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
).hexdigest()
DAY = timedelta(days=1)


def test_the_own_leaf_holds_whatever_its_dates(pki: Any) -> None:
    """Dates are another question: an expired leaf is still the device's own, and is to be renewed."""
    for dates in ({}, {"begin": pki.now - 9 * DAY, "end": pki.now - DAY}):
        certificate = pki.sub.leaf(OWN, "dev-1", **dates)
        leaf.check(certificate, "dev-1", SPKI)
        assert leaf.spki_of(certificate) == SPKI


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"public_key": OTHER}, "another key"),
        ({"device_id": "dev-2"}, "names .*dev-2"),
        ({"device_id": "DEV-1"}, "names .*DEV-1"),
        ({"san": ["dev-2"]}, "not exactly"),
        ({"san": ["dev-1", "bridge.example"]}, "not exactly"),
        ({"san": ["dev-1", "10.0.0.1"]}, "not exactly"),
        ({"san": []}, "no subject alternative name"),
        ({"usages": []}, "does not say"),
        ({"usages": [SERVER]}, "not for client"),
        ({"usages": [CLIENT, SERVER]}, "serverAuth"),
        ({"usages": [CLIENT, ANY]}, "serverAuth"),
        ({"ca": True}, "is a CA certificate"),
    ],
)
def test_another_leaf_is_refused_with_its_reason(pki: Any, how: dict[str, Any], words: str) -> None:
    certificate = pki.sub.leaf(**({"public_key": OWN, "device_id": "dev-1"} | how))
    with pytest.raises(AnswerRejectedError, match=words):
        leaf.check(certificate, "dev-1", SPKI)
