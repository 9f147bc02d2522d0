"""The embedded CA (signatures first; the bodies follow)."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from ca.models import Fingerprint, ServerCertificate, TrustAnchor


@dataclass(frozen=True, slots=True)
class StandInSettings:
    """What the embedded CA is told. ``port`` 0 is a free one."""

    folder: Path
    server_names: tuple[str, ...] = ("localhost",)
    host: str = "127.0.0.1"
    port: int = 0
    max_duration: timedelta = timedelta(days=365)


class StandInCa:
    """The embedded CA, served over TLS in the caller's event loop: ``async with StandInCa(settings) as ca``."""

    def __init__(self, settings: StandInSettings, *, clock: Callable[[], datetime]) -> None: ...

    @property
    def url(self) -> str:
        """``https://localhost:PORT`` once started."""
        raise NotImplementedError

    @property
    def anchor(self) -> TrustAnchor:
        """Its own root, issuing CA and intermediate."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> Fingerprint:
        """The root's fingerprint."""
        raise NotImplementedError

    device_provisioner: str
    server_provisioner: str
    password: str

    async def start(self) -> None:
        """Bind and serve."""

    async def stop(self) -> None:
        """End."""

    async def __aenter__(self) -> "StandInCa":
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Stop."""
        await self.stop()

    def issue_server_certificate(self, names: tuple[str, ...]) -> ServerCertificate:
        """Issue a server certificate directly (localhost of the bridge and the MQTT door in embedded mode)."""
        raise NotImplementedError

    def signed_serials(self) -> frozenset[int]:
        """Every serial ever signed over HTTP, from the persisted log."""
        raise NotImplementedError
