"""A CRL as a file for a broker, kept fresh from step-ca."""

import contextlib
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

_TIMEOUT = 10.0


@dataclass
class CrlFile:
    """The CRL at ``url`` as PEM in ``path``; ``changed`` is called when another one lies there."""

    url: str
    root_pem: str
    path: Path
    every: float
    changed: Callable[[], None] | None = None

    def refresh(self) -> bool:
        """Fetch the CRL; return whether it differs from the file, which then holds it.

        :raises OSError: it could not be fetched.
        """
        context = ssl.create_default_context(cadata=self.root_pem)
        # The address is our own step-ca's, on loopback.
        with urllib.request.urlopen(self.url, timeout=_TIMEOUT, context=context) as answer:  # noqa: S310
            pem = x509.load_der_x509_crl(answer.read()).public_bytes(Encoding.PEM)
        if self.path.exists() and self.path.read_bytes() == pem:
            return False
        beside = self.path.with_suffix(".new")
        beside.write_bytes(pem)
        beside.replace(self.path)
        return True

    def watch(self, stop: threading.Event) -> None:
        """Refresh until ``stop``; what cannot be fetched now is fetched at the next look."""
        while not stop.wait(self.every):
            with contextlib.suppress(urllib.error.URLError, OSError):
                if self.refresh() and self.changed is not None:
                    self.changed()
