"""The embedded CA on a socket: HTTPS on loopback in the caller's event loop.

Its own certificate comes from its own issuing CA, as with step-ca, and is renewed in place. Not
responsible for what it answers (``ca.standin.authority``).
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self

import uvicorn

from ca.models import Fingerprint, ServerCertificate, TrustAnchor
from ca.standin.api import Api
from ca.standin.authority import DEVICE_PROVISIONER, SERVER_PROVISIONER, Authority, Rules
from ca.standin.files import private_folder, write_private
from ca.standin.store import Signed
from ca.template import MAX_LIFETIME

LOCALHOST: Final = ("localhost", "127.0.0.1", "::1")
"""The names of every server of the embedded stack (WIRE, 5)."""

_SERVER_LIFETIME: Final = timedelta(days=90)
_RENEWAL: Final = timedelta(days=30)
_IDLE_SECONDS: Final = 15


@dataclass(frozen=True, slots=True)
class StandInSettings:
    """What the embedded CA is told.

    ``folder`` holds its keys and its memory (0700). ``server_names`` are the only names that the server
    provisioner certifies. ``host`` is a loopback address; ``port`` 0 is a free one. ``max_duration`` is
    the longest certificate.
    """

    folder: Path
    server_names: tuple[str, ...] = ("localhost",)
    host: str = "127.0.0.1"
    port: int = 0
    max_duration: timedelta = MAX_LIFETIME

    def __post_init__(self) -> None:
        if not ip_address(self.host).is_loopback:
            raise ValueError("the embedded CA listens on loopback only")


class StandInCa:
    """The embedded CA: ``async with StandInCa(settings, clock=...) as ca``.

    A second start with the same folder is the same CA. ``clock()`` is aware UTC. Its keys are made or
    read when the object is built, so that ``anchor`` and ``issue_server_certificate`` work before ``start``.
    """

    device_provisioner: Final = DEVICE_PROVISIONER
    server_provisioner: Final = SERVER_PROVISIONER

    def __init__(self, settings: StandInSettings, *, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._clock = clock
        hosts = ("localhost", "127.0.0.1", "[::1]", "::1")
        rules = Rules(settings.server_names, hosts, settings.max_duration)
        private_folder(settings.folder)
        self._authority = Authority(settings.folder, rules, clock)
        self._port = settings.port
        self._server: _Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        """``https://localhost:PORT``; the port is known once started."""
        return f"https://localhost:{self._port}"

    @property
    def anchor(self) -> TrustAnchor:
        """Its root, issuing CA and intermediate."""
        return self._authority.hierarchy.anchor

    @property
    def fingerprint(self) -> Fingerprint:
        """The root's fingerprint."""
        return self.anchor.root_fingerprint

    @property
    def password(self) -> str:
        """What opens both provisioners' keys; random, kept in the folder."""
        return self._authority.password

    async def start(self) -> None:
        """Bind and serve. ``OSError`` if the port is taken."""
        listening = socket.create_server((self._settings.host, self._settings.port), backlog=512)
        self._port = listening.getsockname()[1]
        certificate = self._renew()
        config = uvicorn.Config(
            Api(self._authority).application(),
            ssl_certfile=certificate,
            ssl_keyfile=certificate,
            lifespan="off",
            log_config=None,
            access_log=False,
            ws="none",
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=5,
        )
        self._server = _Server(config)
        serving = asyncio.create_task(self._server.serve(sockets=[listening]))
        self._tasks = [serving, asyncio.create_task(self._keep_renewed(config))]
        await self._server.listening.wait()

    async def stop(self) -> None:
        """End: requests in progress are answered, idle connections are cut."""
        if self._server is not None:
            self._server.should_exit = True
            self._server.cut_idle()
            self._tasks[1].cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._server, self._tasks = None, []
        self._authority.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    def issue_server_certificate(
        self, names: tuple[str, ...] = LOCALHOST, lifetime: timedelta = _SERVER_LIFETIME
    ) -> ServerCertificate:
        """Issue a server certificate directly, for the HTTPS and MQTT doors of the embedded stack."""
        return self._authority.signer.server_certificate(names, self._clock(), lifetime)

    def signed(self) -> tuple[Signed, ...]:
        """Return every certificate signed over HTTP, by either provisioner, in order."""
        return self._authority.store.signed()

    def signed_serials(self) -> frozenset[int]:
        """Return the serials of every device certificate ever signed."""
        return frozenset(one.serial for one in self.signed() if one.provisioner == DEVICE_PROVISIONER)

    def _renew(self) -> Path:
        made = self.issue_server_certificate()
        path = self._settings.folder / "server.pem"
        write_private(path, (made.chain_pem + made.key_pem).encode())
        return path

    async def _keep_renewed(self, config: uvicorn.Config) -> None:
        while True:
            await _sleep(_RENEWAL.total_seconds())
            path = self._renew()
            if config.ssl is not None:
                config.ssl.load_cert_chain(path)  # the next handshake shows the new one


async def _sleep(seconds: float) -> None:
    """Wait; a seam of its own, so that a test need not wait a month."""
    await asyncio.sleep(seconds)


class _Server(uvicorn.Server):
    """uvicorn as a guest in a loop: it takes no signals, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets=sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def cut_idle(self) -> None:
        """Abort connections on which nobody waits for an answer: a TLS peer may never say goodbye."""
        for connection in list(self.server_state.connections):
            cycle = getattr(connection, "cycle", None)
            transport = getattr(connection, "transport", None)
            if transport is not None and (cycle is None or cycle.response_complete):
                transport.abort()
