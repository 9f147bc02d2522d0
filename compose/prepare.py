"""Make what a tenant's stack needs before its first start: CA hierarchy, provisioners, keys, secrets, `.env`.

    .venv/bin/python compose/prepare.py --host bridge.example.com

Writes `compose/tenant/` (0700) and `compose/.env` (0600), and prints the fingerprint that devices pin. A second run
keeps every key and secret that is there. The root's and the intermediate's private keys are written to
`tenant/offline/`: take that folder away; nothing online needs it.
"""

import argparse
import json
import os
import re
import secrets
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ca.standin.files import private_folder, write_private
from ca.standin.hierarchy import Hierarchy, load_or_make
from ca.standin.provisioners import new_provisioner
from ca.standin.signing import Signer
from ca.template import device_template, provisioner_entry, server_template
from wireguard.keys import PrivateKey

HERE = Path(__file__).resolve().parent
CRL_URL = "https://step-ca/1.0/crl"
"""What step-ca writes into its CRL as distribution point: the first of its dnsNames, without the port."""

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_PORT = 51820
_MQTT_LIFETIME = timedelta(days=365)


def prepare(host: str, folder: Path) -> dict[str, str]:
    """Write everything; return the variables of `.env`.

    :param host: the name devices reach bridge, MQTT and WireGuard by.
    :raises ValueError: it is no host name, or the offline keys have been taken away.
    """
    if not _HOST.fullmatch(host):
        raise ValueError(f"{host!r} is no host name")
    tenant = private_folder(folder / "tenant")
    if (tenant / "step-ca" / "config" / "ca.json").exists() and not (tenant / "offline" / "root.pem").exists():
        raise ValueError(f"{tenant} is prepared already, and its offline keys are elsewhere: nothing was changed")
    pki = load_or_make(private_folder(tenant / "offline"), datetime.now(UTC))
    kept = private_folder(tenant / "secrets")
    passwords = {
        name: _secret(kept / name)
        for name in (
            "postgres_password",
            "webhook_secret",
            "provisioner_password",
            "server_provisioner_password",
            "thingsboard_password",
            "hawkbit_password",
        )
    }
    database = f"postgresql+psycopg://postgres:{passwords['postgres_password']}@postgresql:5432/bridge"
    write_private(kept / "database_url", database.encode())
    _write_step_ca(tenant / "step-ca", pki, host, passwords)
    _write_mqtt(tenant / "mqtt", pki, host)
    variables = {
        "BRIDGE_PUBLIC_HOST": host,
        "STEP_CA_FINGERPRINT": pki.anchor.issuing_fingerprint.value,
        "WG_SERVER_PUBLIC_KEY": _write_wireguard(tenant / "wireguard"),
        "POSTGRES_PASSWORD": passwords["postgres_password"],
        "HAWKBIT_PASSWORD": passwords["hawkbit_password"],
        "TENANT_UID": str(os.getuid()),
        "TENANT_GID": str(os.getgid()),
    }
    write_private(folder / ".env", "".join(f"{name}={value}\n" for name, value in variables.items()).encode())
    return variables | {"root": pki.anchor.root_fingerprint.value}


def _secret(path: Path) -> str:
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24).encode())
    return path.read_text(encoding="ascii").strip()


def _write_step_ca(folder: Path, pki: Hierarchy, host: str, passwords: dict[str, str]) -> None:
    config, certificates = private_folder(folder / "config"), private_folder(folder / "certs")
    write_private(certificates / "root.crt", pki.root.pem)
    write_private(certificates / "chain.crt", pki.issuing.pem + pki.intermediate.pem)
    write_private(private_folder(folder / "secrets") / "issuing.key", pki.issuing.key_pem)
    path = config / "ca.json"
    if not path.exists():
        write_private(path, json.dumps(_ca_json(host, passwords), indent=2).encode())


def _ca_json(host: str, passwords: dict[str, str]) -> dict[str, Any]:
    devices = new_provisioner("iot-bridge", passwords["provisioner_password"])
    servers = new_provisioner("iot-bridge-server", passwords["server_provisioner_password"])
    return {
        "root": "/home/step/certs/root.crt",
        "crt": "/home/step/certs/chain.crt",
        "key": "/home/step/secrets/issuing.key",
        "address": ":9000",
        "dnsNames": ["step-ca", "localhost"],
        "logger": {"format": "json"},
        "db": {"type": "badgerv2", "dataSource": "/home/step/db"},
        "crl": {"enabled": True, "generateOnRevoke": True},
        "authority": {
            "provisioners": [
                provisioner_entry(
                    devices.name, devices.public_jwk, device_template(CRL_URL), encrypted_key=devices.encrypted_key
                ),
                provisioner_entry(
                    servers.name, servers.public_jwk, server_template((host,)), encrypted_key=servers.encrypted_key
                ),
            ]
        },
        "tls": {"minVersion": 1.2, "maxVersion": 1.3},
    }


def _write_mqtt(folder: Path, pki: Hierarchy, host: str) -> None:
    """ThingsBoard's own TLS identity. Readable to its user, who is not ours; the folder above is 0700."""
    folder.mkdir(mode=0o755, exist_ok=True)
    if (folder / "server.crt").exists():
        return
    made = Signer(pki).server_certificate((host,), datetime.now(UTC), _MQTT_LIFETIME)
    for name, text in (("server.key", made.key_pem), ("server.crt", made.chain_pem)):
        write_private(folder / name, text.encode())
        (folder / name).chmod(0o644)


def _write_wireguard(folder: Path) -> str:
    path = private_folder(folder / "wg_confs") / "wg0.conf"
    if not path.exists():
        lines = (
            "[Interface]",
            f"PrivateKey = {PrivateKey.generate().reveal()}",
            "Address = 10.8.0.1/24",
            f"ListenPort = {_PORT}",
        )
        write_private(path, ("\n".join(lines) + "\n").encode())
    private = re.search(r"^PrivateKey = (\S+)$", path.read_text(encoding="ascii"), re.MULTILINE)
    if private is None:
        raise ValueError(f"{path} holds no private key")
    return str(PrivateKey.parse(private[1]).public_key)


def main() -> int:
    """Prepare, and print what to do next."""
    parser = argparse.ArgumentParser(description="Make keys, secrets and .env of a tenant's stack.")
    parser.add_argument("--host", required=True, help="name devices reach bridge, MQTT and WireGuard by")
    parser.add_argument("--folder", type=Path, default=HERE, help="where compose.yaml lies")
    given = parser.parse_args()
    try:
        made = prepare(given.host, given.folder)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"devices pin STEP_CA_FINGERPRINT={made['root']}")
    print(f"take away {given.folder / 'tenant' / 'offline'}: the keys of root and intermediate belong offline")
    return 0


if __name__ == "__main__":
    sys.exit(main())
