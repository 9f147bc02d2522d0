"""What the embedded hawkBit knows: targets and tenant configuration, kept in a folder.

A journal of JSON lines, appended before a change is answered and rewritten when it has grown far beyond what it
says. It survives the death of the process at any moment (a torn last line is dropped); against a power cut it
promises no more than the file system does, because the registry is the truth and repairs what is missing here.
Not here: HTTP, permissions, and who may change what.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hawkbit.errors import HawkbitError

DEFAULT_CONFIGURATION: Mapping[str, Any] = {
    "authentication.gatewaytoken.enabled": False,
    "authentication.gatewaytoken.key": "",
    "authentication.header.enabled": False,
    "authentication.header.authority": "",
    "authentication.targettoken.enabled": False,
    "pollingOverdueTime": "00:05:00",
    "pollingTime": "00:05:00",
}
_GROWTH = 4  # a journal this many times longer than its content is rewritten


class StateFolderUnusable(HawkbitError):
    """The stand-in's folder cannot be read or written, or what is in it was not written by the stand-in."""


@dataclass(frozen=True, slots=True)
class StoredTarget:
    """A target with all that hawkBit keeps of it; times are milliseconds since 1970."""

    number: int
    controller_id: str
    name: str
    description: str | None
    address: str | None
    security_token: str = field(repr=False)
    created_by: str
    created_at: int
    modified_by: str
    modified_at: int
    update_status: str = "unknown"
    last_request_at: int | None = None
    request_attributes: bool = True
    attributes: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConfigurationValue:
    """A tenant's own value of one configuration key."""

    value: Any
    created_by: str
    created_at: int
    modified_by: str
    modified_at: int


class State:
    """All targets and configuration in memory, and their journal. One process, one event loop."""

    def __init__(self, folder: Path, defaults: Mapping[str, Any] = DEFAULT_CONFIGURATION) -> None:
        """Read the folder, made with 0700 where it is missing. Raises StateFolderUnusable."""
        self.defaults = dict(defaults)
        self._targets: dict[str, StoredTarget] = {}
        self._configuration: dict[str, ConfigurationValue] = {}
        self._last_number = 0
        self._journal = folder / "hawkbit.jsonl"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._load()
            self._rewrite()
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StateFolderUnusable(
                f"the embedded hawkBit cannot use {self._journal}; move it away to start with an empty one"
            ) from error

    def close(self) -> None:
        """Let go of the journal; everything is in it already."""
        os.close(self._descriptor)

    def target(self, controller_id: str) -> StoredTarget | None:
        """Return the target of exactly this id."""
        return self._targets.get(controller_id)

    def targets(self) -> Iterable[StoredTarget]:
        """Return all targets in no order."""
        return self._targets.values()

    def next_numbers(self, count: int) -> range:
        """Reserve database ids for new targets; they are never used again."""
        first = self._last_number + 1
        self._last_number += count
        return range(first, first + count)

    def put(self, *targets: StoredTarget) -> None:
        """Add or replace targets, all of them or, when the journal cannot be written, none."""
        if not targets:
            return
        self._append({"targets": [asdict(target) for target in targets]})
        self._targets.update({target.controller_id: target for target in targets})

    def delete(self, controller_id: str) -> None:
        """Remove the target with its metadata and attributes."""
        self._append({"deleted": controller_id})
        del self._targets[controller_id]

    def own_value(self, key: str) -> ConfigurationValue | None:
        """Return the tenant's value of `key`, None where the global default holds."""
        return self._configuration.get(key)

    def value(self, key: str) -> Any:
        """Return the value in force. `key` is one of `defaults`."""
        own = self._configuration.get(key)
        return self.defaults[key] if own is None else own.value

    def configure(self, key: str, value: Any, user: str, now: int) -> ConfigurationValue:
        """Give `key` a value of the tenant's own."""
        known = self._configuration.get(key)
        entry = (
            ConfigurationValue(value, user, now, user, now)
            if known is None
            else replace(known, value=value, modified_by=user, modified_at=now)
        )
        self._append({"configuration": {key: asdict(entry)}})
        self._configuration[key] = entry
        return entry

    def unconfigure(self, key: str) -> None:
        """Let the global default of `key` hold again."""
        self._append({"configuration": {key: None}})
        self._configuration.pop(key, None)

    def _load(self) -> None:
        if not self._journal.exists():
            return
        *lines, torn = self._journal.read_bytes().split(b"\n")
        for line in lines:
            self._replay(json.loads(line))
        del torn  # what follows the last line feed was never answered to anybody

    def _replay(self, record: Mapping[str, Any]) -> None:
        if "targets" in record:
            for fields in record["targets"]:
                target = StoredTarget(**fields)
                self._targets[target.controller_id] = target
                self._last_number = max(self._last_number, target.number)
        elif "deleted" in record:
            self._targets.pop(record["deleted"], None)
        elif "number" in record:
            self._last_number = max(self._last_number, int(record["number"]))
        else:
            for key, entry in record["configuration"].items():
                if entry is None:
                    self._configuration.pop(key, None)
                else:
                    self._configuration[key] = ConfigurationValue(**entry)

    def _append(self, record: Mapping[str, Any]) -> None:
        if self._lines > _GROWTH * (len(self._targets) + len(self._configuration) + 256):
            os.close(self._descriptor)
            self._rewrite()
        line = memoryview(_line(record))
        size = os.fstat(self._descriptor).st_size
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError as error:
            os.ftruncate(self._descriptor, size)  # half a line would spoil the next one
            raise StateFolderUnusable(f"the embedded hawkBit cannot write {self._journal}") from error
        self._lines += 1

    def _rewrite(self) -> None:
        records: list[dict[str, Any]] = [{"number": self._last_number}]
        records += [{"targets": [asdict(target)]} for target in self._targets.values()]
        records += [{"configuration": {key: asdict(own)}} for key, own in self._configuration.items()]
        fresh = self._journal.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(_line(record) for record in records)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._journal)
        self._descriptor = os.open(self._journal, os.O_WRONLY | os.O_APPEND)
        self._lines = len(records)


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"
