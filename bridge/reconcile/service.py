"""The reconciler of one process: a worker a system, the sweep of attempts, and the ears for changes and hints."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, Final

import structlog

from bridge.errors import BridgeError
from bridge.model.identity import DeviceId
from bridge.ports.registry import Registry
from bridge.ports.runtime import Clock
from bridge.reconcile.worker import Worker

_log = structlog.get_logger("bridge.reconcile")

_SWEEP_EVERY: Final = timedelta(seconds=2)
_SWEEP_BATCH: Final = 200
_SETTLE: Final = 0.03
"""Seconds between two rounds of waking: commits come in bursts."""


class Hints:
    """A bounded ear for events: never blocks the caller; what it cannot hold is dropped, which only delays."""

    def __init__(self, capacity: int = 10_000) -> None:
        self._waiting: dict[str, DeviceId] = {}
        self._capacity = capacity
        self._some = asyncio.Event()

    def offer(self, devices: Sequence[DeviceId]) -> bool:
        """Remember to look at these; False if there is no room. The same id twice takes one place."""
        for device in devices:
            if device.folded not in self._waiting and len(self._waiting) >= self._capacity:
                return False
            self._waiting[device.folded] = device
            self._some.set()
        return True

    async def take(self) -> tuple[DeviceId, ...]:
        """Wait for at least one and return all."""
        await self._some.wait()
        self._some.clear()
        taken, self._waiting = tuple(self._waiting.values()), {}
        return taken


class Reconciler:
    """Runs until cancelled; every part survives a store or a system that is down."""

    def __init__(
        self,
        registry: Registry,
        workers: Sequence[Worker],
        hints: Hints,
        clock: Clock,
        count_unknown: Callable[[int], None] = lambda _: None,
        beside: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
    ) -> None:
        """Take the parts; ``beside`` are other endless works of the server that live and end with it."""
        self._beside = tuple(beside)
        self._count_unknown = count_unknown
        self._registry = registry
        self._workers = tuple(workers)
        self._hints = hints
        self._clock = clock

    async def run(self) -> None:
        """Work until cancelled; claims that are held then are finished first."""
        async with asyncio.TaskGroup() as group:
            for worker in self._workers:
                group.create_task(worker.run())
            group.create_task(self._listen())
            group.create_task(self._sweep())
            group.create_task(self._take_hints())
            for work in self._beside:
                group.create_task(work())

    async def _listen(self) -> None:
        while True:
            try:
                if await self._registry.changed(5.0):
                    for worker in self._workers:
                        worker.wake()
            except BridgeError as e:
                _log.warning("reconcile.listen", error=str(e))
                await asyncio.sleep(1.0)
            await asyncio.sleep(_SETTLE)

    async def _sweep(self) -> None:
        while True:
            try:
                swept = await self._registry.write(lambda tx: tx.sweep_attempts(self._clock.now(), _SWEEP_BATCH))
                if swept:
                    _log.info("sweep", revoking=swept)
            except BridgeError as e:
                _log.warning("reconcile.sweep", error=str(e))
            await asyncio.sleep(_SWEEP_EVERY.total_seconds())

    async def _take_hints(self) -> None:
        while True:
            await self._write_hints(await self._hints.take())

    async def _write_hints(self, devices: Sequence[DeviceId]) -> None:
        try:
            known = await self._registry.write(lambda tx: tx.hint(devices, self._clock.now()))
            self._count_unknown(len(devices) - known)
        except BridgeError as e:
            _log.warning("reconcile.hints", error=str(e), lost=len(devices))
