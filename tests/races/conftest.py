"""A whole bridge in this process, embedded: uvicorn on loopback over TLS, the real registry, the real stand-ins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
import pytest_asyncio

from bridge.adapters.embedded import EmbeddedStack
from bridge.adapters.runtime import SystemClock
from bridge.app.serving import Running, Serving, running
from bridge.config import Settings
from bridge.lifecycle.service import Lifecycle
from bridge.model.identity import DeviceId
from bridge.model.records import Issuance, System
from bridge.store.open import RegistryStore, open_registry
from ca.bootstrap import context_for_root
from tests.races.contenders import Crowd


@dataclass
class Bridge:
    """The running server, an operator beside it, and eyes on the CA."""

    running: Running
    stack: EmbeddedStack
    store: RegistryStore
    """Opened a second time, as a command of the operator's would."""
    crowd: Crowd
    _numbers: Any = field(default_factory=count)

    @property
    def operator(self) -> Lifecycle:
        """Orders."""
        return Lifecycle(self.store, SystemClock(), "operator")

    @property
    def root_sha256(self) -> str:
        """What devices pin, and make their proofs for."""
        return str(self.running.ready()["root_sha256"])

    def name(self, prefix: str = "cam") -> str:
        """An id that no other test uses."""
        return f"{prefix}-{next(self._numbers)}"

    async def issuances(self, name: str) -> tuple[Issuance, ...]:
        """What the registry has of an id."""
        return await self.store.read(lambda tx: tx.issuances(DeviceId(name)))

    def signed(self, *names: str) -> list[int]:
        """Serials that the CA signed for ids, spelled exactly so."""
        return [one.serial for one in self.stack.ca.signed() if one.name in names]

    async def certificates_of(self, *names: str) -> list[int]:
        """The CA's serials of the ids, after comparing them with the registry's, to the last one."""
        known = {str(one.serial) for name in names for one in await self.issuances(name) if one.leaf is not None}
        signed = self.signed(*names)
        assert {str(serial) for serial in signed} == known
        return signed


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bridge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bridge]:
    data = tmp_path_factory.mktemp("bridge")
    settings = Settings(bridge_data=data, bridge_admission="open")
    async with running(settings, Serving(port=0)) as started:
        assert started.stack is not None
        store = await open_registry(
            data / "registry.sqlite",
            systems=frozenset(System),
            quarantine=settings.bridge_lease_quarantine,
            migrate=False,
        )
        crowd = Crowd([started.url], context_for_root(started.stack.ca.anchor))
        try:
            yield Bridge(started, started.stack, store, crowd)
        finally:
            await store.close()
