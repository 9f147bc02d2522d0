"""Whom the device believes: the pinned roots, the optional second pins, and paths that end there.

Responsible for comparing certificates with fingerprints, and for checking that a chain stands in issuing order
(signatures, basicConstraints, keyUsage, dates: RFC 5280 §6.1 as far as a fixed path needs it).

Not responsible for connections (``enroll.trust.tls``), for what time it is (``enroll.trust.clock``), nor for what
the leaf says about the device (``enroll.trust.leaf``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from enroll.errors import AnswerRejectedError, ForeignAnswerError, RootMismatchError
from enroll.names import Fingerprint
from enroll.trust.certificates import load_all, sha256, subject, validity, verify_issued
from enroll.trust.clock import Belief

MAX_CHAIN: Final = 6
"""Most issuing certificates between leaf and root."""

_WEAK: Final = (hashes.MD5, hashes.SHA1)


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where every path that the device accepts ends: at any of the pinned roots.

    With pinned issuing CAs one of them must stand on the path, and servers must chain to one of them.
    """

    roots: tuple[x509.Certificate, ...]
    issuers: tuple[x509.Certificate, ...] = ()

    def __post_init__(self) -> None:
        if not self.roots:
            raise ValueError("an anchor needs a root")

    @property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """What servers must chain to: the issuing CAs where they are pinned, else the roots."""
        return self.issuers or self.roots


def pinned_root(unverified_pem: bytes, pins: Sequence[Fingerprint]) -> x509.Certificate:
    """Return the root certificate if it is one of the pinned ones, self-signed and a CA; its dates are not looked at.

    :raises ForeignAnswerError: not exactly one certificate.
    :raises RootMismatchError: another digest; both values are in the text.
    :raises AnswerRejectedError: the pinned certificate is no root.
    """
    try:
        served = load_all(unverified_pem)
    except ValueError as e:
        raise ForeignAnswerError("what was served as root is no certificate") from e
    if len(served) != 1:
        raise ForeignAnswerError(f"{len(served)} certificates were served as root; exactly one is expected")
    root = served[0]
    if sha256(root) not in pins:
        raise RootMismatchError(wanted=" or ".join(map(str, pins)), served=str(sha256(root)))
    _check_issued(root, root)
    _check_authority(root, cas_below=0)
    return root


def pinned_issuers(
    unverified: Sequence[x509.Certificate],
    pins: Sequence[Fingerprint],
    roots: Sequence[x509.Certificate],
    belief: Belief,
) -> tuple[x509.Certificate, ...]:
    """Return the certificates with a pinned digest that chain to a root through the others: at least one.

    :raises AnswerRejectedError: none is among them, or no path leads from any of them to a root.
    """
    found = [c for c in dict.fromkeys(unverified) if sha256(c) in pins]
    if not found:
        wanted = " or ".join(map(str, pins))
        served = ", ".join(str(sha256(c)) for c in unverified[:MAX_CHAIN]) or "none"
        raise AnswerRejectedError(
            f"no issuing CA with the pinned SHA-256 {wanted} is served (served: {served}). "
            "Check ENROLL_ISSUER_FINGERPRINT."
        )
    held: list[x509.Certificate] = []
    refusal: AnswerRejectedError | None = None
    for issuer in found:
        try:
            check_authorities(_climb(issuer, unverified, roots), roots, belief)
        except AnswerRejectedError as e:
            refusal = refusal or e
        else:
            held.append(issuer)
    if refusal is not None and not held:
        raise refusal
    return tuple(held)


def _climb(
    issuer: x509.Certificate, others: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    """Return the path from the issuer upwards, each link signed, until below a root or at a gap."""
    path = [issuer]
    while len(path) <= MAX_CHAIN and not any(_issued(path[-1], root) for root in roots):
        above = next((c for c in others if c not in path and _issued(path[-1], c)), None)
        if above is None:
            break
        path.append(above)
    return path


def check_path(
    leaf: x509.Certificate, chain: Sequence[x509.Certificate], anchor: Anchor, belief: Belief
) -> x509.Certificate:
    """Check that leaf, chain and a root stand in issuing order, every link signed, every issuer a valid CA.

    The leaf's own dates are not looked at (``check_dates``).

    :param chain: issuing CA first, then its issuers, without the root.
    :returns: the root at which the path ends.
    :raises AnswerRejectedError: says which link fails. With pinned issuing CAs one of them must be on the path.
    """
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise AnswerRejectedError(f"the chain holds {len(chain)} certificates; 1 to {MAX_CHAIN} are expected")
    if anchor.issuers and not any(c in anchor.issuers for c in chain):
        raise AnswerRejectedError(
            "the certificate was not issued under the pinned issuing CA. Check ENROLL_ISSUER_FINGERPRINT."
        )
    _check_issued(leaf, chain[0], chain)
    return check_authorities(chain, anchor.roots, belief)


def check_authorities(
    chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], belief: Belief
) -> x509.Certificate:
    """Check a path of CA certificates up to and with one of the roots, which is returned.

    :raises AnswerRejectedError: a link, a constraint or a date does not hold.
    """
    root = next((r for r in roots if _issued(chain[-1], r)), roots[0])
    path = [*chain, root]
    for below, above in pairwise(path):
        _check_issued(below, above, chain)
    for cas_below, certificate in enumerate(path):
        _check_authority(certificate, cas_below)
        check_dates(certificate, belief)
    return root


def check_dates(certificate: x509.Certificate, belief: Belief) -> None:
    """Check that the time lies within the certificate's validity, if a time is believed at all.

    :raises AnswerRejectedError: it does not; the text names both and the clock.
    """
    dates = validity(certificate)
    if belief.trusted and not dates.covers(belief.now):
        raise AnswerRejectedError(
            f"the certificate of {subject(certificate)} is valid from {dates.begin:%Y-%m-%dT%H:%MZ} to "
            f"{dates.end:%Y-%m-%dT%H:%MZ}, and this device takes it to be {belief.now:%Y-%m-%dT%H:%MZ}; check the clock"
        )


def extend_chain(
    server_chain: Sequence[x509.Certificate], candidates: Sequence[x509.Certificate]
) -> tuple[x509.Certificate, ...]:
    """Return a server's chain with those candidates appended that really issued the certificate before.

    Before Python 3.13 TLS tells a server's leaf only; the candidates (the ``ca_chain`` of its answer, the
    anchor) make its chain known as far as possible, and with it the time in which it can speak.
    """
    path = list(server_chain)
    while path and len(path) <= MAX_CHAIN + 1:
        above = next((c for c in candidates if c not in path and _issued(path[-1], c)), None)
        if above is None:
            break
        path.append(above)
    return tuple(path)


def _issued(child: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        verify_issued(child, issuer)
    except (ValueError, InvalidSignature):
        return False
    return True


def _check_issued(child: x509.Certificate, issuer: x509.Certificate, chain: Sequence[x509.Certificate] = ()) -> None:
    try:
        weak = isinstance(child.signature_hash_algorithm, _WEAK)
        verify_issued(child, issuer)
    except (ValueError, InvalidSignature, UnsupportedAlgorithm) as e:
        raise AnswerRejectedError(
            f"the certificate of {subject(child)} was not issued by {subject(issuer)}: {_why_not(child, issuer, chain)}"
        ) from e
    if weak:
        raise AnswerRejectedError(f"the certificate of {subject(child)} is signed with a broken hash")


def _why_not(child: x509.Certificate, issuer: x509.Certificate, chain: Sequence[x509.Certificate]) -> str:
    """Say what a person can look for."""
    if any(_issued(child, other) for other in chain if other is not child):
        return "the chain is not in issuing order"
    if child.issuer == child.subject:
        return "it is self-signed, and not the pinned root"
    if child.issuer == issuer.subject:
        return "it names that issuer, but another key signed it; the chain ends at another root than the pinned one"
    return f"its issuer is missing in the chain, or the chain ends at another root than {subject(issuer)}"


def _check_authority(certificate: x509.Certificate, cas_below: int) -> None:
    """Check that it may issue certificates, with ``cas_below`` CA certificates between it and the leaf."""
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, x509.ExtensionNotFound) as e:
        raise AnswerRejectedError(f"{subject(certificate)} is not a CA certificate") from e
    if not constraints.ca:
        raise AnswerRejectedError(f"{subject(certificate)} is not a CA certificate (CA:FALSE)")
    if constraints.path_length is not None and constraints.path_length < cas_below:
        raise AnswerRejectedError(f"{subject(certificate)} does not allow {cas_below} CA certificates below it")
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.key_cert_sign:
        raise AnswerRejectedError(f"the key of {subject(certificate)} is not for signing certificates")
