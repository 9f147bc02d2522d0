"""The calls of hawkBit's Management API that the bridge makes, the same for 0.3.0M7 and 1.x.

Not here: when to make them, and what belongs to the bridge (its adapters decide that). Every method raises
the family of `hawkbit.errors` and nothing else, ends in bounded time, and checks a controllerId before it is
sent. Source: https://eclipse.dev/hawkbit/rest-api/ and exchanges recorded from both versions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote

import httpx

from hawkbit.errors import HawkbitBadAnswer, HawkbitMisconfigured, TargetExists, TargetMissing
from hawkbit.models import (
    Generation,
    ServerInfo,
    Target,
    TargetPage,
    TenantConfiguration,
    as_object,
    check_controller_id,
    check_metadata,
    parse_duration,
)
from hawkbit.transport import Limits, Transport

PAGE_MAX = 500  # a larger limit is cut to this by hawkBit, without a word
_TARGETS = "/rest/v1/targets"
_CONFIGS = "/rest/v1/system/configs"
_METADATA_READ = ("READ_TARGET (hawkBit 1)", "READ_REPOSITORY (hawkBit 0.3)")
_METADATA_WRITE = ("UPDATE_TARGET (hawkBit 1)", "UPDATE_REPOSITORY (hawkBit 0.3)")


class HawkbitClient:
    """One user's view of one hawkBit tenant; the tenant follows from the user.

    `http` stays the caller's: it carries TLS trust and pooling and is not closed here. Safe for concurrent
    use.
    Raises HawkbitMisconfigured at construction if `url` cannot be a base URL.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        url: str,
        username: str,
        password: str,
        *,
        limits: Limits | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._transport = Transport(http, url, (username, password), limits=limits or Limits(), sleep=sleep)
        self._info: ServerInfo | None = None

    @property
    def total_timeout(self) -> float:
        """Seconds within which a single request, with its retries, ends; metadata may take three of them."""
        return self._transport.limits.total

    async def find_target(self, controller_id: str) -> Target | None:
        """Return the target of exactly this id (case counts), or None if hawkBit says that there is none.

        A 404 that hawkBit's API did not write raises HawkbitMisconfigured: a wrong URL must never look like
        a missing target.
        """
        path = _target_path(controller_id)
        try:
            reply = await self._transport.call("GET", path, needs=("READ_TARGET",))
        except TargetMissing:
            return None
        return _same(Target.parse(reply.json()), controller_id)

    async def create_target(
        self,
        controller_id: str,
        *,
        name: str | None = None,
        description: str | None = None,
        address: str | None = None,
        security_token: str | None = None,
    ) -> Target:
        """Create one target, all of it in one POST, and return what hawkBit made of it.

        Not repeated once it may have arrived: after HawkbitUnreachable without `nothing_done`, look first.
        Raises TargetExists if the id is taken, by whomever (of racing creators exactly one wins).
        """
        check_controller_id(controller_id)
        fields = _present(
            controllerId=controller_id,
            name=name or controller_id,
            description=description,
            address=address,
            securityToken=security_token,
        )
        reply = await self._transport.call("POST", _TARGETS, body=[fields], needs=("CREATE_TARGET",))
        if not reply.body:
            return await self._read_back(controller_id)
        created = reply.json()
        if not isinstance(created, list) or len(created) != 1:
            raise HawkbitBadAnswer("hawkBit did not answer a list of the one target that was created")
        return _same(Target.parse(created[0]), controller_id)

    async def update_target(
        self,
        controller_id: str,
        *,
        name: str | None = None,
        description: str | None = None,
        address: str | None = None,
        security_token: str | None = None,
    ) -> Target:
        """Change the given fields, leave the others. A new `security_token` locks the old one out at once.

        Raises TargetMissing if there is no such target.
        """
        path = _target_path(controller_id)
        fields = _present(name=name, description=description, address=address, securityToken=security_token)
        reply = await self._transport.call("PUT", path, body=fields, needs=("UPDATE_TARGET",))
        if not reply.body:
            return await self._read_back(controller_id)
        return _same(Target.parse(reply.json()), controller_id)

    async def delete_target(self, controller_id: str) -> bool:
        """Delete the target. True if this call deleted it, False if it was gone; afterwards it is not there.

        It may come back: where gateway token or header authentication is on, the device's next poll creates
        it anew (`TenantConfiguration.polls_create_targets`).
        """
        path = _target_path(controller_id)
        try:
            await self._transport.call("DELETE", path, needs=("DELETE_TARGET",))
        except TargetMissing:
            return False
        return True

    async def read_metadata(self, controller_id: str) -> dict[str, str]:
        """Return all metadata of the target (at most 100 entries; an entry without value reads as "").

        Raises TargetMissing if there is no such target.
        """
        path = _target_path(controller_id) + "/metadata"
        reply = await self._transport.call("GET", path, params={"limit": PAGE_MAX}, needs=_METADATA_READ)
        content = as_object(reply.json(), "a list of metadata").get("content")
        if not isinstance(content, list):
            raise HawkbitBadAnswer("hawkBit's list of metadata has no content")
        return dict(_metadata_entry(entry) for entry in content)

    async def set_metadata(self, controller_id: str, key: str, value: str) -> None:
        """Make the entry have this value, whether or not it is there, on every version.

        PUT replaces (1.x: also creates); on 404 POST creates (0.3); on 409 another writer was faster, PUT
        again. Raises TargetMissing if there is no such target, QuotaExceeded above 100 entries.
        """
        check_metadata(key, value)
        collection = _target_path(controller_id) + "/metadata"
        entry = f"{collection}/{quote(key, safe='')}"
        try:
            await self._transport.call("PUT", entry, body={"value": value}, needs=_METADATA_WRITE)
        except TargetMissing:
            try:
                body = [{"key": key, "value": value}]
                await self._transport.call("POST", collection, body=body, needs=_METADATA_WRITE)
            except TargetExists:
                await self._transport.call("PUT", entry, body={"value": value}, needs=_METADATA_WRITE)

    async def list_targets(self, *, query: str | None = None, page_size: int = PAGE_MAX) -> AsyncIterator[Target]:
        """Yield the targets that match the FIQL `query` (without: all), ordered by controllerId, once each.

        Read page by page by offset: a target deleted meanwhile may hide another from this pass, so a sweep
        that must miss nothing is repeated. HawkBit's comparisons ignore case; compare what comes back.
        """
        if not 1 <= page_size <= PAGE_MAX:
            raise ValueError(f"a page holds 1 to {PAGE_MAX} targets")
        seen: set[str] = set()
        offset = 0
        while True:
            params: dict[str, str | int] = {"offset": offset, "limit": page_size, "sort": "id:ASC"}
            if query is not None:
                params["q"] = query
            reply = await self._transport.call("GET", _TARGETS, params=params, needs=("READ_TARGET",))
            page = TargetPage.parse(reply.json())
            for target in page.targets:
                if target.controller_id not in seen:
                    seen.add(target.controller_id)
                    yield target
            offset += len(page.targets)
            if not page.targets or offset >= page.total:
                return

    async def server_info(self) -> ServerInfo:
        """Tell the generations apart, once; later calls answer from memory.

        `GET /rest/v1/userinfo` exists since 1.0. Its 404 means 0.3 only if the target list answers as
        hawkBit's does; otherwise HawkbitMisconfigured.
        """
        if self._info is None:
            self._info = await self._probe()
        return self._info

    async def check_health(self) -> None:
        """Return if hawkBit answers our user as it should; raise what is wrong otherwise."""
        reply = await self._transport.call("GET", _TARGETS, params={"limit": 1}, needs=("READ_TARGET",))
        TargetPage.parse(reply.json())

    async def tenant_configuration(self) -> TenantConfiguration:
        """Read how devices of the tenant authenticate. Reads single keys, so no secret passes by.

        Raises HawkbitForbidden for a user without TENANT_CONFIGURATION, which the bridge itself never needs.
        """
        return TenantConfiguration(
            target_token_enabled=await self._config_flag("authentication.targettoken.enabled"),
            gateway_token_enabled=await self._config_flag("authentication.gatewaytoken.enabled"),
            header_enabled=await self._config_flag("authentication.header.enabled"),
            header_authority=str(await self._config("authentication.header.authority") or ""),
            polling_time=parse_duration(await self._config("pollingTime")),
        )

    async def _probe(self) -> ServerInfo:
        try:
            reply = await self._transport.call("GET", "/rest/v1/userinfo")
        except HawkbitMisconfigured as error:
            if type(error) is not HawkbitMisconfigured:
                raise
            await self.check_health()
            return ServerInfo(Generation.MILESTONE)
        info = as_object(reply.json(), "a description of the user")
        permissions = info.get("permissions")
        return ServerInfo(
            Generation.CURRENT,
            tenant=_text_or_none(info.get("tenant")),
            username=_text_or_none(info.get("username")),
            permissions=frozenset(map(str, permissions)) if isinstance(permissions, list) else None,
        )

    async def _config(self, key: str) -> Any:
        needs = ("TENANT_CONFIGURATION",)
        reply = await self._transport.call("GET", f"{_CONFIGS}/{key}", needs=needs)
        return as_object(reply.json(), "a configuration value").get("value")

    async def _config_flag(self, key: str) -> bool:
        value = await self._config(key)
        if not isinstance(value, bool):
            raise HawkbitBadAnswer(f"hawkBit's {key} is neither true nor false")
        return value

    async def _read_back(self, controller_id: str) -> Target:
        target = await self.find_target(controller_id)
        if target is None:
            raise HawkbitBadAnswer("hawkBit reported success, but the target is not there")
        return target


def _target_path(controller_id: str) -> str:
    return f"{_TARGETS}/{quote(check_controller_id(controller_id), safe='')}"


def _present(**fields: str | None) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}


def _same(target: Target, controller_id: str) -> Target:
    if target.controller_id != controller_id:
        raise HawkbitBadAnswer(
            f"hawkBit answered for the target {target.controller_id!r} when asked for {controller_id!r}; "
            "does its database ignore case?"
        )
    return target


def _metadata_entry(entry: Any) -> tuple[str, str]:
    fields = as_object(entry, "a metadata entry")
    key, value = fields.get("key"), fields.get("value")
    if not isinstance(key, str) or not isinstance(value, str | None):
        raise HawkbitBadAnswer("hawkBit's metadata entry has no key, or a value that is not text")
    return key, value or ""


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None
