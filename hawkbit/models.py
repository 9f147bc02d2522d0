"""HawkBit's nouns as frozen values, parsed where JSON comes in.

Not here: HTTP, and the fields of hawkBit that the bridge has no use for.
Source: https://eclipse.dev/hawkbit/rest-api/ (Targets, System Config), seen on 0.3.0M7 and 1.0.4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, ClassVar

from hawkbit.errors import HawkbitBadAnswer, InvalidMetadata, UnaddressableTarget

ID_MAX = 256
NAME_MAX = 128
DESCRIPTION_MAX = 512
METADATA_KEY_MAX = 128
METADATA_VALUE_MAX = 4000

# hawkBit's firewall refuses these in any path, encoded or not, so a target named so could never be deleted.
_UNADDRESSABLE = re.compile(r"[/\\;%]")
# Refused by hawkBit itself: white space, "<" (its HTML check); control characters by its firewall.
_REFUSED = re.compile(r"[\s<\x00-\x1f\x7f-\x9f]")
_DURATION = re.compile(r"(\d{1,3}):([0-5]\d):([0-5]\d)")


class Generation(Enum):
    """Which line of hawkBit answers; its dialects differ (error spellings, metadata, permissions)."""

    MILESTONE = "0.3"  # no /rest/v1/userinfo
    CURRENT = "1"


def check_controller_id(text: str) -> str:
    """Return `text` if hawkBit accepts it as controllerId and can find it again.

    Raises UnaddressableTarget. Ids with a slash, backslash, semicolon or percent sign, and `.` or `..`, are
    the dangerous ones: hawkBit creates them with 201 and answers every later look or delete with an error.
    """
    if not 1 <= len(text) <= ID_MAX:
        raise UnaddressableTarget(f"a hawkBit controllerId has 1 to {ID_MAX} characters, not {len(text)}")
    if _UNADDRESSABLE.search(text) or text in {".", ".."}:
        raise UnaddressableTarget(
            f"hawkBit can create the controllerId {text!r} but never find or delete it again; "
            "use a name without / \\ ; % that is not . or .."
        )
    if _REFUSED.search(text):
        raise UnaddressableTarget(f"hawkBit refuses the controllerId {text!r}: no white space, control characters or <")
    return text


def check_metadata(key: str, value: str) -> None:
    """Raise InvalidMetadata unless hawkBit stores this entry and can find its key again."""
    if not 1 <= len(key) <= METADATA_KEY_MAX or len(value) > METADATA_VALUE_MAX:
        raise InvalidMetadata(
            f"hawkBit's metadata has keys of 1 to {METADATA_KEY_MAX} characters "
            f"and values of at most {METADATA_VALUE_MAX}"
        )
    if _UNADDRESSABLE.search(key) or _REFUSED.search(key) or key in {".", ".."}:
        raise InvalidMetadata(f"hawkBit could never find the metadata key {key!r} again")


@dataclass(frozen=True, slots=True)
class Target:
    """A target as hawkBit shows it. Times are aware UTC.

    `security_token` is None where the user may not read it (READ_TARGET_SECURITY_TOKEN); it never shows in
    a repr. `last_poll` is None until the device has polled once; list answers of 0.3.0M7 carry no poll
    status, so there it is taken from `lastControllerRequestAt`.
    """

    controller_id: str
    name: str
    description: str | None
    created_by: str
    created_at: datetime
    update_status: str
    security_token: str | None = field(repr=False)
    address: str | None
    last_poll: datetime | None

    PLUG_AND_PLAY: ClassVar[str] = "CONTROLLER_PLUG_AND_PLAY"

    @property
    def made_by_poll(self) -> bool:
        """True if no one called the Management API for it: a device's poll brought it (back) to life."""
        return self.created_by == self.PLUG_AND_PLAY

    @classmethod
    def parse(cls, body: Any) -> Target:
        """Read a target's JSON object. Raises HawkbitBadAnswer naming the field that is wrong."""
        fields = as_object(body, "a target")
        poll = fields.get("lastControllerRequestAt")
        return cls(
            controller_id=_text(fields, "controllerId"),
            name=_text(fields, "name"),
            description=_optional_text(fields, "description"),
            created_by=_text(fields, "createdBy"),
            created_at=_instant(fields.get("createdAt"), "createdAt"),
            update_status=_text(fields, "updateStatus"),
            security_token=_optional_text(fields, "securityToken"),
            address=_optional_text(fields, "address"),
            last_poll=None if poll is None else _instant(poll, "lastControllerRequestAt"),
        )


@dataclass(frozen=True, slots=True)
class TargetPage:
    """One page of the target list; `total` counts all targets that match, not this page."""

    targets: tuple[Target, ...]
    total: int

    @classmethod
    def parse(cls, body: Any) -> TargetPage:
        """Read `{"content": […], "total": n}`. Raises HawkbitBadAnswer."""
        fields = as_object(body, "a page of targets")
        content, total = fields.get("content"), fields.get("total")
        if not isinstance(content, list) or not isinstance(total, int) or isinstance(total, bool) or total < 0:
            raise HawkbitBadAnswer("hawkBit's list of targets has no content or no total")
        return cls(tuple(Target.parse(entry) for entry in content), total)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What hawkBit says about itself and our user; 0.3 says nothing, there the optional parts are None."""

    generation: Generation
    tenant: str | None = None
    username: str | None = None
    permissions: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class TenantConfiguration:
    """How devices of the tenant may authenticate to DDI, and how often they poll."""

    target_token_enabled: bool
    gateway_token_enabled: bool
    header_enabled: bool
    header_authority: str
    polling_time: timedelta

    @property
    def polls_create_targets(self) -> bool:
        """True if an authenticated poll of an unknown id creates it, so that deleted targets come back."""
        return self.gateway_token_enabled or self.header_enabled

    @property
    def accepts_any_device(self) -> bool:
        """True for hawkBit's trap: header authentication with an empty authority accepts an empty header."""
        return self.header_enabled and not self.header_authority.strip()


def parse_duration(text: Any) -> timedelta:
    """Read hawkBit's `HH:MM:SS` (pollingTime). Raises HawkbitBadAnswer."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise HawkbitBadAnswer("hawkBit's pollingTime is not HH:MM:SS")
    hours, minutes, seconds = (int(part) for part in found.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def as_object(body: Any, what: str) -> Mapping[str, Any]:
    """Return `body` if it is a JSON object. Raises HawkbitBadAnswer naming `what`."""
    if not isinstance(body, dict):
        raise HawkbitBadAnswer(f"hawkBit answered something that is not {what}")
    return body


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise HawkbitBadAnswer(f"hawkBit's target has no {name}")
    return value


def _optional_text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise HawkbitBadAnswer(f"hawkBit's target has a {name} that is not text")
    return value


def _instant(value: Any, name: str) -> datetime:
    if not isinstance(value, int) or isinstance(value, bool):
        raise HawkbitBadAnswer(f"hawkBit's target has a {name} that is not milliseconds")
    try:
        return datetime.fromtimestamp(value / 1000, UTC)
    except (OverflowError, OSError, ValueError) as error:
        raise HawkbitBadAnswer(f"hawkBit's target has a {name} outside of time") from error
