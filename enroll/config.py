"""The agent's configuration: environment in, one frozen object out.

Responsible for the names of the variables, their defaults and limits; every error names its variable.
A command-line flag is only another way to set a variable (``FLAGS``), so there is one set of rules.

Not responsible for reading certificates or keys, and free of slow imports: a typing error is told at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from enroll.errors import ConfigurationError
from enroll.names import BridgeUrl, DeviceId, Fingerprint, Network, parse_network

DEFAULT_FOLDER: Final = "/certs"
DEFAULT_BUDGET: Final = 90.0
DEFAULT_RUN_DIR: Final = "/run/iot-enroll"
DEFAULT_NETWORKD_DIR: Final = "/etc/systemd/network"
_MAX_SECONDS: Final = 86_400.0
_MAX_LABEL: Final = 128
_MAX_SECRET_FILE: Final = 4096
_MAX_PINS: Final = 8
_INTERFACE: Final = re.compile(r"[A-Za-z0-9_=+.][A-Za-z0-9_=+.-]{0,14}", re.ASCII)
_NO_INTERFACES: Final = frozenset({".", "..", "all", "interfaces"})
"""Names that the file system, or ``wg show``, reads as something else."""

VARIABLES: Final[Mapping[str, str]] = {
    "BRIDGE_API_URL": "where the bridge answers, https://host[:port][/prefix]; needed",
    "DEVICE_ID": "the device's id: CN of its certificate; needed",
    "DEVICE_NAME": "label for people",
    "DEVICE_TYPE": "label, e.g. the board",
    "CERTS_DIR": f"folder for keys, certificates and the flag (default {DEFAULT_FOLDER})",
    "STEP_CA_FINGERPRINT": "SHA-256 of the tenant's root certificate, hex; several during a CA rotation; needed",
    "ENROLL_ROOT_FINGERPRINT": "the same under another name",
    "ENROLL_ISSUER_FINGERPRINT": "second pin: SHA-256 of the tenant's issuing CA, or several",
    "ENROLL_VOUCHER": "one-time code, where the operator wants one",
    "ENROLL_VOUCHER_FILE": "file that holds the voucher",
    "ENROLL_BUDGET": f"seconds one run may take, 0 for no end (default {DEFAULT_BUDGET:g})",
    "ENROLL_START_SPREAD": "wait a random part of so many seconds before a first enrollment (default 0)",
    "ENROLL_TLS_TRUST": "pinned (default): only the pinned root; system: the system's authorities for servers",
    "ENROLL_SET_CLOCK": "1: set the system's clock, where it is wrong, to the time the bridge proved (default 0)",
    "ENROLL_KEY": "where the device key lives: file (default), tpm, pkcs11",
    "ENROLL_PKCS11_MODULE": "with ENROLL_KEY=pkcs11: the token's library, a path",
    "ENROLL_PKCS11_TOKEN": "with ENROLL_KEY=pkcs11: the token's label",
    "ENROLL_PKCS11_PIN_FILE": "with ENROLL_KEY=pkcs11: file that holds the PIN",
    "ENROLL_INVENTORY": "on (default): tell the bridge board, system and addresses; off: tell nothing",
    "ENROLL_TELEMETRY": "on: publish one message with versions after connecting (default off)",
    "ENROLL_TUNNEL": "auto (default), wg-quick, systemd-networkd or none",
    "ENROLL_WG_INTERFACE": "name of the VPN interface (default wg0)",
    "ENROLL_ALLOWED_IPS": "networks that the tunnel may carry beyond what the agent allows by itself",
    "ENROLL_NETWORKD_DIR": f"with systemd-networkd: folder of its files (default {DEFAULT_NETWORKD_DIR})",
    "ENROLL_RAUC_CONFIG": "write rauc-hawkbit-updater's configuration to this file",
    "ENROLL_SWUPDATE_CONFIG": "write swupdate's suricatta configuration to this file",
    "ENROLL_RUN_DIR": f"folder in RAM for the last outcome, for status (default {DEFAULT_RUN_DIR}, if it is there)",
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
    "--key": "ENROLL_KEY",
    "--inventory": "ENROLL_INVENTORY",
    "--telemetry": "ENROLL_TELEMETRY",
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
    NETWORKD = "systemd-networkd"
    NONE = "none"


class KeyKind(StrEnum):
    """Where the device's private key is made and stays."""

    FILE = "file"
    TPM = "tpm"
    PKCS11 = "pkcs11"


@dataclass(frozen=True, slots=True)
class Settings:
    """What one run is told from outside; durations in seconds."""

    bridge: BridgeUrl
    device_id: DeviceId
    folder: Path
    root_pins: tuple[Fingerprint, ...]
    issuer_pins: tuple[Fingerprint, ...] = ()
    device_name: str | None = None
    device_type: str | None = None
    voucher: str | None = field(default=None, repr=False)
    budget: float = DEFAULT_BUDGET
    """``math.inf`` for a run without end."""
    start_spread: float = 0.0
    tls_trust: TlsTrust = TlsTrust.PINNED
    set_clock: bool = False
    key: KeyKind = KeyKind.FILE
    pkcs11_module: Path | None = None
    pkcs11_token: str | None = None
    pkcs11_pin_file: Path | None = None
    inventory: bool = True
    telemetry: bool = False
    tunnel: TunnelMode = TunnelMode.AUTO
    interface: str = "wg0"
    allowed_networks: tuple[Network, ...] = ()
    networkd_dir: Path = Path(DEFAULT_NETWORKD_DIR)
    rauc_config: Path | None = None
    swupdate_config: Path | None = None
    run_dir: Path | None = None


def folder_from(environment: Mapping[str, str]) -> Path:
    """Return the folder of keys and certificates; all that ``status`` needs."""
    return Path(environment.get("CERTS_DIR") or DEFAULT_FOLDER)


def interface_from(environment: Mapping[str, str]) -> str:
    """Return the name of the VPN interface.

    :raises ConfigurationError: it is no name of an interface.
    """
    name = (environment.get("ENROLL_WG_INTERFACE") or "").strip() or "wg0"
    if not _INTERFACE.fullmatch(name) or name in _NO_INTERFACES:
        raise ConfigurationError("ENROLL_WG_INTERFACE", f"{name!r} is no name of an interface that wg-quick takes")
    return name


def networkd_dir_from(environment: Mapping[str, str]) -> Path:
    """Return the folder of systemd-networkd's files."""
    return Path((environment.get("ENROLL_NETWORKD_DIR") or "").strip() or DEFAULT_NETWORKD_DIR)


def run_dir_from(environment: Mapping[str, str]) -> Path | None:
    """Return the folder for what is shown and never decided upon; ``None`` if there is none."""
    named = environment.get("ENROLL_RUN_DIR")
    if named:
        return Path(named)
    return Path(DEFAULT_RUN_DIR) if Path(DEFAULT_RUN_DIR).is_dir() else None


def load(environment: Mapping[str, str]) -> Settings:
    """Read all variables; empty ones count as absent.

    :raises ConfigurationError: a variable is missing or makes no sense; it is named.
    """
    env = {name: value for name, value in environment.items() if name in VARIABLES and value.strip()}
    key = _choice(env, "ENROLL_KEY", KeyKind.FILE)
    return Settings(
        bridge=_parsed(env, "BRIDGE_API_URL", BridgeUrl.parse),
        device_id=_parsed(env, "DEVICE_ID", DeviceId),
        folder=folder_from(env),
        root_pins=_root_pins(env),
        issuer_pins=_pins(env, "ENROLL_ISSUER_FINGERPRINT") if "ENROLL_ISSUER_FINGERPRINT" in env else (),
        device_name=_label(env, "DEVICE_NAME"),
        device_type=_label(env, "DEVICE_TYPE"),
        voucher=_voucher(env),
        budget=_seconds(env, "ENROLL_BUDGET", DEFAULT_BUDGET, least=0.0) or math.inf,
        start_spread=_seconds(env, "ENROLL_START_SPREAD", 0.0, least=0.0),
        tls_trust=_choice(env, "ENROLL_TLS_TRUST", TlsTrust.PINNED),
        set_clock=_switch(env, "ENROLL_SET_CLOCK", default=False),
        key=key,
        pkcs11_module=_path(env, "ENROLL_PKCS11_MODULE", needed=key is KeyKind.PKCS11),
        pkcs11_token=_label(env, "ENROLL_PKCS11_TOKEN", needed=key is KeyKind.PKCS11),
        pkcs11_pin_file=_path(env, "ENROLL_PKCS11_PIN_FILE", needed=key is KeyKind.PKCS11),
        inventory=_switch(env, "ENROLL_INVENTORY", default=True),
        telemetry=_switch(env, "ENROLL_TELEMETRY", default=False),
        tunnel=_choice(env, "ENROLL_TUNNEL", TunnelMode.AUTO),
        interface=interface_from(env),
        allowed_networks=_networks(env, "ENROLL_ALLOWED_IPS"),
        networkd_dir=_path(env, "ENROLL_NETWORKD_DIR") or Path(DEFAULT_NETWORKD_DIR),
        rauc_config=_path(env, "ENROLL_RAUC_CONFIG"),
        swupdate_config=_path(env, "ENROLL_SWUPDATE_CONFIG"),
        run_dir=run_dir_from(env),
    )


def _parsed(env: Mapping[str, str], name: str, parse: Callable[[str], _T]) -> _T:
    text = env.get(name)
    if text is None:
        raise ConfigurationError(name, f"is not set; it is {VARIABLES[name]}")
    try:
        return parse(text)
    except ValueError as e:
        raise ConfigurationError(name, str(e)) from e


def _listed(text: str) -> list[str]:
    return [part for part in re.split(r"[,\s]+", text) if part]


def _pins(env: Mapping[str, str], name: str) -> tuple[Fingerprint, ...]:
    def parse(text: str) -> tuple[Fingerprint, ...]:
        found = tuple(dict.fromkeys(Fingerprint.parse(part) for part in _listed(text)))
        if not 1 <= len(found) <= _MAX_PINS:
            raise ValueError(f"holds {len(found)} fingerprints; 1 to {_MAX_PINS} are expected")
        return found

    return _parsed(env, name, parse)


def _root_pins(env: Mapping[str, str]) -> tuple[Fingerprint, ...]:
    alias = "ENROLL_ROOT_FINGERPRINT"
    if alias not in env:
        return _pins(env, "STEP_CA_FINGERPRINT")
    pins = _pins(env, alias)
    if "STEP_CA_FINGERPRINT" in env and set(_pins(env, "STEP_CA_FINGERPRINT")) != set(pins):
        raise ConfigurationError(alias, "differs from STEP_CA_FINGERPRINT; set one of them")
    return pins


def _label(env: Mapping[str, str], name: str, *, needed: bool = False) -> str | None:
    text = env.get(name)
    if text is None:
        if needed:
            raise ConfigurationError(name, f"is not set; it is {VARIABLES[name]}")
        return None
    if len(text) > _MAX_LABEL or not text.isprintable():
        raise ConfigurationError(name, f"must be at most {_MAX_LABEL} printable characters")
    return text


def _path(env: Mapping[str, str], name: str, *, needed: bool = False) -> Path | None:
    text = env.get(name)
    if text is None:
        if needed:
            raise ConfigurationError(name, f"is not set; it is {VARIABLES[name]}")
        return None
    path = Path(text)
    if not path.is_absolute() or not text.isprintable():
        raise ConfigurationError(name, f"{text!r} is no absolute path")
    return path


def _networks(env: Mapping[str, str], name: str) -> tuple[Network, ...]:
    if name not in env:
        return ()
    return _parsed(env, name, lambda text: tuple(parse_network(part) for part in _listed(text)))


_ON: Final = frozenset({"1", "on", "true", "yes"})
_OFF: Final = frozenset({"0", "off", "false", "no"})


def _switch(env: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = env.get(name, "").strip().lower()
    if not text:
        return default
    if text not in _ON | _OFF:
        raise ConfigurationError(name, f"{text!r} is neither on nor off")
    return text in _ON


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
