"""TLS contexts that trust an anchor alone and judge dates by the time the device believes.

Responsible for which authorities a connection accepts, and for whose clock decides about dates: OpenSSL knows the
system's clock only, and cannot be told another time from Python. Where that clock is wrong, OpenSSL leaves dates
alone (signatures, names and the anchor are checked all the same), and the dates of the server's certificates are
compared with the belief at the end of the handshake, before anything is sent.

Not responsible for what the belief is (``enroll.trust.clock``), nor for connecting.
"""

from __future__ import annotations

import ssl
from datetime import datetime
from typing import Any, Final

from enroll.trust.certificates import load_der, pem, validity
from enroll.trust.clock import Belief
from enroll.trust.paths import Anchor

_NO_CHECK_TIME: Final = 0x200000
"""``X509_V_FLAG_NO_CHECK_TIME`` of OpenSSL 1.1 and later, which Python's ssl does not name."""

_NOT_YET_VALID: Final = 9  # X509_V_ERR_CERT_NOT_YET_VALID
_EXPIRED: Final = 10  # X509_V_ERR_CERT_HAS_EXPIRED


class BelievingContext(ssl.SSLContext):
    """A client context whose sockets check dates against a moment of the caller's, not the system's clock.

    It holds for every class of sockets that is set on it later, too.
    """

    def __init__(self, *_protocol: Any) -> None:
        super().__init__()
        self._moment: datetime | None = None
        self._judging: type[ssl.SSLSocket] = ssl.SSLSocket

    def judge_at(self, moment: datetime) -> None:
        """Refuse servers whose certificates are not valid at the moment, as far as TLS tells them.

        Before Python 3.13 that is the server's own certificate, from then on its whole chain.
        """
        self._moment = moment
        self.sslsocket_class = self._judging

    @property
    def sslsocket_class(self) -> type[ssl.SSLSocket]:
        """The class of sockets that ``wrap_socket`` makes."""
        return self._judging

    @sslsocket_class.setter
    def sslsocket_class(self, base: type[ssl.SSLSocket]) -> None:
        self._judging = base if self._moment is None else _judging(base, self._moment)


def server_context(anchor: Anchor, *, system: bool, belief: Belief) -> ssl.SSLContext:
    """Return a client context that checks host names and trusts the anchor alone (if told, the system besides).

    A pinned issuing CA is an anchor without its issuer (``X509_V_FLAG_PARTIAL_CHAIN``), so that a server
    certified by another sub-CA of the same root is refused.
    """
    context = system_context(belief) if system else _bare_context(belief)
    context.load_verify_locations(cadata=pem(anchor.certificates).decode("ascii"))
    if anchor.issuers:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def system_context(belief: Belief) -> ssl.SSLContext:
    """Return a client context that checks host names and trusts the system's authorities alone."""
    context = _bare_context(belief)
    context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def _bare_context(belief: Belief) -> ssl.SSLContext:
    context = BelievingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not (belief.trusted and belief.by_system):
        context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
        if belief.trusted:
            context.judge_at(belief.now)
    return context


def _judging(base: type[ssl.SSLSocket], moment: datetime) -> type[ssl.SSLSocket]:
    class Judging(base):  # type: ignore[misc, valid-type] # a class of the caller's
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            try:
                _judge(self, moment)
            except OSError:
                self.close()  # some callers leave a failed handshake to the garbage collector
                raise

    return Judging


def _judge(tls: ssl.SSLSocket, moment: datetime) -> None:
    if hasattr(tls, "get_verified_chain"):
        chain = list(tls.get_verified_chain())
    else:
        chain = [tls.getpeercert(binary_form=True) or b""]
    for der in chain:
        try:
            dates = validity(load_der(der))
        except ValueError as e:
            raise _refusal(_EXPIRED, "a certificate cannot be read") from e
        if moment < dates.begin:
            raise _refusal(_NOT_YET_VALID, f"certificate is not yet valid at {moment:%Y-%m-%dT%H:%MZ}")
        if moment > dates.end:
            raise _refusal(_EXPIRED, f"certificate has expired at {moment:%Y-%m-%dT%H:%MZ}")


def _refusal(code: int, message: str) -> ssl.SSLCertVerificationError:
    """Return the error that OpenSSL's own check would have been."""
    error = ssl.SSLCertVerificationError(1, f"[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {message}")
    error.reason, error.verify_code, error.verify_message = "CERTIFICATE_VERIFY_FAILED", code, message
    return error
