"""One device of the stand-in with its credential and attributes: its JSON shape and its file.

Not responsible for rules between devices (see `standin_state`).
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]

NULL_ID = "13814000-1dd2-11b2-8080-808080808080"
"""ThingsBoard's id for "none", e.g. of the customer of a device that has none."""


def entity(kind: str, identifier: str) -> Json:
    """Name an entity as ThingsBoard does."""
    return {"entityType": kind, "id": identifier}


def normalized(certificate: str) -> str:
    """Strip a PEM of markers and line ends, and check nothing, as ThingsBoard does.

    A chain becomes one long text whose hash no leaf has; "garbage" stays "garbage".
    """
    for noise in ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----", "\n", "\r"):
        certificate = certificate.replace(noise, "")
    return certificate


def certificate_hash(value: str) -> str:
    """Return the credentialsId of a stored certificate."""
    return hashlib.sha3_256(value.encode()).hexdigest()


def leaf_hash(der: bytes) -> str:
    """Return the hash that the door looks a presented leaf up by."""
    return certificate_hash(base64.b64encode(der).decode())


@dataclass(slots=True)
class DeviceRecord:
    """A device as it is stored. Attributes: scope -> key -> [value, milliseconds]."""

    device: Json
    credentials: Json
    attributes: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The device's UUID."""
        return str(self.device["id"]["id"])

    @property
    def name(self) -> str:
        """The device's name."""
        return str(self.device["name"])

    @property
    def credentials_id(self) -> str:
        """Hash or token by which the device is admitted."""
        return str(self.credentials["credentialsId"])

    def attribute(self, key: str, default: Any = None) -> Any:
        """Read a server-scope attribute."""
        return self.attributes.get("SERVER_SCOPE", {}).get(key, [default])[0]

    def listed(self, scopes: Iterable[str], keys: frozenset[str] | None) -> list[Json]:
        """Render attributes as the REST API does; unknown keys are left out."""
        return [
            {"lastUpdateTs": at, "key": key, "value": value}
            for scope in scopes
            for key, (value, at) in self.attributes.get(scope, {}).items()
            if keys is None or key in keys
        ]

    def save(self, folder: Path) -> None:
        """Write the record beside the others, at once or not at all."""
        content = {"device": self.device, "credentials": self.credentials, "attributes": self.attributes}
        write_json(folder / f"{self.id}.json", content)

    @classmethod
    def load(cls, path: Path) -> "DeviceRecord":
        """Read a record back."""
        return cls(**json.loads(path.read_text()))


def write_json(path: Path, content: object) -> None:
    """Replace a file (0600) by new content in one step."""
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file, separators=(",", ":"))
    draft.replace(path)
