"""The rule engine's REST node, as far as the connect event needs it.

One attempt an event, as on queue Main: what fails is lost. At most 16 requests at once and 32 waiting, what
comes on top is lost at once. Those losses are ThingsBoard's, and the bridge must live with them.
"""

import asyncio
import json
import logging
from dataclasses import dataclass, field

import httpx

from thingsboard.rule_chain import READ_TIMEOUT_MS, SECRET_HEADER
from thingsboard.standin_records import Json

CONNECTIONS = 16
WAITING = 32

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where connect events go.

    `http` belongs to the event loop that starts the stand-in, and trusts the CA of the bridge's HTTPS.
    """

    url: str
    secret: str = field(repr=False)
    http: httpx.AsyncClient = field(repr=False)


class RestNode:
    """Posts events from the event loop it was built in; `offer` may be called from any thread."""

    def __init__(self, webhook: Webhook | None) -> None:
        self.webhook = webhook
        self.delivered = 0
        self.lost = 0
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(self, event: Json) -> None:
        """Hand an event over; returns at once."""
        self._loop.call_soon_threadsafe(self._begin, event)

    async def stop(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, event: Json) -> None:
        if self.webhook is None:
            return
        if len(self._tasks) >= CONNECTIONS + WAITING:
            self.lost += 1
            return
        task = self._loop.create_task(self._post(self.webhook, event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _post(self, webhook: Webhook, event: Json) -> None:
        headers = {"Content-Type": "application/json", SECRET_HEADER: webhook.secret}
        body = json.dumps(event, separators=(",", ":")).encode()
        async with self._slots:
            try:
                answer = await webhook.http.post(
                    webhook.url, content=body, headers=headers, timeout=READ_TIMEOUT_MS / 1000
                )
            except (httpx.HTTPError, RuntimeError) as e:  # RuntimeError: the client is closed already
                log.warning("connect event lost: %s", type(e).__name__)
                self.lost += 1
                return
        if answer.is_success:
            self.delivered += 1
        else:
            log.warning("connect event lost: the webhook answered %d", answer.status_code)
            self.lost += 1
