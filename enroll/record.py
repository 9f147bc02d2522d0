"""The flag ``enrolled``: what later runs need to know, and nothing secret.

Responsible for the JSON in the file: written last, so that its presence says that every other file is there.
Not responsible for whether the other files still hold (``enroll.disk.folder``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from enroll.names import HostPort
from enroll.wire import CertificateState

NAME: Final = "enrolled"
"""The file's name."""

VERSION: Final = 1


class RecordError(ValueError):
    """The flag's content is not a record of this version."""


@dataclass(frozen=True, slots=True)
class Record:
    """The non-secret part of the bridge's answer, as stored. Times are aware UTC."""

    device_id: str
    generation: int
    serial: int
    leaf_sha256: str
    address: str | None
    """VPN address without prefix."""
    not_after: datetime
    renew_after: datetime
    enrolled_at: datetime
    bridge: str
    endpoint: HostPort | None
    """The VPN server; ``None`` without a lease."""
    mqtt: HostPort | None
    hawkbit_url: str | None
    hawkbit_tenant: str | None
    state: CertificateState = CertificateState.CURRENT
    """``pending`` only in ``next/``, until the bridge has confirmed the pair."""
    complete: bool = True
    """False where the identity was taken over from an older client: then the servers are not known yet."""
    seen_at: datetime | None = None
    """The latest time that the bridge proved to this device; part of the floor (``enroll.trust.clock``)."""

    def to_json(self) -> bytes:
        """Return the file's content."""
        hawkbit = {"url": self.hawkbit_url, "tenant": self.hawkbit_tenant} if self.hawkbit_url else None
        fields = {
            "version": VERSION,
            "device_id": self.device_id,
            "generation": self.generation,
            "serial": str(self.serial),
            "leaf_sha256": self.leaf_sha256,
            "address": self.address,
            "not_after": rfc3339(self.not_after),
            "renew_after": rfc3339(self.renew_after),
            "enrolled_at": rfc3339(self.enrolled_at),
            "bridge": self.bridge,
            "endpoint": str(self.endpoint) if self.endpoint else None,
            "mqtt": {"host": self.mqtt.host, "port": self.mqtt.port} if self.mqtt else None,
            "hawkbit": hawkbit,
            "state": str(self.state),
            "complete": self.complete,
            "seen_at": rfc3339(self.seen_at) if self.seen_at else None,
        }
        return (json.dumps(fields, indent=2) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> Record:
        """Parse the file's content.

        :raises RecordError: torn, foreign or of another version.
        """
        try:
            return cls._parse(json.loads(content))
        except RecordError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as e:
            raise RecordError("is not a record of this agent") from e

    @classmethod
    def _parse(cls, data: Mapping[str, Any]) -> Record:
        if data["version"] != VERSION:
            raise RecordError(f"is of version {data['version']!r}, not {VERSION}")
        mqtt, hawkbit = data["mqtt"], data["hawkbit"]
        return cls(
            device_id=_text(data["device_id"]),
            generation=int(data["generation"]),
            serial=int(_text(data["serial"])),
            leaf_sha256=_text(data["leaf_sha256"]),
            address=None if data["address"] is None else _text(data["address"]),
            not_after=_time(data["not_after"]),
            renew_after=_time(data["renew_after"]),
            enrolled_at=_time(data["enrolled_at"]),
            bridge=_text(data["bridge"]),
            endpoint=None if data["endpoint"] is None else HostPort.parse(_text(data["endpoint"])),
            mqtt=None if mqtt is None else HostPort(_text(mqtt["host"]), int(mqtt["port"])),
            hawkbit_url=None if hawkbit is None else _text(hawkbit["url"]),
            hawkbit_tenant=None if hawkbit is None else _text(hawkbit["tenant"]),
            state=CertificateState(_text(data.get("state", CertificateState.CURRENT))),
            complete=data.get("complete", True) is True,
            seen_at=None if data.get("seen_at") is None else _time(data["seen_at"]),
        )


def rfc3339(moment: datetime) -> str:
    """Return the time as RFC 3339 in UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise RecordError("holds something else than text")
    return value


def _time(value: object) -> datetime:
    moment = datetime.fromisoformat(_text(value))
    if moment.tzinfo is None:
        raise RecordError("holds a time without offset")
    return moment.astimezone(UTC)
