"""An embedded ThingsBoard: the REST calls that the bridge makes, an MQTT door with mTLS, the connect event.

Product code: `make demo` and embedded mode run on it. It refuses what ThingsBoard refuses and keeps its
traps, as recorded. It is not a platform: no dashboards, no rule engine; telemetry is accepted and dropped.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn

from thingsboard.standin_auth import Accounts
from thingsboard.standin_mqtt import MqttDoor
from thingsboard.standin_platform import PlatformRecord
from thingsboard.standin_rest import application
from thingsboard.standin_rest_node import RestNode, Webhook
from thingsboard.standin_sockets import DoorTls, loopback_listener
from thingsboard.standin_state import TenantState

__all__ = ["EmbeddedThingsBoard", "SeenConnect", "Webhook"]


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

    `client_ca` is PEM, the root and where wanted issuing CAs too. Port 0 takes a free one. Started again with
    the same `folder`, it has the same devices, credentials, attributes and token key.
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
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        platform = PlatformRecord(folder, clock=clock)
        self.state = TenantState(folder, platform, clock=clock)
        accounts = Accounts(username, password, platform.token_key, clock)
        self._rest = _RestServer(
            uvicorn.Config(
                application(accounts, self.state, platform),
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=2,
            )
        )
        self._rest_port = rest_port
        self._tls = DoorTls(server_cert, server_key, client_ca)
        self._mqtt_port = mqtt_port
        self._clock = clock
        self._webhook = webhook
        self._door: MqttDoor | None = None
        self._node: RestNode | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; returns once both ports accept. Raises OSError where a port is taken."""
        listener = loopback_listener(self._rest_port)
        try:
            self._node = RestNode(self._webhook)
            self._door = MqttDoor(
                self.state, self._tls, port=self._mqtt_port, clock=self._clock, on_connect=self._node.offer
            )
            await self._door.start()
        except BaseException:
            listener.close()
            raise
        self.state.end_session = self._door.end_session
        self._rest_port = listener.getsockname()[1]
        self._serving = asyncio.create_task(self._rest.serve([listener]))
        await self._rest.listening.wait()

    async def stop(self) -> None:
        """Close both ports and all sessions."""
        if self._door is not None:
            await self._door.stop()
        if self._serving is not None:
            self._rest.should_exit = True
            await self._serving
        if self._node is not None:
            await self._node.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def rest_url(self) -> str:
        """`http://127.0.0.1:PORT`, known after `start`."""
        return f"http://127.0.0.1:{self._rest_port}"

    @property
    def mqtt_host(self) -> str:
        """The name in the door's certificate."""
        return "localhost"

    @property
    def mqtt_port(self) -> int:
        """The port of the MQTT door, known after `start`."""
        return self._mqtt_port if self._door is None else self._door.port

    def point_webhook(self, webhook: Webhook | None) -> None:
        """Send connect events there from now on: the bridge's port is often known only later."""
        self._webhook = webhook
        if self._node is not None:
            self._node.webhook = webhook

    @property
    def events_delivered(self) -> int:
        """How many connect events were answered with 2xx since `start`."""
        return 0 if self._node is None else self._node.delivered

    @property
    def events_lost(self) -> int:
        """How many connect events got no 2xx since `start`; ThingsBoard does not repeat them either."""
        return 0 if self._node is None else self._node.lost

    def reload_certificate(self) -> None:
        """Read the door's certificate and key again; open sessions live on."""
        if self._door is not None:
            self._door.reload_certificate()

    def last_connect(self, device_name: str) -> SeenConnect | None:
        """Return what the door saw of a device's last accepted CONNECT.

        The same stands in the server-scope attribute `lastConnectSeen`, for readers over REST.
        """
        record = self.state.by_name(device_name)
        seen = record.attribute("lastConnectSeen") if record else None
        if seen is None:
            return None
        return SeenConnect(
            client_id=seen["clientId"],
            protocol=seen["protocol"],
            subject_cn=seen["subjectCn"],
            issuer_cn=seen["issuerCn"],
            at=datetime.fromisoformat(seen["at"]),
        )


class _RestServer(uvicorn.Server):
    """A server inside somebody else's program: signals are not its business."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
