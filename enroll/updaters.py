"""Configuration for the update clients rauc-hawkbit-updater and swupdate, where the device's owner asked for it.

Responsible for files made of typed values only: hawkBit's address and tenant as the bridge told them, the device's id,
the paths of its certificate, key and root. Both clients show the device's certificate; hawkBit sees it through a proxy
that ends TLS (https://eclipse.dev/hawkbit/concepts/authentication/), which must know the issuing CA: the clients send
``device.crt``, the leaf alone.

Not responsible for writing the files, or for anything that the clients do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from enroll.config import KeyKind, Settings
from enroll.disk.folder import DEVICE_CRT, DEVICE_KEY, ROOT_CRT
from enroll.errors import AnswerRejectedError, ConfigurationError
from enroll.names import BridgeUrl
from enroll.record import Record

_HEADER: Final = "# written by iot-enroll; changes are lost at its next run"
_BUNDLE: Final = "/var/tmp/iot-enroll-bundle.raucb"  # noqa: S108 - the client's download; RAUC verifies its signature
_TENANT: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_POLL_SECONDS: Final = 300
_RETRIES: Final = 4


def wanted(settings: Settings, record: Record, folder: Path) -> Sequence[tuple[Path, bytes]]:
    """Return the files that are asked for, with their content; none where the bridge names no update server.

    :param folder: where the device's certificate, key and root lie.
    :raises AnswerRejectedError: the update server's address or tenant is not one that the client can be given.
    :raises ConfigurationError: a path or kind of key that the client cannot use.
    """
    asked = {rauc: settings.rauc_config, swupdate: settings.swupdate_config}
    if record.hawkbit_url is None or record.hawkbit_tenant is None:
        return []
    return [(path, render(settings, record, folder)) for render, path in asked.items() if path is not None]


def rauc(settings: Settings, record: Record, folder: Path) -> bytes:
    """Return ``config.conf`` for rauc-hawkbit-updater from 1.4 on, which knows ``ssl_key`` and ``ssl_cert``.

    https://rauc-hawkbit-updater.readthedocs.io/en/latest/reference.html. It has no option for the authorities it
    trusts: the system's are taken, so the image adds the root to them.

    :raises AnswerRejectedError, ConfigurationError: as ``wanted``.
    """
    server, tenant = _server(record)
    if server.count("/") > 2:  # noqa: PLR2004 - those of https://
        raise AnswerRejectedError(f"hawkbit.url {server} has a path, which rauc-hawkbit-updater cannot have")
    paths = _paths("ENROLL_RAUC_CONFIG", settings, folder)
    client = {
        "hawkbit_server": server.removeprefix("https://"),
        "ssl": "true",
        "ssl_verify": "true",
        "tenant_id": tenant,
        "target_name": record.device_id,
        "ssl_key": paths[DEVICE_KEY],
        "ssl_cert": paths[DEVICE_CRT],
        "bundle_download_location": _BUNDLE,
        "resume_downloads": "true",
    }
    told = [f"device_id={record.device_id}"]
    if settings.device_type is not None and settings.device_type.strip():
        told.append(f"device_type={settings.device_type.strip()}")  # the client takes this section's values as they are
    trust = "# The server is checked against the system's authorities: root.crt must be among them."
    options = [f"{name}={_key_file(value)}" for name, value in client.items()]
    return "\n".join([_HEADER, trust, "[client]", *options, "", "[device]", *told, ""]).encode()


def swupdate(settings: Settings, record: Record, folder: Path) -> bytes:
    """Return the section ``suricatta`` of ``swupdate.cfg``; the main file takes it in by ``@include "FILE"``.

    https://sbabic.github.io/swupdate/suricatta.html; libconfig's format,
    https://hyperrealm.github.io/libconfig/libconfig_manual.html.

    :raises AnswerRejectedError, ConfigurationError: as ``wanted``.
    """
    server, tenant = _server(record)
    paths = _paths("ENROLL_SWUPDATE_CONFIG", settings, folder)
    values: Mapping[str, str | int] = {
        "tenant": tenant,
        "id": record.device_id,
        "url": server,
        "polldelay": _POLL_SECONDS,
        "retry": _RETRIES,
        "cafile": paths[ROOT_CRT],
        "sslkey": paths[DEVICE_KEY],
        "sslcert": paths[DEVICE_CRT],
    }
    lines = [f"    {name} = {_libconfig(value)};" for name, value in values.items()]
    return "\n".join([_HEADER, "suricatta :", "{", *lines, "};", ""]).encode()


def _server(record: Record) -> tuple[str, str]:
    url, tenant = record.hawkbit_url or "", record.hawkbit_tenant or ""
    try:
        server = str(BridgeUrl.parse(url))  # the same rules: https, nothing but host, port and a plain path
    except ValueError as e:
        raise AnswerRejectedError(f"hawkbit.url: {e}") from e
    if not _TENANT.fullmatch(tenant):
        raise AnswerRejectedError("hawkbit.tenant is no name that an update client can be given")
    return server, tenant


def _paths(variable: str, settings: Settings, folder: Path) -> dict[str, str]:
    """Return the files' paths as text, if the client can be told them and use them."""
    if settings.key is KeyKind.PKCS11:
        raise ConfigurationError(variable, "a key in a PKCS#11 token has no file; configure the update client by hand")
    text = os.fspath(folder.absolute())
    if not text.isprintable() or text != text.strip():
        raise ConfigurationError("CERTS_DIR", f"{text!r} cannot be written into an update client's configuration")
    return {name: f"{text}/{name}" for name in (DEVICE_CRT, DEVICE_KEY, ROOT_CRT)}


def _key_file(text: str) -> str:
    r"""Escape as GKeyFile reads strings: ``\\``, and ``\s`` where a blank would be lost."""
    escaped = text.replace("\\", "\\\\")
    return f"\\s{escaped[1:]}" if escaped.startswith(" ") else escaped


def _libconfig(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
