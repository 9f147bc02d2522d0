"""Pins and paths over real certificates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from enroll.errors import (
    AnswerRejectedError,
    ForeignAnswerError,
    RootMismatchError,
)
from enroll.names import Fingerprint
from enroll.trust import paths
from enroll.trust.certificates import Validity, pem, sha256
from enroll.trust.clock import Belief
from enroll.trust.paths import Anchor

NOW = datetime(2027, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
TODAY = Belief(NOW, trusted=True, floor=NOW - 30 * DAY)
NO_CLOCK = Belief(NOW - 30 * DAY, trusted=False, floor=NOW - 30 * DAY)
PATCH_OF_DATES = Validity(NOW - 30 * DAY, NOW + 30 * DAY)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass
class Signer:
    """A key with a certificate; it can sign whatever a test asks for."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def root(cls, text: str = "Root", dates: Validity = PATCH_OF_DATES, **how: Any) -> Signer:
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(cls._signed(key, name(text), name(text), key, dates, **how), key)

    def sub(self, text: str, dates: Validity = PATCH_OF_DATES, **how: Any) -> Signer:
        key = how.pop("key", None) or ec.generate_private_key(ec.SECP256R1())
        return Signer(self._signed(self.key, self.certificate.subject, name(text), key, dates, **how), key)

    def leaf(self, text: str = "dev-1", dates: Validity = PATCH_OF_DATES, **how: Any) -> Signer:
        return self.sub(text, dates, **({"ca": False} | how))

    @staticmethod
    def _signed(
        by: ec.EllipticCurvePrivateKey,
        issuer: x509.Name,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        dates: Validity,
        *,
        ca: bool | None = True,
        path_length: int | None = None,
        signs: bool | None = None,
        san: Sequence[str] | None = None,
        usages: Sequence[x509.ObjectIdentifier] = (),
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(dates.begin)
            .not_valid_after(dates.end)
        )
        if ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca, path_length if ca else None), critical=True)
        if signs is not None:
            flags = dict.fromkeys(
                (
                    "content_commitment",
                    "key_encipherment",
                    "data_encipherment",
                    "key_agreement",
                    "crl_sign",
                    "encipher_only",
                    "decipher_only",
                ),
                False,
            )
            usage = x509.KeyUsage(digital_signature=not signs, key_cert_sign=signs, **flags)
            builder = builder.add_extension(usage, critical=True)
        if san is not None:
            names = x509.SubjectAlternativeName([x509.DNSName(text) for text in san])
            builder = builder.add_extension(names, critical=False)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
        return builder.sign(by, hashes.SHA256())


@dataclass
class Provider:
    """root -> ICA -> two tenants' sub-CAs."""

    root: Signer = field(default_factory=Signer.root)

    def __post_init__(self) -> None:
        self.ica = self.root.sub("ICA")
        self.sub = self.ica.sub("Tenant", path_length=0)
        self.neighbour = self.ica.sub("Neighbour", path_length=0)
        self.leaf = self.sub.leaf()

    @property
    def chain(self) -> list[x509.Certificate]:
        return [self.sub.certificate, self.ica.certificate]


@pytest.fixture(scope="module")
def provider() -> Provider:
    return Provider()


def anchor(*roots: Signer, issuers: Sequence[Signer] = ()) -> Anchor:
    return Anchor(tuple(r.certificate for r in roots), tuple(i.certificate for i in issuers))


def pin(signer: Signer) -> Fingerprint:
    return sha256(signer.certificate)


def certificates_of(*signers: Signer) -> list[x509.Certificate]:
    return [signer.certificate for signer in signers]


# Roots by their digests


def test_each_of_several_pins_is_good(provider: Provider) -> None:
    other = Signer.root("Next Root")
    for root in (provider.root, other):
        assert paths.pinned_root(pem([root.certificate]), (pin(provider.root), pin(other))) == root.certificate


def test_another_root_shows_all_digests(provider: Provider) -> None:
    wanted = (Fingerprint("ab" * 32), Fingerprint("cd" * 32))
    with pytest.raises(RootMismatchError) as mismatch:
        paths.pinned_root(pem([provider.root.certificate]), wanted)
    for value in (*wanted, pin(provider.root)):
        assert str(value) in str(mismatch.value)


def test_a_pinned_certificate_must_be_a_root(provider: Provider) -> None:
    no_ca, not_for_signing = Signer.root(ca=False), Signer.root(signs=False)
    for signer in (provider.sub, provider.leaf, no_ca, not_for_signing, Signer.root(ca=None)):
        with pytest.raises(AnswerRejectedError):
            paths.pinned_root(pem([signer.certificate]), (pin(signer),))


def test_a_forged_self_signature_is_no_root(provider: Provider) -> None:
    stranger = Signer.root("Root")
    forged = Signer(provider.root.sub("Root", key=stranger.key).certificate, stranger.key)
    with pytest.raises(AnswerRejectedError, match="not issued by"):
        paths.pinned_root(pem([forged.certificate]), (pin(forged),))


def test_exactly_one_certificate_is_served(provider: Provider) -> None:
    root = provider.root.certificate
    for text in (b"", b"<html>", pem([root, root]), pem([root])[:-40]):
        with pytest.raises(ForeignAnswerError):
            paths.pinned_root(text, (pin(provider.root),))


# Issuers by theirs


def test_pinned_issuers_are_found_and_climb_to_a_root(provider: Provider) -> None:
    served = [*certificates_of(provider.neighbour, provider.sub, provider.ica), provider.sub.certificate]
    roots = certificates_of(Signer.root("Other"), provider.root)
    assert paths.pinned_issuers(served, (pin(provider.sub),), roots, TODAY) == (provider.sub.certificate,)
    both = paths.pinned_issuers(served, (pin(provider.sub), pin(provider.neighbour)), roots, TODAY)
    assert set(both) == set(certificates_of(provider.sub, provider.neighbour))
    one_unknown = paths.pinned_issuers(served, (Fingerprint("ef" * 32), pin(provider.sub)), roots, TODAY)
    assert one_unknown == (provider.sub.certificate,)


def test_a_pinned_issuer_that_nobody_serves_or_that_hangs_in_the_air_is_refused(provider: Provider) -> None:
    roots, served = certificates_of(provider.root), certificates_of(provider.sub, provider.ica)
    with pytest.raises(AnswerRejectedError, match="ENROLL_ISSUER_FINGERPRINT"):
        paths.pinned_issuers(served, (Fingerprint("ef" * 32),), roots, TODAY)
    with pytest.raises(AnswerRejectedError, match="ENROLL_ISSUER_FINGERPRINT"):
        paths.pinned_issuers([], (pin(provider.sub),), roots, TODAY)
    for gap, among in ((served[:1], roots), (served, certificates_of(Signer.root("Root")))):
        with pytest.raises(AnswerRejectedError, match="not issued by"):
            paths.pinned_issuers(gap, (pin(provider.sub),), among, TODAY)
    with pytest.raises(AnswerRejectedError, match="CA:FALSE"):
        paths.pinned_issuers([*served, provider.leaf.certificate], (pin(provider.leaf),), roots, TODAY)


def test_one_pinned_issuer_that_holds_is_enough(provider: Provider) -> None:
    ended = provider.ica.sub("Old", Validity(NOW - 20 * DAY, NOW - DAY))
    served = certificates_of(ended, provider.sub, provider.ica)
    pins, roots = (pin(ended), pin(provider.sub)), certificates_of(provider.root)
    assert paths.pinned_issuers(served, pins, roots, TODAY) == (provider.sub.certificate,)
    assert set(paths.pinned_issuers(served, pins, roots, NO_CLOCK)) == set(served[:2])


def test_authorities_that_sign_each_other_in_a_circle_end(provider: Provider) -> None:
    first, second = Signer.root("A"), Signer.root("B")
    crossed = [first.sub("B", key=second.key).certificate, second.sub("A", key=first.key).certificate]
    with pytest.raises(AnswerRejectedError):
        paths.pinned_issuers(crossed, (sha256(crossed[0]),), certificates_of(provider.root), TODAY)


# Paths


def test_a_path_ends_at_any_of_the_roots_and_says_at_which(provider: Provider) -> None:
    other = Signer.root("Other")
    for roots in ((provider.root,), (provider.root, other), (other, provider.root)):
        ended = paths.check_path(provider.leaf.certificate, provider.chain, anchor(*roots), TODAY)
        assert ended == provider.root.certificate


def test_a_cross_signed_new_root_leads_to_the_old_one(provider: Provider) -> None:
    new = Signer.root("New Root")
    crossed = provider.root.sub("New Root", key=new.key)
    sub = new.sub("New Sub")
    chain = certificates_of(sub, crossed)
    device = sub.leaf().certificate
    assert paths.check_path(device, chain, anchor(provider.root), TODAY) == provider.root.certificate
    assert paths.check_path(device, chain[:1], anchor(provider.root, new), TODAY) == new.certificate


def below(issuer: Signer, *chain: Signer) -> tuple[Signer, list[Signer]]:
    return issuer.leaf("dev-2"), [issuer, *chain]


PATHS: dict[str, tuple[Callable[[Provider], tuple[Signer, list[Signer]]], str]] = {
    "out of order": (lambda p: (p.leaf, [p.ica, p.sub]), "issuing order"),
    "a gap": (lambda p: (p.leaf, [p.sub]), "not issued by"),
    "none": (lambda p: (p.leaf, []), "holds 0"),
    "too long": (lambda p: (p.leaf, [p.sub] * 7), "holds 7"),
    "a namesake's": (lambda p: (Signer.root("Tenant").leaf(), [p.sub, p.ica]), "not issued by"),
    "another root": (lambda _p: below(Signer.root().sub("Tenant")), "another root"),
    "by a device": (lambda p: below(p.leaf, p.sub, p.ica), "CA:FALSE"),
    "by nobody's CA": (lambda p: below(p.ica.sub("bare", ca=None), p.ica), "not a CA certificate"),
    "too deep": (lambda p: below(p.sub.sub("deep"), p.sub, p.ica), "does not allow 1"),
    "not for signing": (lambda p: below(p.ica.sub("x", signs=False), p.ica), "not for signing"),
}


@pytest.mark.parametrize("case", PATHS)
@pytest.mark.parametrize("belief", [TODAY, NO_CLOCK])
def test_a_path_that_does_not_hold_says_why_with_and_without_a_clock(
    provider: Provider, case: str, belief: Belief
) -> None:
    make, words = PATHS[case]
    device, chain = make(provider)
    with pytest.raises(AnswerRejectedError, match=words):
        paths.check_path(device.certificate, certificates_of(*chain), anchor(provider.root), belief)


def test_with_pinned_issuers_one_of_them_is_on_the_path(provider: Provider) -> None:
    both = anchor(provider.root, issuers=[provider.sub, provider.neighbour])
    paths.check_path(provider.leaf.certificate, provider.chain, both, TODAY)
    only_neighbour = anchor(provider.root, issuers=[provider.neighbour])
    with pytest.raises(AnswerRejectedError, match="ENROLL_ISSUER_FINGERPRINT"):
        paths.check_path(provider.leaf.certificate, provider.chain, only_neighbour, TODAY)


@pytest.mark.parametrize("dates", [Validity(NOW - 9 * DAY, NOW - DAY), Validity(NOW + DAY, NOW + 9 * DAY)])
def test_dates_of_issuers_count_only_while_a_time_is_believed(provider: Provider, dates: Validity) -> None:
    sub = provider.ica.sub("Dated", dates)
    path = sub.leaf().certificate, certificates_of(sub, provider.ica), anchor(provider.root)
    with pytest.raises(AnswerRejectedError, match="check the clock"):
        paths.check_path(*path, TODAY)
    paths.check_path(*path, NO_CLOCK)
    with pytest.raises(AnswerRejectedError, match=f"{NOW:%Y-%m-%d}"):
        paths.check_dates(sub.certificate, TODAY)
    paths.check_dates(sub.certificate, NO_CLOCK)


def test_an_anchor_has_a_root() -> None:
    with pytest.raises(ValueError, match="root"):
        Anchor(())


# A server's chain, as far as it is known


def test_a_servers_chain_grows_by_what_really_issued_it(provider: Provider) -> None:
    namesake = Signer.root().sub("Tenant")
    candidates = certificates_of(provider.root, provider.neighbour, namesake, provider.ica, provider.sub)
    grown = paths.extend_chain([provider.leaf.certificate], candidates)
    assert grown == tuple(certificates_of(provider.leaf, provider.sub, provider.ica, provider.root))
    assert paths.extend_chain(grown, candidates) == grown
    assert paths.extend_chain([provider.leaf.certificate], []) == (provider.leaf.certificate,)
    assert paths.extend_chain([], candidates) == ()
