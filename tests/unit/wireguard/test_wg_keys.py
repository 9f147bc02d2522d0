import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from wireguard.errors import InvalidKeyError
from wireguard.keys import PeerKey, PrivateKey, PublicKey

PRIME = 2**255 - 19
# The published list of points of small order and their other encodings (cr.yp.to/ecdh.html, "small order").
SMALL_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    PRIME - 1,
    PRIME,
    PRIME + 1,
    PRIME + 325606250916557431795983626356110631294008115727848805560023387167927233504,
    PRIME + 39382357235489614581723060781553021112529911719440698176882885853963445705823,
    2 * PRIME - 1,
    2 * PRIME,
    2 * PRIME + 1,
]


def text_of(point: int) -> str:
    return base64.b64encode(point.to_bytes(32, "little")).decode("ascii")


def test_the_public_half_is_that_of_rfc_7748() -> None:
    private = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    public = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert PrivateKey(private).public_key == PublicKey(public)


def test_randomness_is_injected_and_clamped() -> None:
    private = PrivateKey.generate(lambda count: b"\xff" * count)
    assert private.raw == b"\xf8" + b"\xff" * 30 + b"\x7f"


def test_a_source_that_gives_too_little_is_refused() -> None:
    with pytest.raises(InvalidKeyError, match="gave 3 bytes"):
        PrivateKey.generate(lambda _: b"abc")


def test_neither_repr_nor_str_nor_an_error_shows_a_private_key() -> None:
    private = PrivateKey.generate()
    shown = f"{private!r} {private} {[private]}"
    with pytest.raises(InvalidKeyError) as caught:
        PrivateKey.parse(private.reveal() + "\n")
    shown += str(caught.value)
    assert private.reveal() not in shown
    assert repr(private.raw) not in shown


def test_a_private_key_of_zeros_is_no_key() -> None:
    with pytest.raises(InvalidKeyError):
        PrivateKey(bytes(32))


@pytest.mark.parametrize("point", [p for p in SMALL_ORDER if p < 2**255] + [p + 2**255 for p in SMALL_ORDER[:5]])
def test_every_point_of_low_order_is_refused_in_every_spelling(point: int) -> None:
    raw = point.to_bytes(32, "little")
    with pytest.raises(ValueError, match="shared key"):
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(raw))
    with pytest.raises(InvalidKeyError, match="low order"):
        PublicKey.parse(text_of(point))


@pytest.mark.parametrize("point", [PRIME + 9, 9 + 2**255])
def test_another_spelling_of_a_point_is_not_a_second_key(point: int) -> None:
    with pytest.raises(InvalidKeyError, match="canonical"):
        PublicKey.parse(text_of(point))


GOOD = PrivateKey(bytes(range(32))).public_key


@pytest.mark.parametrize(
    "attack",
    [
        "",
        str(GOOD) + "\n",
        "\n" + str(GOOD),
        " " + str(GOOD)[1:],
        str(GOOD)[:-1],
        str(GOOD)[:-1] + "\n",
        str(GOOD) + "\nEndpoint = 192.0.2.66:1",
        str(GOOD)[:20] + "\n[Interface]\nPostUp = id",
        "[Interface]\nPostUp = touch /tmp/owned\n#####",
        base64.b64encode(bytes(31) + b"\x01").decode()[:-1] + "A",
        base64.b64encode(b"\x05" * 31).decode(),
        base64.b64encode(b"\x05" * 33).decode(),
        base64.urlsafe_b64encode(b"\xfb\xff" * 16).decode(),
        "\u00e9" * 44,
        "\uff21" * 43 + "=",
        "=" * 44,
        "A" * 43 + "\x00",
        "A" * 100_000,
        (b"\x05" * 32).hex(),
    ],
)
def test_a_key_that_is_not_canonical_base64_of_32_bytes_is_refused(attack: str) -> None:
    for kind in (PublicKey, PeerKey, PrivateKey):
        with pytest.raises(InvalidKeyError):
            kind.parse(attack)


def test_trailing_bits_of_the_last_character_must_be_zero() -> None:
    text = str(GOOD)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = alphabet[alphabet.index(text[42]) ^ 1]
    assert base64.b64decode(text[:42] + other + "=") == GOOD.raw
    with pytest.raises(InvalidKeyError, match="canonical"):
        PublicKey.parse(text[:42] + other + "=")


def test_a_peer_key_names_what_a_public_key_may_not_be() -> None:
    assert str(PeerKey(bytes(32))) == "A" * 43 + "="
    with pytest.raises(InvalidKeyError):
        PublicKey(bytes(32))


def test_a_peer_key_equals_the_public_key_of_the_same_bytes() -> None:
    assert PeerKey(GOOD.raw) == GOOD
    assert {GOOD: 1}[PeerKey(GOOD.raw)] == 1
    assert PeerKey(GOOD.raw) != str(GOOD)
    assert repr(GOOD) == f"PublicKey({GOOD})"


def test_bytearrays_and_text_are_not_bytes() -> None:
    for wrong in (bytearray(GOOD.raw), str(GOOD), None):
        with pytest.raises(InvalidKeyError):
            PublicKey(wrong)  # type: ignore[arg-type]
