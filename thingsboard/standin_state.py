"""What the stand-in knows of devices: names, credentials, attributes, and the rules between them.

Safe for the REST side and the MQTT door, which live in different threads. Every change is on disk before the
call returns, one file a device. Knows nothing of HTTP and MQTT; ends sessions through a callback.
"""

import secrets
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from thingsboard.standin_platform import PlatformRecord
from thingsboard.standin_records import (
    NULL_ID,
    DeviceRecord,
    Json,
    certificate_hash,
    entity,
    leaf_hash,
    normalized,
)
from thingsboard.standin_refusals import Refusal, bad, not_found, stale

INACTIVITY_TIMEOUT_MS = 600_000
"""Milliseconds without a sign of life after which ThingsBoard calls a device inactive."""

SCOPES = ("CLIENT_SCOPE", "SERVER_SCOPE", "SHARED_SCOPE")
_WRITABLE = frozenset({"SERVER_SCOPE", "SHARED_SCOPE"})
_X509 = "X509_CERTIFICATE"
_TOKEN = "ACCESS_TOKEN"  # noqa: S105 - the name of a kind, not a token


class TenantState:
    """All devices of the one tenant."""

    def __init__(self, folder: Path, platform: PlatformRecord, *, clock: Callable[[], datetime]) -> None:
        self._folder = folder / "devices"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._platform = platform
        self._clock = clock
        self._lock = threading.RLock()
        self._devices = {record.id: record for record in map(DeviceRecord.load, sorted(self._folder.glob("*.json")))}
        self._names = {record.name: record for record in self._devices.values()}
        self._doors = {record.credentials_id: record for record in self._devices.values()}
        self.end_session: Callable[[str], None] = lambda _device_id: None
        """Called with a device's id when its live session must end."""

    def now_ms(self) -> int:
        """Return the time as ThingsBoard writes it."""
        return int(self._clock().timestamp() * 1000)

    # devices

    def create(self, wanted: Json, credentials: Json | None) -> Json:
        """Create a device; the name is a mutex, the certificate is not looked at."""
        with self._lock:
            self._check_name(wanted)
            profile = self._platform.profile_of(wanted)
            now = self.now_ms()
            device = {
                "id": entity("DEVICE", str(uuid4())),
                "createdTime": now,
                "tenantId": entity("TENANT", self._platform.tenant_id),
                "customerId": entity("CUSTOMER", NULL_ID),
                "name": wanted["name"],
                "type": profile["name"],
                "label": wanted.get("label"),
                "deviceProfileId": profile["id"],
                "firmwareId": None,
                "softwareId": None,
                "externalId": None,
                "version": 1,
                "additionalInfo": wanted.get("additionalInfo"),
                "deviceData": {
                    "configuration": {"type": "DEFAULT"},
                    "transportConfiguration": {"type": profile["transportType"]},
                },
            }
            stored = {
                "id": {"id": str(uuid4())},
                "createdTime": now,
                "deviceId": device["id"],
                **self._checked(credentials or {"credentialsType": _TOKEN, "credentialsId": secrets.token_hex(10)}),
                "version": 1,
            }
            record = DeviceRecord(device, stored, {"SERVER_SCOPE": {"active": [False, now]}})
            record.save(self._folder)
            self._devices[record.id] = self._names[record.name] = self._doors[record.credentials_id] = record
            return device

    def update(self, wanted: Json) -> Json:
        """Change a device's name or label; its version must be the stored one."""
        with self._lock:
            record = self.get(str((wanted.get("id") or {}).get("id")))
            if wanted.get("version") not in (None, record.device["version"]):
                raise stale("Device")
            if wanted.get("name") != record.name:
                self._check_name(wanted)
            before = record.name
            record.device = {
                **record.device,
                "name": wanted["name"],
                "label": wanted.get("label"),
                "version": record.device["version"] + 1,
            }
            record.save(self._folder)
            del self._names[before]
            self._names[record.name] = record
            return record.device

    def get(self, device_id: str) -> DeviceRecord:
        """Find a device by id, or refuse with 404/32."""
        with self._lock:
            if device_id not in self._devices:
                raise not_found(f"Device with id [{device_id}] is not found")
            return self._devices[device_id]

    def by_name(self, name: str) -> DeviceRecord | None:
        """Find a device by its exact name."""
        with self._lock:
            return self._names.get(name)

    def search(self, text: str) -> list[Json]:
        """List devices whose name contains `text`, newest first, without regard to case."""
        with self._lock:
            found = [r.device for r in self._devices.values() if text.lower() in r.name.lower()]
        return sorted(found, key=lambda device: -int(device["createdTime"]))

    def delete(self, device_id: str) -> None:
        """Delete a device and end its session."""
        with self._lock:
            record = self.get(device_id)
            (self._folder / f"{record.id}.json").unlink()
            del self._devices[record.id], self._names[record.name], self._doors[record.credentials_id]
        self.end_session(device_id)

    def _check_name(self, wanted: Json) -> None:
        name = wanted.get("name")
        if not isinstance(name, str) or not name.strip():
            raise bad("Device name should be specified!")
        if name in self._names:
            raise bad("Device with such name already exists!")

    # credentials

    def replace_credentials(self, wanted: Json) -> Json:
        """Replace a device's credential. Ends the live session, also where nothing changes."""
        with self._lock:
            record = self.get(str((wanted.get("deviceId") or {}).get("id")))
            stored = record.credentials
            if (wanted.get("id") or {}).get("id") != stored["id"]["id"]:
                raise bad("Credentials for this device are already specified!")
            if wanted.get("version") not in (None, stored["version"]):
                raise stale("Entity")
            changed = self._checked(wanted, of=record)
            del self._doors[record.credentials_id]
            record.credentials = {**stored, **changed, "version": stored["version"] + 1}
            record.save(self._folder)
            self._doors[record.credentials_id] = record
        self.end_session(record.id)
        return record.credentials

    def admitted(self, leaf_der: bytes) -> DeviceRecord | None:
        """Find the device whose credential is exactly this leaf."""
        with self._lock:
            record = self._doors.get(leaf_hash(leaf_der))
            return record if record and record.credentials["credentialsType"] == _X509 else None

    def admitted_by_token(self, token: str) -> DeviceRecord | None:
        """Find the device whose credential is this access token."""
        with self._lock:
            record = self._doors.get(token)
            return record if record and record.credentials["credentialsType"] == _TOKEN else None

    def _checked(self, wanted: Json, of: DeviceRecord | None = None) -> Json:
        kind, value, identifier = wanted.get("credentialsType"), wanted.get("credentialsValue"), None
        if kind == _X509:
            if not isinstance(value, str) or not value:
                raise bad("Device credentials value should be specified!")
            value = normalized(value)
            identifier = certificate_hash(value)
        else:
            identifier = wanted.get("credentialsId")
        if not isinstance(kind, str):
            raise bad("Device credentials type should be specified!")
        if not isinstance(identifier, str) or not identifier:
            raise bad("Device credentials id should be specified!")
        if self._doors.get(identifier, of) is not of:
            raise bad("Device credentials are already assigned to another device!")
        return {"credentialsType": kind, "credentialsId": identifier, "credentialsValue": value}

    # attributes

    def write_attributes(self, device_id: str, scope: str, values: Any) -> None:
        """Set attributes, with telemetry routes' plain-text refusals."""
        if scope not in _WRITABLE:
            raise Refusal(400, f"Invalid scope: {scope}")
        if not isinstance(values, dict):
            raise Refusal(400, "Request is not a JSON object")
        if not values:
            raise Refusal(400, "No attributes data found in request body!")
        with self._lock:
            record, now = self._for_telemetry(device_id), self.now_ms()
            kept = record.attributes.setdefault(scope, {})
            kept.update({key: [value, now] for key, value in values.items()})
            record.save(self._folder)

    def delete_attributes(self, device_id: str, scope: str, keys: frozenset[str]) -> None:
        """Remove attributes; unknown ones are ignored."""
        with self._lock:
            record = self._for_telemetry(device_id)
            kept = record.attributes.get(scope, {})
            record.attributes[scope] = {key: entry for key, entry in kept.items() if key not in keys}
            record.save(self._folder)

    def attributes(self, device_id: str, scope: str | None, keys: frozenset[str] | None) -> list[Json]:
        """List attributes of one scope or of all."""
        if scope is not None and scope not in SCOPES:
            raise Refusal(400, f"Invalid scope: {scope}")
        with self._lock:
            return self._for_telemetry(device_id).listed(SCOPES if scope is None else (scope,), keys)

    def _for_telemetry(self, device_id: str) -> DeviceRecord:
        if device_id not in self._devices:
            raise Refusal(404, "Device with requested id wasn't found!")
        return self._devices[device_id]

    # sessions

    def connected(self, device_id: str, seen: Json) -> Json | None:
        """Note an accepted CONNECT and return the event's data; None where the device is gone by now."""
        with self._lock:
            record = self._devices.get(device_id)
            if record is None:
                return None
            now = self.now_ms()
            event = {
                "lastConnectTime": now,
                "lastActivityTime": record.attribute("lastActivityTime", 0),
                "lastDisconnectTime": record.attribute("lastDisconnectTime", 0),
                "lastInactivityAlarmTime": record.attribute("inactivityAlarmTime", 0),
                "inactivityTimeout": INACTIVITY_TIMEOUT_MS,
            }
            kept = {"active": True, "lastConnectTime": now, "lastActivityTime": now, "lastConnectSeen": seen}
            self._keep(record, kept, now)
            return {
                "event": "CONNECT_EVENT",
                "deviceName": record.name,
                "deviceType": record.device["type"],
                "state": event,
            }

    def disconnected(self, device_id: str) -> None:
        """Note the end of a session; `active` stays until the inactivity time-out, as in ThingsBoard."""
        with self._lock:
            if (record := self._devices.get(device_id)) is not None:
                now = self.now_ms()
                self._keep(record, {"lastDisconnectTime": now, "lastActivityTime": now}, now)

    def _keep(self, record: DeviceRecord, values: Json, now: int) -> None:
        kept = record.attributes.setdefault("SERVER_SCOPE", {})
        kept.update({key: [value, now] for key, value in values.items()})
        record.save(self._folder)
