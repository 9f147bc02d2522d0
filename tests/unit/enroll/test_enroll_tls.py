"""TLS contexts by real handshakes: whom they accept, and by whose clock."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from enroll.trust import tls
from enroll.trust.certificates import pem
from enroll.trust.clock import Belief
from enroll.trust.paths import Anchor

NAME = "bridge.example"
DAY = timedelta(days=1)

Shake = Callable[..., None]


@pytest.fixture
def shake(pki: Any, tmp_path: Path) -> Shake:
    """Shake hands with a server that shows such a certificate, dialled as ``bridge.example``."""

    def hands(
        context: ssl.SSLContext,
        by: Any = None,
        chain: list[x509.Certificate] | None = None,
        *,
        name: str = NAME,
        connect: Callable[[ssl.SSLContext, socket.socket], ssl.SSLSocket] | None = None,
        **dates: Any,
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (by or pki.sub).leaf(key.public_key(), name, usages=[pki.server_auth], **dates)
        file = tmp_path / f"{certificate.serial_number:x}.pem"
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        secret = key.private_bytes(encoding, form, serialization.NoEncryption())
        file.write_bytes(secret + pem([certificate, *(pki.chain if chain is None else chain)]))
        accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        accepting.load_cert_chain(file)
        near, far = socket.socketpair()

        def serve() -> None:
            far.settimeout(10)
            with contextlib.suppress(OSError), far, accepting.wrap_socket(far, server_side=True) as served:
                served.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        near.settimeout(10)
        try:
            with near, (connect or dialled)(context, near) as client:
                assert client.version() is not None
        finally:
            thread.join(10)

    return hands


def dialled(context: ssl.SSLContext, sock: socket.socket) -> ssl.SSLSocket:
    return context.wrap_socket(sock, server_hostname=NAME)


def today(pki: Any) -> Belief:
    return Belief(pki.now, trusted=True, floor=pki.now - DAY)


def blind(pki: Any) -> Belief:
    return Belief(pki.now - DAY, trusted=False, floor=pki.now - DAY, by_system=False)


def heard(moment: Any) -> Belief:
    """The system's clock shows something else."""
    return Belief(moment, trusted=True, floor=moment, by_system=False)


def anchored(*roots: Any, belief: Belief, issuers: tuple[Any, ...] = (), system: bool = False) -> ssl.SSLContext:
    anchor = Anchor(tuple(r.certificate for r in roots), tuple(i.certificate for i in issuers))
    return tls.server_context(anchor, system=system, belief=belief)


@pytest.mark.parametrize("believe", [today, blind, lambda pki: heard(pki.now)])
def test_every_pinned_root_vouches_for_servers_by_name_and_no_other(pki: Any, shake: Shake, believe: Any) -> None:
    context = anchored(pki.new_root("Other"), pki.root, belief=believe(pki))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    shake(context)
    for stranger in (pki.new_root("Provider Root"), pki.new_root("Elsewhere")):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake(context, stranger, [])
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake(context, name="other.example")


@pytest.mark.parametrize("believe", [today, blind, lambda pki: heard(pki.now)])
def test_with_pinned_issuers_another_tenant_of_the_same_root_is_refused(pki: Any, shake: Shake, believe: Any) -> None:
    neighbour = pki.ica.sub("Neighbour")
    theirs = [neighbour.certificate, pki.ica.certificate]
    context = anchored(pki.root, issuers=(pki.sub,), belief=believe(pki))
    shake(context)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(context, neighbour, theirs)
    shake(anchored(pki.root, issuers=(pki.sub, neighbour), belief=believe(pki)), neighbour, theirs)


@pytest.mark.parametrize(("begin", "end"), [(-9, -1), (20, 25)])
def test_without_a_time_no_date_is_looked_at(pki: Any, shake: Shake, begin: int, end: int) -> None:
    dates = {"begin": pki.now + begin * DAY, "end": pki.now + end * DAY}
    for issuers in ((), (pki.sub,)):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake(anchored(pki.root, issuers=issuers, belief=today(pki)), **dates)
        shake(anchored(pki.root, issuers=issuers, belief=blind(pki)), **dates)


def test_a_time_that_was_heard_decides_over_the_systems_clock(pki: Any, shake: Shake) -> None:
    later = anchored(pki.root, belief=heard(pki.now + 22 * DAY))
    shake(later, begin=pki.now + 20 * DAY, end=pki.now + 25 * DAY)
    with pytest.raises(ssl.SSLCertVerificationError, match="has expired") as expired:
        shake(later, begin=pki.now - DAY, end=pki.now + DAY)
    assert (expired.value.verify_code, expired.value.reason) == (10, "CERTIFICATE_VERIFY_FAILED")
    with pytest.raises(ssl.SSLCertVerificationError, match="not yet valid") as early:
        shake(later, begin=pki.now + 23 * DAY, end=pki.now + 25 * DAY)
    assert early.value.verify_code == 9


def slowly(context: ssl.SSLContext, sock: socket.socket) -> ssl.SSLSocket:
    """Connect as paho does: a class of one's own, and the handshake later."""

    class Own(ssl.SSLSocket):
        own = True

    context.sslsocket_class = Own
    wrapped = context.wrap_socket(sock, server_hostname=NAME, do_handshake_on_connect=False)
    assert isinstance(wrapped, Own)
    wrapped.do_handshake()
    return wrapped


def test_dates_are_judged_also_where_a_library_brings_its_own_sockets(pki: Any, shake: Shake) -> None:
    later = anchored(pki.root, belief=heard(pki.now + 22 * DAY))
    for _ in range(2):
        shake(later, begin=pki.now + 20 * DAY, end=pki.now + 25 * DAY, connect=slowly)
        with pytest.raises(ssl.SSLCertVerificationError, match="has expired"):
            shake(later, begin=pki.now - DAY, end=pki.now + DAY, connect=slowly)
    assert len(later.sslsocket_class.__mro__) == len(ssl.SSLSocket.__mro__) + 2
    shake(anchored(pki.root, belief=today(pki)), connect=slowly)


def test_the_systems_authorities_count_only_if_told(pki: Any, shake: Shake, tmp_path: Path, monkeypatch: Any) -> None:
    public = pki.new_root("Public")
    file = tmp_path / "system.pem"
    file.write_bytes(pem([public.certificate]))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(anchored(pki.root, belief=today(pki)), public, [])
    for context in (anchored(pki.root, belief=today(pki), system=True), tls.system_context(today(pki))):
        shake(context, public, [])
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(tls.system_context(today(pki)))
