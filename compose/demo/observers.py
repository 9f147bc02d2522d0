"""What the outside systems say themselves: read back over their own interfaces, not taken from the bridge."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import httpx

from compose.demo.processes import Bridge

_USER: Final = "iot-bridge"


@dataclass(frozen=True, slots=True)
class ThingsBoard:
    """The REST interface of ThingsBoard."""

    http: httpx.Client

    def attributes(self, device_id: str) -> dict[str, Any] | None:
        """Return a device's server-scope attributes; ``None`` where there is no such device."""
        found = self.http.get("/api/tenant/devices", params={"deviceName": device_id})
        if found.status_code == HTTPStatus.NOT_FOUND:
            return None
        uuid = found.raise_for_status().json()["id"]["id"]
        answer = self.http.get(f"/api/plugins/telemetry/DEVICE/{uuid}/values/attributes/SERVER_SCOPE")
        return {one["key"]: one["value"] for one in answer.raise_for_status().json()}


@dataclass(frozen=True, slots=True)
class Hawkbit:
    """The Management API of hawkBit."""

    http: httpx.Client

    def target(self, device_id: str) -> dict[str, Any] | None:
        """Return the target; ``None`` where there is none."""
        answer = self.http.get(f"/rest/v1/targets/{device_id}")
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return None
        found: dict[str, Any] = answer.raise_for_status().json()
        return found


@dataclass(frozen=True, slots=True)
class WireGuardFolder:
    """The files that bridge and WireGuard server share."""

    bridge: Bridge

    def address(self, device_id: str) -> str | None:
        """Return a device's address in ``cdm_peers.json``."""
        return self._read("cdm_peers.json").get(device_id)

    def applied(self, address: str) -> bool:
        """Whether the interface is reported to hold a peer with this address."""
        peers = self._read("applied.json").get("peers", ())
        return any(f"{address}/32" in peer["allowed_ips"] for peer in peers)

    def _read(self, name: str) -> dict[str, Any]:
        path = self.bridge.data / "embedded" / "wg-data" / name
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return content


def log_in(bridge: Bridge) -> tuple[ThingsBoard, Hawkbit]:
    """Return clients that are logged in; both live until the process ends.

    :raises httpx.HTTPError: a system refused the log-in or did not answer.
    """
    thingsboard = httpx.Client(base_url=bridge.thingsboard_url, trust_env=False, timeout=10)
    login = {"username": _USER, "password": bridge.operator_secret}
    token = thingsboard.post("/api/auth/login", json=login).raise_for_status().json()["token"]
    thingsboard.headers["X-Authorization"] = f"Bearer {token}"
    auth = (_USER, bridge.operator_secret)
    hawkbit = httpx.Client(base_url=bridge.hawkbit_url, auth=auth, trust_env=False, timeout=10)
    return ThingsBoard(thingsboard), Hawkbit(hawkbit)
