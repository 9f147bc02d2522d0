"""ThingsBoard's stand-in beside the real servers: no package registry carries a ThingsBoard.

It runs in a thread with an event loop of its own: REST, and the MQTT door that admits by the leaf's hash and posts the
connect event to the bridge.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from ca.bootstrap import context_for_root
from ca.models import TrustAnchor
from compose.real.owned_process import ServerFailed
from thingsboard.standin import EmbeddedThingsBoard, Webhook

_SECONDS = 20.0


@dataclass(frozen=True)
class Door:
    """Who the stand-in takes for its tenant administrator, and how it reaches the bridge."""

    folder: Path
    certificate: Path
    key: Path
    anchor: TrustAnchor
    username: str
    password: str
    bridge_url: str
    webhook_secret: str


@contextmanager
def thingsboard_standin(door: Door) -> Iterator[EmbeddedThingsBoard]:
    """Run the stand-in inside the block.

    :raises ServerFailed: it did not start in time.
    """
    started: list[EmbeddedThingsBoard] = []
    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def hold() -> None:
        try:
            async with AsyncExitStack() as stack:
                context = context_for_root(door.anchor)
                http = await stack.enter_async_context(httpx.AsyncClient(verify=context, trust_env=False))
                webhook = Webhook(f"{door.bridge_url}/webhooks/thingsboard", door.webhook_secret, http)
                standin = EmbeddedThingsBoard(
                    door.folder,
                    server_cert=door.certificate,
                    server_key=door.key,
                    client_ca=door.anchor.root_pem,
                    username=door.username,
                    password=door.password,
                    webhook=webhook,
                )
                started.append(await stack.enter_async_context(standin))
                ready.set()
                await stop.wait()
        finally:
            ready.set()

    thread = threading.Thread(target=loop.run_until_complete, args=(hold(),), name="thingsboard")
    thread.start()
    try:
        if not ready.wait(_SECONDS) or not started:
            raise ServerFailed("ThingsBoard's stand-in did not start; its traceback is above")
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(_SECONDS)
        loop.close()
