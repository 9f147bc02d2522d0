"""What the systems around the bridge say themselves, read over their own interfaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from tests.e2e.processes import Bridge


@dataclass
class ThingsBoard:
    """What ThingsBoard says itself, over REST."""

    http: httpx.Client

    def attributes(self, device: str) -> dict[str, Any] | None:
        """A device's server-scope attributes; None where there is no such device."""
        found = self.http.get("/api/tenant/devices", params={"deviceName": device})
        if found.status_code == httpx.codes.NOT_FOUND:
            return None
        uuid = found.raise_for_status().json()["id"]["id"]
        answer = self.http.get(f"/api/plugins/telemetry/DEVICE/{uuid}/values/attributes/SERVER_SCOPE")
        return {one["key"]: one["value"] for one in answer.raise_for_status().json()}

    def credential(self, device: str) -> str | None:
        """What admits the device: of a leaf, its digest as ThingsBoard makes it."""
        found = self.http.get("/api/tenant/devices", params={"deviceName": device})
        if found.status_code == httpx.codes.NOT_FOUND:
            return None
        uuid = found.raise_for_status().json()["id"]["id"]
        answer = self.http.get(f"/api/device/{uuid}/credentials").raise_for_status().json()
        return str(answer["credentialsId"])


@dataclass
class Hawkbit:
    """What hawkBit says itself, over the Management API."""

    http: httpx.Client

    def target(self, device: str) -> dict[str, Any] | None:
        answer = self.http.get(f"/rest/v1/targets/{device}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        found: dict[str, Any] = answer.raise_for_status().json()
        return found


@dataclass
class Eyes:
    """ThingsBoard and hawkBit, logged in as their operator; close() ends both."""

    thingsboard: ThingsBoard
    hawkbit: Hawkbit

    def close(self) -> None:
        self.thingsboard.http.close()
        self.hawkbit.http.close()


def open_eyes(bridge: Bridge, thingsboard: tuple[str, str], hawkbit: tuple[str, str]) -> Eyes:
    platform = httpx.Client(base_url=bridge.ready["thingsboard_url"], trust_env=False, timeout=10)
    login = dict(zip(("username", "password"), thingsboard, strict=True))
    token = platform.post("/api/auth/login", json=login).raise_for_status().json()["token"]
    platform.headers["X-Authorization"] = f"Bearer {token}"
    updates = httpx.Client(base_url=bridge.ready["hawkbit_url"], auth=hawkbit, trust_env=False, timeout=10)
    return Eyes(ThingsBoard(platform), Hawkbit(updates))
