"""ThingsBoard's JSON read into this package's values, tolerant of fields that versions add or lack.

Anything that cannot be read is a `PlatformBadAnswer`. Not responsible for statuses and errors.
"""

from types import MappingProxyType
from typing import Any

from thingsboard.errors import PlatformBadAnswer
from thingsboard.models import (
    ChainProfile,
    Credentials,
    CredentialsType,
    PlatformDevice,
    ServerAttributes,
    require_uuid,
)

_CHAIN = "X509_CERTIFICATE_CHAIN"


def entity_id(content: object) -> str:
    """Read `{"id": {"id": uuid}}`, the way every entity names itself."""
    return _nested_id(_object(content), "id")


def device(content: object) -> PlatformDevice:
    """Read a device."""
    found = _object(content)
    try:
        return PlatformDevice(
            id=_nested_id(found, "id"),
            name=_text(found, "name"),
            label=_optional_text(found, "label"),
            profile_id=_nested_id(found, "deviceProfileId") if found.get("deviceProfileId") else None,
            version=_optional_int(found, "version"),
        )
    except ValueError as e:
        raise PlatformBadAnswer(f"ThingsBoard answered a device that is none: {e}") from e


def credentials(content: object) -> Credentials:
    """Read a credential; an unknown kind is `OTHER`."""
    found = _object(content)
    try:
        return Credentials(
            id=_nested_id(found, "id"),
            device_id=_nested_id(found, "deviceId"),
            type=CredentialsType(_text(found, "credentialsType")),
            credentials_id=_text(found, "credentialsId"),
            value=_optional_text(found, "credentialsValue"),
            version=_optional_int(found, "version"),
            raw=MappingProxyType(found),
        )
    except ValueError as e:
        raise PlatformBadAnswer(f"ThingsBoard answered credentials that are none: {e}") from e


def attributes(content: object) -> ServerAttributes:
    """Read the list of `{"key", "value", "lastUpdateTs"}`."""
    if not isinstance(content, list):
        raise PlatformBadAnswer("ThingsBoard answered attributes that are no list")
    entries = [_object(entry) for entry in content]
    return ServerAttributes(MappingProxyType({_text(entry, "key"): entry.get("value") for entry in entries}))


def chain_profiles(content: object) -> tuple[list[ChainProfile], bool]:
    """Read one page of device profiles: those with chain provisioning, and whether there are more pages."""
    found = _object(content)
    data = found.get("data")
    if not isinstance(data, list):
        raise PlatformBadAnswer("ThingsBoard answered a page without data")
    chains = [_chain_profile(entry) for entry in map(_object, data) if entry.get("provisionType") == _CHAIN]
    return chains, found.get("hasNext") is True


def _chain_profile(entry: dict[str, Any]) -> ChainProfile:
    provision = _object(_object(entry.get("profileData") or {}).get("provisionConfiguration") or {})
    # Where the answer does not say, it is taken for yes: this only feeds a warning.
    creates = provision.get("allowCreateNewDevicesByX509Certificate", True) is not False
    return ChainProfile(_nested_id(entry, "id"), _text(entry, "name"), creates)


def _object(content: object) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise PlatformBadAnswer("ThingsBoard answered something else than a JSON object")
    return content


def _nested_id(found: dict[str, Any], field: str) -> str:
    value = _object(found.get(field)).get("id")
    try:
        require_uuid(value if isinstance(value, str) else "")
    except ValueError as e:
        raise PlatformBadAnswer(f"ThingsBoard answered without a usable {field}") from e
    return str(value)


def _text(found: dict[str, Any], field: str) -> str:
    value = found.get(field)
    if not isinstance(value, str):
        raise PlatformBadAnswer(f"ThingsBoard answered without {field}")
    return value


def _optional_text(found: dict[str, Any], field: str) -> str | None:
    value = found.get(field)
    return value if isinstance(value, str) else None


def _optional_int(found: dict[str, Any], field: str) -> int | None:
    value = found.get(field)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
