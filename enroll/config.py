"""The agent's configuration: environment in, one frozen object out.

Responsible for the names of the variables, their defaults and limits; every error names its variable.
A command-line flag is only another way to set a variable (``FLAGS``), so there is one set of rules.

Not responsible for reading certificates or keys, and free of slow imports: a typing error is told at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from enroll.errors import ConfigurationError
from enroll.names import BridgeUrl, DeviceId, Fingerprint

DEFAULT_FOLDER: Final = "/certs"
DEFAULT_BUDGET: Final = 90.0
_MAX_SECONDS: Final = 86_400.0
_MAX_LABEL: Final = 128
_MAX_SECRET_FILE: Final = 4096

VARIABLES: Final[Mapping[str, str]] = {
    "BRIDGE_API_URL": "where the bridge answers, https://host[:port][/prefix]; needed",
    "DEVICE_ID": "the device's id: CN of its certificate; needed",
    "DEVICE_NAME": "label for people",
    "DEVICE_TYPE": "label, e.g. the board",
    "CERTS_DIR": f"folder for keys, certificates and the flag (default {DEFAULT_FOLDER})",
    "STEP_CA_FINGERPRINT": "SHA-256 of the tenant's root certificate, hex; needed",
    "ENROLL_ROOT_FINGERPRINT": "the same under another name",
    "ENROLL_ISSUER_FINGERPRINT": "second pin: SHA-256 of the tenant's issuing CA",
    "ENROLL_VOUCHER": "one-time code, where the operator wants one",
    "ENROLL_VOUCHER_FILE": "file that holds the voucher",
    "ENROLL_BUDGET": f"seconds one run may take (default {DEFAULT_BUDGET:g})",
    "ENROLL_START_SPREAD": "wait a random part of so many seconds before a first enrollment (default 0)",
    "ENROLL_TLS_TRUST": "pinned (default): only the pinned root; system: the system's authorities for servers",
    "ENROLL_TUNNEL": "auto (default), wg-quick or none",
}
"""Every variable the agent reads, with its meaning; the help text is made of it."""

FLAGS: Final[Mapping[str, str]] = {
    "--bridge-url": "BRIDGE_API_URL",
    "--device-id": "DEVICE_ID",
    "--device-name": "DEVICE_NAME",
    "--device-type": "DEVICE_TYPE",
    "--certs-dir": "CERTS_DIR",
    "--fingerprint": "STEP_CA_FINGERPRINT",
    "--issuer-fingerprint": "ENROLL_ISSUER_FINGERPRINT",
    "--voucher-file": "ENROLL_VOUCHER_FILE",
    "--budget": "ENROLL_BUDGET",
    "--start-spread": "ENROLL_START_SPREAD",
    "--tls-trust": "ENROLL_TLS_TRUST",
    "--tunnel": "ENROLL_TUNNEL",
}
"""Flag to variable. The voucher itself has no flag: argument lists are readable by every user."""

_T = TypeVar("_T")


class TlsTrust(StrEnum):
    """Which authorities may vouch for bridge and broker."""

    PINNED = "pinned"
    SYSTEM = "system"


class TunnelMode(StrEnum):
    """Who raises the VPN interface."""

    AUTO = "auto"
    WG_QUICK = "wg-quick"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Settings:
    """What one run is told from outside; durations in seconds."""

    bridge: BridgeUrl
    device_id: DeviceId
    folder: Path
    root_pin: Fingerprint
    issuer_pin: Fingerprint | None = None
    device_name: str | None = None
    device_type: str | None = None
    voucher: str | None = field(default=None, repr=False)
    budget: float = DEFAULT_BUDGET
    start_spread: float = 0.0
    tls_trust: TlsTrust = TlsTrust.PINNED
    tunnel: TunnelMode = TunnelMode.AUTO


def folder_from(environment: Mapping[str, str]) -> Path:
    """Return the folder of keys and certificates; all that ``status`` needs."""
    return Path(environment.get("CERTS_DIR") or DEFAULT_FOLDER)


def load(environment: Mapping[str, str]) -> Settings:
    """Read all variables; empty ones count as absent.

    :raises ConfigurationError: a variable is missing or makes no sense; it is named.
    """
    env = {name: value for name, value in environment.items() if name in VARIABLES and value.strip()}
    issuer_pin = env.get("ENROLL_ISSUER_FINGERPRINT")
    return Settings(
        bridge=_parsed(env, "BRIDGE_API_URL", BridgeUrl.parse),
        device_id=_parsed(env, "DEVICE_ID", DeviceId),
        folder=folder_from(env),
        root_pin=_root_pin(env),
        issuer_pin=_parsed(env, "ENROLL_ISSUER_FINGERPRINT", Fingerprint.parse) if issuer_pin else None,
        device_name=_label(env, "DEVICE_NAME"),
        device_type=_label(env, "DEVICE_TYPE"),
        voucher=_voucher(env),
        budget=_seconds(env, "ENROLL_BUDGET", DEFAULT_BUDGET, least=1.0),
        start_spread=_seconds(env, "ENROLL_START_SPREAD", 0.0, least=0.0),
        tls_trust=_choice(env, "ENROLL_TLS_TRUST", TlsTrust.PINNED),
        tunnel=_choice(env, "ENROLL_TUNNEL", TunnelMode.AUTO),
    )


def _parsed(env: Mapping[str, str], name: str, parse: Callable[[str], _T]) -> _T:
    text = env.get(name)
    if text is None:
        raise ConfigurationError(name, f"is not set; it is {VARIABLES[name]}")
    try:
        return parse(text)
    except ValueError as e:
        raise ConfigurationError(name, str(e)) from e


def _root_pin(env: Mapping[str, str]) -> Fingerprint:
    alias = "ENROLL_ROOT_FINGERPRINT"
    if alias not in env:
        return _parsed(env, "STEP_CA_FINGERPRINT", Fingerprint.parse)
    pin = _parsed(env, alias, Fingerprint.parse)
    if "STEP_CA_FINGERPRINT" in env and _parsed(env, "STEP_CA_FINGERPRINT", Fingerprint.parse) != pin:
        raise ConfigurationError(alias, "differs from STEP_CA_FINGERPRINT; set one of them")
    return pin


def _label(env: Mapping[str, str], name: str) -> str | None:
    text = env.get(name)
    if text is None:
        return None
    if len(text) > _MAX_LABEL or not text.isprintable():
        raise ConfigurationError(name, f"must be at most {_MAX_LABEL} printable characters")
    return text


def _voucher(env: Mapping[str, str]) -> str | None:
    text, file = env.get("ENROLL_VOUCHER"), env.get("ENROLL_VOUCHER_FILE")
    name = "ENROLL_VOUCHER_FILE" if file is not None else "ENROLL_VOUCHER"
    if file is not None:
        if text is not None:
            raise ConfigurationError(name, "is set beside ENROLL_VOUCHER; set one of them")
        try:
            with Path(file).open(encoding="ascii") as stream:
                text = stream.read(_MAX_SECRET_FILE)
        except (OSError, UnicodeError) as e:
            raise ConfigurationError(name, f"cannot read {file}: {type(e).__name__}") from e
    if text is None:
        return None
    text = text.strip()
    if not text or len(text) > _MAX_LABEL or not text.isascii() or not text.isprintable():
        raise ConfigurationError(name, f"holds no voucher (1 to {_MAX_LABEL} printable ASCII characters)")
    return text


def _seconds(env: Mapping[str, str], name: str, default: float, *, least: float) -> float:
    text = env.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError as e:
        raise ConfigurationError(name, f"{text!r} is no number of seconds") from e
    if not math.isfinite(value) or not least <= value <= _MAX_SECONDS:
        raise ConfigurationError(name, f"must be {least:g} to {_MAX_SECONDS:g} seconds")
    return value


_E = TypeVar("_E", bound=StrEnum)


def _choice(env: Mapping[str, str], name: str, default: _E) -> _E:
    text = env.get(name)
    if text is None:
        return default
    try:
        return type(default)(text.strip().lower())
    except ValueError as e:
        raise ConfigurationError(name, f"{text!r} is none of {', '.join(type(default))}") from e
