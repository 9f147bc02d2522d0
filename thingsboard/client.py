"""The calls that enrollment, connect and decommission make on ThingsBoard's REST API.

Responsible for asking and understanding (docs: https://thingsboard.io/docs/reference/rest-api/). It decides
nothing: whether a device is ours, and what to do about a conflict, is the caller's. It never builds an HTTP
client and keeps nothing but the log-in and the default profile's id.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from thingsboard import answers
from thingsboard.errors import CredentialsMismatch, DeviceExists, DeviceGone, StaleVersion
from thingsboard.login import Login
from thingsboard.models import (
    ChainProfile,
    Credentials,
    CredentialsType,
    JsonValue,
    Leaf,
    PlatformDevice,
    PlatformHealth,
    ServerAttributes,
    require_uuid,
)
from thingsboard.transport import Answer, Transport, bounded, failure

PAGE = 100
_PAGES = 100


class ThingsBoardClient:
    """Talks to one tenant of one ThingsBoard, 3.6 to 4.4.

    Every call ends within `transport.TOTAL_TIMEOUT` seconds and raises nothing but `errors.PlatformError`
    (and ValueError for a `device_id` that is no UUID, which then goes nowhere).
    A 401 is answered by logging in once more; simultaneous calls share that log-in. `random_token` makes the
    secret of a tombstone, `clock` counts monotonic seconds.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        url: str,
        username: str,
        password: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        random_token: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._transport = Transport(http, url)
        self._login = Login(self._transport, username, password, clock=clock)
        self._random_token = random_token
        self._profile_id: str | None = None

    @bounded
    async def check(self) -> PlatformHealth:
        """Log in and read what a configuration check shows."""
        self._profile_id = None
        return PlatformHealth(await self._default_profile(), await self._chain_profiles())

    @bounded
    async def default_profile(self) -> str:
        """Return the id of the tenant's default device profile; asked once, then remembered."""
        return await self._default_profile()

    @bounded
    async def chain_profiles(self) -> tuple[ChainProfile, ...]:
        """List the device profiles that trust certificates by their issuer. The bridge warns about them."""
        return await self._chain_profiles()

    @bounded
    async def find_device(self, name: str) -> PlatformDevice | None:
        """Look a device up by its name (ThingsBoard's names are case-sensitive), None where there is none."""
        answer = await self._ask("GET", "/api/tenant/devices", params={"deviceName": name}, absent_ok=True)
        return None if answer is None else answers.device(answer.json())

    @bounded
    async def get_device(self, device_id: str) -> PlatformDevice | None:
        """Read a device by its id, None where it is gone."""
        answer = await self._ask("GET", f"/api/device/{_uuid(device_id)}", absent_ok=True)
        return None if answer is None else answers.device(answer.json())

    @bounded
    async def create_device(self, name: str, leaf: Leaf, *, label: str | None = None) -> PlatformDevice:
        """Create a device in the default profile, with the leaf alone as its credential.

        Never repeated once it may have reached ThingsBoard. The stored credential is read back and compared,
        since ThingsBoard takes anything for a certificate. Raises `DeviceExists` (this call is a safe mutex
        on the name), `CertificateTaken`, `CredentialsMismatch`.
        """
        profile = {"entityType": "DEVICE_PROFILE", "id": await self._default_profile()}
        body = {
            "device": {"name": name, "label": label, "deviceProfileId": profile},
            "credentials": {
                "credentialsType": CredentialsType.X509_CERTIFICATE.value,
                "credentialsId": None,
                "credentialsValue": leaf.pem,
            },
        }
        try:
            made = answers.device((await self._write("/api/device-with-credentials", body)).json())
        except StaleVersion as e:  # a version that says 409 for a duplicate name
            raise DeviceExists(str(e)) from e
        _compare(await self._credentials(made.id), leaf)
        return made

    @bounded
    async def credentials(self, device_id: str) -> Credentials:
        """Read a device's credential. Raises `DeviceGone`."""
        return await self._credentials(device_id)

    @bounded
    async def replace_by_leaf(self, stored: Credentials, leaf: Leaf) -> Credentials:
        """Make `leaf` the credential, provided that `stored` is still what ThingsBoard holds.

        **Closes the device's live session, also where the leaf is the same**: compare before. Raises
        `StaleVersion` (read again), `DeviceGone`, `CertificateTaken`, `CredentialsMismatch`.
        """
        changed = await self._replace(stored, CredentialsType.X509_CERTIFICATE, None, leaf.pem)
        _compare(changed, leaf)
        return changed

    @bounded
    async def replace_by_tombstone(self, stored: Credentials) -> Credentials:
        """Put a random access token in the credential's place: from then on no certificate opens the door.

        The live session ends within about 50 ms. Raises `StaleVersion`, `DeviceGone`, `CredentialsMismatch`.
        """
        token = self._random_token()
        changed = await self._replace(stored, CredentialsType.ACCESS_TOKEN, token, None)
        if not changed.is_tombstone or changed.credentials_id != token:
            raise CredentialsMismatch("ThingsBoard stored another credential than the tombstone it was sent")
        return changed

    @bounded
    async def write_attributes(self, device_id: str, values: Mapping[str, JsonValue]) -> None:
        """Set server-scope attributes; others stay. Does not disturb the session. Raises `DeviceGone`."""
        if not values:  # ThingsBoard answers 400 to an empty object
            return
        path = f"/api/plugins/telemetry/DEVICE/{_uuid(device_id)}/attributes/SERVER_SCOPE"
        await self._write(path, dict(values), idempotent=True)

    @bounded
    async def attributes(self, device_id: str, *keys: str) -> ServerAttributes:
        """Read server-scope attributes, all of them without `keys`. Raises `DeviceGone`."""
        path = f"/api/plugins/telemetry/DEVICE/{_uuid(device_id)}/values/attributes/SERVER_SCOPE"
        answer = await self._read(path, {"keys": ",".join(keys)} if keys else None)
        return answers.attributes(answer.json())

    @bounded
    async def delete_device(self, device_id: str) -> bool:
        """Delete a device and end its session; False where it was gone already."""
        answer = await self._ask("DELETE", f"/api/device/{_uuid(device_id)}", absent_ok=True)
        return answer is not None

    @bounded
    async def request(
        self, method: str, path: str, body: object = None, params: Mapping[str, str] | None = None
    ) -> Any:
        """Make another call of the REST API under this log-in, for the rule chain; JSON in, JSON out.

        Only GET and DELETE are repeated after a lost connection.
        """
        answer = await self._ask(method, path, body=body, params=params)
        return answer.json() if answer is not None and answer.body else None

    async def _default_profile(self) -> str:
        if self._profile_id is None:
            self._profile_id = answers.entity_id((await self._read("/api/deviceProfileInfo/default")).json())
        return self._profile_id

    async def _chain_profiles(self) -> tuple[ChainProfile, ...]:
        found: list[ChainProfile] = []
        for page in range(_PAGES):
            params = {"pageSize": str(PAGE), "page": str(page)}
            content = (await self._read("/api/deviceProfiles", params)).json()
            profiles, more = answers.chain_profiles(content)
            found += profiles
            if not more:
                break
        return tuple(found)

    async def _credentials(self, device_id: str) -> Credentials:
        return answers.credentials((await self._read(f"/api/device/{_uuid(device_id)}/credentials")).json())

    async def _replace(
        self, stored: Credentials, kind: CredentialsType, identifier: str | None, value: str | None
    ) -> Credentials:
        body: dict[str, JsonValue] = {
            **stored.raw,
            "id": {"id": stored.id},
            "deviceId": {"entityType": "DEVICE", "id": stored.device_id},
            "credentialsType": kind.value,
            "credentialsId": identifier,
            "credentialsValue": value,
        }
        if stored.version is not None:
            body["version"] = stored.version
        return answers.credentials((await self._write("/api/device/credentials", body)).json())

    async def _read(self, path: str, params: Mapping[str, str] | None = None) -> Answer:
        answer = await self._ask("GET", path, params=params)
        assert answer is not None  # noqa: S101 - for the type checker: only absent_ok gives None
        return answer

    async def _write(self, path: str, body: object, *, idempotent: bool = False) -> Answer:
        answer = await self._ask("POST", path, body=body, idempotent=idempotent)
        assert answer is not None  # noqa: S101 - for the type checker: only absent_ok gives None
        return answer

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, str] | None = None,
        absent_ok: bool = False,
        idempotent: bool | None = None,
    ) -> Answer | None:
        harmless = method in {"GET", "DELETE"} if idempotent is None else idempotent
        token = await self._login.token()
        answer = await self._transport.send(method, path, body=body, params=params, token=token, idempotent=harmless)
        if answer.status == httpx.codes.UNAUTHORIZED:
            token = await self._login.token(instead_of=token)
            answer = await self._transport.send(
                method, path, body=body, params=params, token=token, idempotent=harmless
            )
        if answer.status == httpx.codes.OK:
            return answer
        error = failure(answer)
        if absent_ok and isinstance(error, DeviceGone):
            return None
        raise error


def _compare(stored: Credentials, leaf: Leaf) -> None:
    if not stored.is_leaf(leaf):
        raise CredentialsMismatch(
            f"ThingsBoard stored another credential than the leaf it was sent ({leaf.credentials_id[:16]}…)"
        )


def _uuid(text: str) -> str:
    require_uuid(text)
    return text
