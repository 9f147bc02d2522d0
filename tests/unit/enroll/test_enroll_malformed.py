"""Certificates with bytes changed: by a stranger, by a medium that forgets. Refused in our words, whatever breaks."""

from __future__ import annotations

import contextlib
import random
import ssl
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from enroll.errors import EnrollError, ForeignAnswerError, RootMismatchError
from enroll.names import Fingerprint
from enroll.trust import certificates, leaf, paths
from enroll.trust.clock import UNDATED

ROUNDS = 3000


def mutated(der: bytes, drawn: random.Random) -> bytes:
    made = bytearray(der)
    for _ in range(drawn.choice([1, 1, 2, 3])):
        made[drawn.randrange(len(made))] = drawn.choice([drawn.randrange(256), 0, 0xFF, drawn.choice(der)])
    return bytes(made)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_but_our_errors_comes_out_of_a_damaged_certificate(
    pki: Any, seed: int, count: Callable[[str, int], None]
) -> None:
    drawn = random.Random(seed)
    der = pki.sub.leaf(ec.generate_private_key(ec.SECP256R1()).public_key(), "dev-1").public_bytes(Encoding.DER)
    anchor = paths.Anchor((pki.root.certificate,))
    parsed = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cryptography's, of what it will refuse one day
        for _ in range(ROUNDS):
            bad = mutated(der, drawn)
            if bad == der:
                continue
            text = ssl.DER_cert_to_PEM_cert(bad).encode()
            with pytest.raises((ForeignAnswerError, RootMismatchError)):
                paths.pinned_root(text, (Fingerprint(pki.sha256),))
            try:
                found = certificates.load_all(text)[0]
            except ValueError:
                continue
            parsed += 1
            assert certificates.subject(found).isprintable()
            with contextlib.suppress(EnrollError):
                leaf.check(found, "dev-1", leaf.spki_of(found))
            with pytest.raises(EnrollError):
                paths.check_path(found, pki.chain, anchor, UNDATED)
    count("damaged certificates", ROUNDS)
    assert parsed > ROUNDS // 10


def test_a_certificate_of_a_version_that_does_not_exist_is_none(pki: Any) -> None:
    der = pki.root.certificate.public_bytes(Encoding.DER)
    third = b"\xa0\x03\x02\x01\x02"
    assert der.count(third) == 1
    for version in range(3, 6):
        other = der.replace(third, third[:-1] + bytes([version]))
        with pytest.raises(ValueError, match="version"):
            certificates.load_all(ssl.DER_cert_to_PEM_cert(other).encode())
        with pytest.raises(ValueError, match="version"):
            certificates.load_der(other)
