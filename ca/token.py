"""One-time tokens for step-ca (signatures first; the bodies follow)."""

from collections.abc import Callable
from datetime import datetime

from ca.provisioner_key import ProvisionerKey


class TokenSigner:
    """Mints OTTs of one provisioner. ``clock()`` is aware UTC, ``randomness(n)`` n random octets."""

    def __init__(
        self,
        key: ProvisionerKey,
        *,
        issuer: str,
        url: str,
        clock: Callable[[], datetime],
        randomness: Callable[[int], bytes],
    ) -> None: ...

    def for_sign(self, device_id: str, csr_der: bytes, serial: int) -> str:
        """A token for one leaf: bound to the CSR by ``cnf``, carrying the serial as decimal string."""
        raise NotImplementedError

    def for_server(self, name: str, csr_der: bytes) -> str:
        """A token for a server certificate of ``name``."""
        raise NotImplementedError

    def for_revoke(self, serial: int) -> str:
        """A token that revokes ``serial``."""
        raise NotImplementedError
