"""First trust in a CA, from a fingerprint and nothing else.

The only place of this project's server side that connects without verifying: once, to read one
certificate whose digest is known beforehand. Everything after that goes over a connection which trusts
that certificate alone.
"""

import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ca.answers import certificates
from ca.client import StepCaClient, checked_url
from ca.errors import CaBadAnswer, CaError, CaMisconfigured
from ca.exchange import Answer, bounded, exchange, nonsense, timed_out
from ca.models import Fingerprint, TrustAnchor
from ca.path import anchor_of, is_ca, is_self_signed_ca, parse_one

Connect = Callable[[ssl.SSLContext], AbstractAsyncContextManager[httpx.AsyncClient]]
"""Makes a client that uses the given TLS context: ``lambda tls: httpx.AsyncClient(verify=tls)``."""


async def fetch_trust(url: str, fingerprint: Fingerprint, connect: Connect, *, seconds: float = 10.0) -> TrustAnchor:
    """Learn a CA's root, issuing CA and intermediates from its URL and one fingerprint.

    The fingerprint is the root's, or that of the CA which issues the leaves: then it alone is the anchor
    of the first verified connection (partial chain), and the root is the one of ``/roots`` that issued
    its chain. Either way every certificate of the result was compared with the fingerprint or chains to
    or from the one that was. ``seconds`` bounds each of the two connections.

    Raises CaMisconfigured where the CA has no certificate with that fingerprint, CaUnreachable, CaBadAnswer.
    """
    base = checked_url(url)
    pinned = await _fetch_pinned(base, fingerprint, connect, seconds)
    async with connect(_context(pinned)) as http:
        client = StepCaClient(http, base, timeout=seconds)
        intermediates = await client.intermediates()
        if is_self_signed_ca(pinned):
            return anchor_of(pinned, intermediates[0] if intermediates else pinned, intermediates)
        if not intermediates or intermediates[0] != pinned:
            raise CaMisconfigured(
                f"{fingerprint} is a CA of this chain, but not the one that issues the leaves",
                check="set STEP_CA_FINGERPRINT to the root's fingerprint, or to the first of `crt` in ca.json",
            )
        return _anchor_above(pinned, intermediates, await client.roots())


def context_for(anchor: TrustAnchor) -> ssl.SSLContext:
    """Return a client context that trusts only servers certified under ``anchor``'s issuing CA.

    Host names are checked. Another tenant's sub-CA under the same root is not trusted (partial chain).
    """
    return _context(anchor.issuing_ca)


def context_for_root(anchor: TrustAnchor) -> ssl.SSLContext:
    """Return a client context that trusts every server under ``anchor``'s root; host names are checked."""
    return _context(anchor.root)


def _context(certificate: x509.Certificate) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=certificate.public_bytes(Encoding.PEM).decode())
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


async def _fetch_pinned(base: str, fingerprint: Fingerprint, connect: Connect, seconds: float) -> x509.Certificate:
    """Fetch the pinned certificate over an unverified connection that is used for nothing else."""
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE  # the digest below is the verification
    try:
        async with bounded(seconds), connect(unverified) as http:
            answer = await exchange(http, "GET", f"{base}/root/{fingerprint}")
            if answer.status == httpx.codes.NOT_FOUND:
                return _pinned_issuer(await exchange(http, "GET", f"{base}/intermediates"), fingerprint)
    except TimeoutError as error:
        raise timed_out(seconds) from error
    return _pinned_root(answer, fingerprint)


def _pinned_root(answer: Answer, fingerprint: Fingerprint) -> x509.Certificate:
    if answer.status != httpx.codes.OK:
        raise nonsense("status", f"the CA answered {answer.status} when asked for its root")
    root = parse_one(answer.json().get("ca"))
    if not fingerprint.matches(root.public_bytes(Encoding.DER)):
        raise CaBadAnswer(
            "the CA answered with a certificate that has another fingerprint",
            failed="root",
            check="somebody may stand between; check STEP_CA_URL, and STEP_CA_FINGERPRINT at the CA itself with "
            "`step certificate fingerprint root_ca.crt`",
        )
    if not is_self_signed_ca(root):
        raise nonsense("root", "the certificate with this fingerprint is not a self-signed CA")
    return root


def _pinned_issuer(answer: Answer, fingerprint: Fingerprint) -> x509.Certificate:
    unknown = CaMisconfigured(
        f"the CA has neither a root nor an issuing CA with the fingerprint {fingerprint}",
        check="check STEP_CA_FINGERPRINT at the CA itself with `step certificate fingerprint root_ca.crt`",
    )
    if answer.status not in {httpx.codes.OK, httpx.codes.CREATED}:
        raise unknown
    try:
        listed = certificates(answer.json())
    except CaError as error:
        raise unknown from error
    for certificate in listed:
        if fingerprint.matches(certificate.public_bytes(Encoding.DER)) and is_ca(certificate, below=0):
            return certificate
    raise unknown


def _anchor_above(
    issuing_ca: x509.Certificate, others: tuple[x509.Certificate, ...], roots: tuple[x509.Certificate, ...]
) -> TrustAnchor:
    for root in roots:
        try:
            return anchor_of(root, issuing_ca, others)
        except CaBadAnswer:
            continue
    raise CaBadAnswer(
        "none of the CA's roots has issued the chain of its issuing CA",
        failed="chain",
        check="check `root` and `crt` in ca.json: `crt` needs the issuing CA and every CA up to the root",
    )
