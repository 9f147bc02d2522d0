"""An embedded hawkBit: the Management API and DDI calls that this project meets, with hawkBit's own traps."""

from __future__ import annotations

from pathlib import Path
from typing import Self


class EmbeddedHawkbit:
    """Signature first; see the methods."""

    def __init__(
        self,
        folder: Path,
        username: str,
        password: str,
        *,
        port: int = 0,
        dialect: str = "1.0.4",
    ) -> None:
        raise NotImplementedError

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, while started."""
        raise NotImplementedError

    async def start(self) -> None:
        """Bind loopback and answer requests in the caller's event loop."""
        raise NotImplementedError

    async def stop(self) -> None:
        """End, having written everything."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(self, *_: object) -> None:
        raise NotImplementedError
