"""The bridge's own HTTPS certificate: from files, from the CA's server provisioner, or from the embedded CA.

Renewed in place: the next handshake shows the new one, open connections live on.
"""

from __future__ import annotations

import asyncio
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
_RETRY: Final = timedelta(minutes=5)
_FILE_CHECK: Final = timedelta(minutes=1)


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


Obtain = Callable[[], Awaitable[CertificateFiles]]
"""Gets a certificate that is fit to serve, a new one where the source makes them."""


async def keep_fresh(context: ssl.SSLContext, files: CertificateFiles, obtain: Obtain, clock: Clock) -> None:
    """Load a new certificate into the serving context when two thirds of the old one's life are over.

    Runs until cancelled. A source that fails is asked again every five minutes; the old one is served meanwhile.
    """
    while True:
        begins, ends = files.validity()
        due = begins + (ends - begins) * 2 / 3
        await asyncio.sleep(max(_FILE_CHECK, min(due - clock.now(), timedelta(days=1))).total_seconds())
        if clock.now() < due:
            continue
        try:
            files = await obtain()
            context.load_cert_chain(files.chain, files.key)
            _log.info("tls.renewed", not_after=files.validity()[1].isoformat())
        except (BridgeError, ssl.SSLError, OSError) as e:
            _log.error("tls.renewal", error=str(e))
            await asyncio.sleep(_RETRY.total_seconds())


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
