"""An embedded ThingsBoard: the REST calls that the bridge makes, an MQTT door with mTLS, the connect event.

Product code: `make demo` and embedded mode run on it. It refuses what ThingsBoard refuses and keeps its traps,
as recorded. It is not a platform: no dashboards, no rule engine; telemetry is accepted and dropped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import httpx


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where connect events go. `http` belongs to the event loop that starts the stand-in and trusts the CA."""

    url: str
    secret: str
    http: httpx.AsyncClient


@dataclass(frozen=True, slots=True)
class SeenConnect:
    """What the MQTT door saw of a device's last accepted CONNECT."""

    client_id: str
    protocol: str
    subject_cn: str
    issuer_cn: str
    at: datetime


class EmbeddedThingsBoard:
    """One tenant on loopback. Start and stop it in the same event loop; the MQTT door has its own thread.

    `client_ca` is PEM, the root and where wanted issuing CAs too. Port 0 takes a free one. Restarted with the
    same `folder`, it has the same devices, credentials, attributes and token key.
    """

    def __init__(
        self,
        folder: Path,
        *,
        server_cert: Path,
        server_key: Path,
        client_ca: str,
        username: str,
        password: str,
        webhook: Webhook | None = None,
        rest_port: int = 0,
        mqtt_port: int = 0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        """Listen; returns once both ports accept."""

    async def stop(self) -> None:
        """Close both ports and all sessions."""

    async def __aenter__(self) -> "EmbeddedThingsBoard":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def rest_url(self) -> str:
        """`http://127.0.0.1:PORT`, known after `start`."""
        raise NotImplementedError

    @property
    def mqtt_host(self) -> str:
        """The name in the door's certificate: `localhost`."""
        raise NotImplementedError

    @property
    def mqtt_port(self) -> int:
        """The port of the MQTT door, known after `start`."""
        raise NotImplementedError

    def point_webhook(self, webhook: Webhook | None) -> None:
        """Send connect events there from now on: the bridge's port is often known only later."""

    def reload_certificate(self) -> None:
        """Read the door's certificate and key again; open sessions live on."""

    def last_connect(self, device_name: str) -> SeenConnect | None:
        """Return what the door saw of the device's last accepted CONNECT (also attribute `lastConnectSeen`)."""
