"""Every variable of the server, with its type, default and meaning."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from bridge.config.values import Duration, HttpUrl, PathPrefix, with_files
from bridge.errors import Misconfigured

SECRETS: Final = frozenset(
    {
        "STEP_CA_PROVISIONER_PASSWORD",
        "STEP_CA_SERVER_PROVISIONER_PASSWORD",
        "THINGSBOARD_PASSWORD",
        "HAWKBIT_PASSWORD",
        "BRIDGE_WEBHOOK_SECRET",
        "BRIDGE_WEBHOOK_SECRET_OLD",
        "BRIDGE_DATABASE_URL",
    }
)
"""Variables that can also come from a file: ``NAME_FILE``."""


def _default_data() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "iot-bridge"


class Settings(BaseSettings):
    """The server's configuration. Field names are the variables' names in lower case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", case_sensitive=False, hide_input_in_errors=True)

    bridge_data: Path = Field(default_factory=_default_data, description="Folder of the registry, keys and state.")
    bridge_database_url: SecretStr | None = Field(None, description="postgresql+psycopg://… for several replicas.")
    bridge_tenant: str = Field("default", min_length=1, max_length=64, description="The tenant served.")
    bridge_public_host: str | None = Field(None, description="Host name devices reach the bridge by.")
    bridge_path_prefix: PathPrefix = Field("", description="Prefix under which the device routes answer too, as /api.")
    bridge_admission: Literal["registered", "open"] | None = Field(
        None, description="Who may come in. Embedded default: registered. `open` lets in every id."
    )
    bridge_reenrollment: Literal["window", "allow"] = Field(
        "window", description="`allow`: an active id may come with a new key without an operator's window."
    )
    bridge_webhook_secret: SecretStr | None = Field(None, description="Secret of POST /webhooks/thingsboard.")
    bridge_webhook_secret_old: SecretStr | None = Field(None, description="Second valid secret, for rotation.")
    bridge_cert_lifetime: Duration = Field(timedelta(days=90), description="Lifetime of a device's certificate.")
    bridge_renew_grace: Duration = Field(timedelta(days=30), description="How long an expired leaf may still renew.")
    bridge_sign_deadline: Duration = Field(timedelta(seconds=15), description="How long a signing attempt is open.")
    bridge_lease_quarantine: Duration = Field(timedelta(days=1), description="How long a released VPN address rests.")
    bridge_signing_key_file: Path | None = Field(
        None,
        description="Ed25519 key of receipts and audit heads; the same on all replicas. Default: made in BRIDGE_DATA.",
    )
    bridge_tls: Literal["on", "off"] = Field("on", description="`off`: plain HTTP, for a proxy in front.")
    bridge_tls_cert_file: Path | None = Field(None, description="The bridge's own server certificate (chain).")
    bridge_tls_key_file: Path | None = Field(None, description="Its key.")

    step_ca_url: HttpUrl | None = Field(None, description="API of the tenant's step-ca sub-CA.")
    step_ca_fingerprint: str | None = Field(None, description="SHA-256 of the sub-CA's or the root's certificate.")
    step_ca_provisioner_name: str | None = Field(None, description="JWK provisioner of the devices.")
    step_ca_provisioner_password: SecretStr | None = Field(None, description="Decrypts its key.")
    step_ca_provisioner_key_file: Path | None = Field(None, description="Its key (JWK or PEM), instead.")
    step_ca_profile: Literal["strict", "plain"] = Field(
        "strict", description="`plain` accepts a provisioner without our template; see SECURITY.md."
    )
    step_ca_server_provisioner_name: str | None = Field(None, description="JWK provisioner of server certificates.")
    step_ca_server_provisioner_password: SecretStr | None = Field(None, description="Decrypts its key.")
    step_ca_server_provisioner_key_file: Path | None = Field(None, description="Its key, instead.")

    thingsboard_url: HttpUrl | None = Field(None, description="REST API of the tenant's ThingsBoard.")
    thingsboard_username: str | None = Field(None, description="Tenant administrator.")
    thingsboard_password: SecretStr | None = Field(None, description="Its password.")
    thingsboard_mqtt_host: str | None = Field(None, description="MQTT broker as devices reach it.")
    thingsboard_mqtt_port: int = Field(8883, ge=1, le=65535, description="Its TLS port.")

    hawkbit_url: HttpUrl | None = Field(None, description="hawkBit's Management API.")
    hawkbit_username: str | None = Field(None, description="User of the Management API.")
    hawkbit_password: SecretStr | None = Field(None, description="Its password.")
    hawkbit_tenant: str = Field("DEFAULT", description="hawkBit's tenant, for devices.")
    hawkbit_public_url: HttpUrl | None = Field(None, description="hawkBit as devices reach it.")

    wg_subnet: IPv4Network | None = Field(None, description="VPN subnet addresses are leased from.")
    wg_server_endpoint: str | None = Field(None, description="host:port devices reach the WireGuard server by.")
    wg_server_public_key: str | None = Field(None, description="The server's public key.")
    wg_data_dir: Path | None = Field(None, description="Folder shared with the WireGuard server.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take nothing but what :func:`load` hands over, so that tests own the environment."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @property
    def data(self) -> Path:
        """The data folder, absolute."""
        return self.bridge_data.expanduser().absolute()

    @property
    def signing_key_file(self) -> Path:
        """The file of the installation's signing key."""
        return self.bridge_signing_key_file or self.data / "signing.key"

    @property
    def tunnel_folder(self) -> Path:
        """The folder shared with the WireGuard server."""
        return self.wg_data_dir or self.data / "wg-data"

    @property
    def reserved_hosts(self) -> frozenset[str]:
        """Host names that no device may be called by, in lower case."""
        urls = (self.step_ca_url, self.thingsboard_url, self.hawkbit_url, self.hawkbit_public_url)
        hosts = {urlsplit(url).hostname for url in urls if url}
        hosts |= {self.bridge_public_host, self.thingsboard_mqtt_host, self._database_host}
        if self.wg_server_endpoint:
            hosts.add(self.wg_server_endpoint.rpartition(":")[0])
        return frozenset(host.lower() for host in hosts if host)

    @property
    def _database_host(self) -> str | None:
        if self.bridge_database_url is None:
            return None
        try:
            return urlsplit(self.bridge_database_url.get_secret_value()).hostname
        except ValueError:
            return None  # the store says what is wrong with it


def variables() -> tuple[str, ...]:
    """Return the name of every variable, in the order of the settings."""
    return tuple(name.upper() for name in Settings.model_fields)


def load(environment: Mapping[str, str], **overrides: Any) -> Settings:
    """Return the settings of an environment; empty variables count as not set.

    :param overrides: fields given on the command line; ``None`` overrides nothing.
    :raises Misconfigured: a value cannot be read; the text names every variable that is wrong.
    """
    values = with_files(environment, SECRETS)
    fields: dict[str, Any] = {name.lower(): values[name] for name in variables() if values.get(name)}
    fields |= {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**fields)
    except ValidationError as e:
        lines = [f"{'.'.join(map(str, error['loc'])).upper()}: {error['msg']}" for error in e.errors()]
        raise Misconfigured("; ".join(lines)) from e
