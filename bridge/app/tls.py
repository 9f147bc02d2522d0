"""The bridge's own HTTPS certificate: from files, from the CA's server provisioner, or from the embedded CA.

Renewed in place: the next handshake shows the new one, open connections live on.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509

from bridge.errors import BridgeError, Misconfigured
from bridge.ports.runtime import Clock

_log = structlog.get_logger("bridge.tls")
_LOOK_EVERY: Final = timedelta(minutes=1)
_RETRY: Final = timedelta(minutes=5)
_REMIND: Final = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A chain and a key in PEM, as ``ssl`` wants them: in files."""

    chain: Path
    key: Path

    def validity(self) -> tuple[datetime, datetime]:
        """Return begin and end of the leaf.

        :raises Misconfigured: the file cannot be read.
        """
        try:
            leaf = x509.load_pem_x509_certificates(self.chain.read_bytes())[0]
        except (OSError, ValueError, IndexError) as e:
            raise Misconfigured(f"the server certificate {self.chain} cannot be read: {e}") from e
        return leaf.not_valid_before_utc, leaf.not_valid_after_utc

    def mark(self) -> str:
        """Return a digest of both files: another one means that they were replaced.

        :raises OSError: one cannot be read.
        """
        return hashlib.sha256(self.chain.read_bytes() + self.key.read_bytes()).hexdigest()

    def check(self) -> None:
        """Load both into a context that serves nobody.

        :raises Misconfigured: one cannot be read, or the key is not the certificate's.
        """
        self.validity()
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.chain, self.key)
        except (OSError, ValueError) as e:  # ssl.SSLError is an OSError
            raise Misconfigured(
                f"the server certificate {self.chain} and its key {self.key} cannot be served: {e};"
                " check BRIDGE_TLS_CERT_FILE and BRIDGE_TLS_KEY_FILE"
            ) from e


Obtain = Callable[[], Awaitable[CertificateFiles]]
"""Gets a certificate that is fit to serve, a new one where the source makes them."""


async def keep_fresh(context: ssl.SSLContext, files: CertificateFiles, obtain: Obtain, clock: Clock) -> None:
    """Serve what the files hold, and ask for a new certificate when two thirds of the present one's life are over.

    Runs until cancelled. Files that were replaced, by whomever, are taken up within a minute, once they fit together.
    A source that fails is asked again every five minutes; the old certificate is served meanwhile.
    """
    served, not_before = files.mark(), clock.now()
    while True:
        await asyncio.sleep(_LOOK_EVERY.total_seconds())
        try:
            if clock.now() >= max(_due(files), not_before):
                not_before = clock.now() + _RETRY
                files = await obtain()
                if files.mark() == served:
                    not_before = clock.now() + _REMIND
                    _log.warning("tls.old", not_after=files.validity()[1].isoformat(), file=str(files.chain))
            if files.mark() != served:
                served = _take_up(context, files)
        except (BridgeError, OSError) as e:
            _log.error("tls.renewal", error=str(e))


def _due(files: CertificateFiles) -> datetime:
    begins, ends = files.validity()
    return begins + (ends - begins) * 2 / 3


def _take_up(context: ssl.SSLContext, files: CertificateFiles) -> str:
    """Load the files into the serving context and return their mark."""
    mark = files.mark()
    files.check()  # first: a pair that does not fit would leave the serving context without a key
    context.load_cert_chain(files.chain, files.key)
    _log.info("tls.renewed", not_after=files.validity()[1].isoformat())
    return mark


def write_files(folder: Path, chain_pem: str, key_pem: str) -> CertificateFiles:
    """Write chain and key (0600) beside the present ones, then rename."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = CertificateFiles(folder / "server.crt", folder / "server.key")
    for path, text in ((files.key, key_pem), (files.chain, chain_pem)):
        beside = path.with_suffix(".new")
        beside.unlink(missing_ok=True)
        beside.touch(mode=0o600)
        beside.write_text(text, encoding="ascii")
        beside.replace(path)
    return files
