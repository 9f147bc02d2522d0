"""Embedded or real: never a mixture (design, section 5.12)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from bridge.config.settings import Settings
from bridge.errors import Misconfigured
from bridge.model.records import System

_OUTSIDE: Final = ("step_ca_", "thingsboard_", "hawkbit_", "bridge_database_url")


class Mode(StrEnum):
    """What the server talks to."""

    EMBEDDED = "embedded"
    """Nothing is configured: stand-ins of every system, in this process."""
    REAL = "real"
    """Real servers; a system without URL is off."""


def mode_of(settings: Settings) -> Mode:
    """Return the mode that the settings mean.

    :raises Misconfigured: variables of outside systems are set, but not enough for any real server; or one of a pair
        is set without the other.
    """
    if (settings.bridge_tls_cert_file is None) != (settings.bridge_tls_key_file is None):
        raise Misconfigured("BRIDGE_TLS_CERT_FILE and BRIDGE_TLS_KEY_FILE go together: set both or none")
    touched = sorted(name for name in settings.model_fields_set if name.startswith(_OUTSIDE))
    if not touched:
        return Mode.EMBEDDED
    if settings.step_ca_url is None:
        names = ", ".join(name.upper() for name in touched)
        raise Misconfigured(
            f"STEP_CA_URL is missing, but {names} is set: set STEP_CA_URL for real servers,"
            " or unset the others for the embedded stack"
        )
    _require_complete(settings)
    return Mode.REAL


def systems_of(settings: Settings, mode: Mode) -> frozenset[System]:
    """Return the systems that are switched on."""
    if mode is Mode.EMBEDDED:
        return frozenset(System)
    systems = {System.CA}
    if settings.thingsboard_url is not None:
        systems.add(System.THINGSBOARD)
    if settings.hawkbit_url is not None:
        systems.add(System.HAWKBIT)
    if settings.wg_subnet is not None:
        systems.add(System.WIREGUARD)
    return frozenset(systems)


def _require_complete(settings: Settings) -> None:
    """Refuse what would fail later, all at once."""
    missing: list[str] = []

    def need(when: object, *names: str) -> None:
        if when:
            missing.extend(name.upper() for name in names if getattr(settings, name) is None)

    need(True, "step_ca_fingerprint", "step_ca_provisioner_name")
    if settings.step_ca_provisioner_password is None and settings.step_ca_provisioner_key_file is None:
        missing.append("STEP_CA_PROVISIONER_PASSWORD or STEP_CA_PROVISIONER_KEY_FILE")
    need(settings.thingsboard_url, "thingsboard_username", "thingsboard_password", "bridge_webhook_secret")
    need(settings.hawkbit_url, "hawkbit_username", "hawkbit_password")
    tunnels = (settings.wg_subnet, settings.wg_server_endpoint, settings.wg_server_public_key)
    need(any(value is not None for value in tunnels), "wg_subnet", "wg_server_endpoint", "wg_server_public_key")
    need(True, "bridge_admission")
    if settings.bridge_tls == "on" and settings.bridge_tls_cert_file is None:
        need(True, "bridge_public_host", "step_ca_server_provisioner_name")
    if missing:
        raise Misconfigured("these variables are missing: " + ", ".join(dict.fromkeys(missing)))
