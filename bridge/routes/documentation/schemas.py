"""Shapes of requests, answers and problems, with examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bridge.routes.bodies import ActivateFields, EnrollFields
from bridge.routes.problems import TITLES
from enroll.wire import (
    FINAL_CODES,
    PRIVATE_KEY_PLACEHOLDER,
    PROBLEM_TYPE_PREFIX,
    VOUCHER_HEADER,
    WEBHOOK_SECRET_HEADER,
    Code,
)

Schema = dict[str, Any]

SECURITY: Final[Schema] = {
    "webhookSecret": {
        "type": "apiKey",
        "in": "header",
        "name": WEBHOOK_SECRET_HEADER,
        "description": "`BRIDGE_WEBHOOK_SECRET`. Two values are valid at once while it is rotated.",
    },
    "voucher": {
        "type": "apiKey",
        "in": "header",
        "name": VOUCHER_HEADER,
        "description": "The voucher of the registration, where the admission policy wants one. Or field `voucher`.",
    },
}

CSR_EXAMPLE: Final = "-----BEGIN CERTIFICATE REQUEST-----\nMIHVMH0CAQ...\n-----END CERTIFICATE REQUEST-----\n"
LEAF_EXAMPLE: Final = "-----BEGIN CERTIFICATE-----\nMIICATCCAaegAw...\n-----END CERTIFICATE-----\n"
ISSUER_EXAMPLE: Final = "-----BEGIN CERTIFICATE-----\nMIIByTCCAW+gAw...\n-----END CERTIFICATE-----\n"
ROOT_EXAMPLE: Final = "-----BEGIN CERTIFICATE-----\nMIIBoTCCAUegAw...\n-----END CERTIFICATE-----\n"
KEY_EXAMPLE: Final = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
_CONFIG: Final = (
    "[Interface]\n{key}Address = 10.8.0.7/32\n\n[Peer]\nPublicKey = HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=\n"
    "Endpoint = vpn.example.com:51820\nAllowedIPs = 10.8.0.0/24\nPersistentKeepalive = 25\n"
)

NEW_REQUEST: Final[Schema] = {
    "csr_pem": CSR_EXAMPLE,
    "wg_public_key": KEY_EXAMPLE,
    "device_name": "Pump 7, hall 2",
    "device_type": "rpi4",
    "hardware": {"model": "Raspberry Pi 4", "cpu_cores": 4, "ram_mb": 4096, "arch": "aarch64"},
    "network": {"hostname": "pump-7", "connection": "ethernet"},
}
OLD_REQUEST: Final[Schema] = {
    "csr": CSR_EXAMPLE,
    "device_name": "Pump 7, hall 2",
    "device_type": "rpi4",
    "wg_public_key": KEY_EXAMPLE,
}
BODY_REQUEST: Final[Schema] = {"device_id": "pump-7", "device_type": "rpi4", "csr": CSR_EXAMPLE}

_PROOF: Final = "eyJhbGciOiJFUzI1NiIsInR5cCI6ImlvdC1lbnJvbGwrandzIn0.eyJhY3Qi.MEUC"
RENEWAL_REQUEST: Final[Schema] = {"csr_pem": CSR_EXAMPLE, "wg_public_key": KEY_EXAMPLE, "proof": _PROOF}
ACTIVATION_REQUEST: Final[Schema] = {"proof": _PROOF}

NEW_ANSWER: Final[Schema] = {
    "device_id": "pump-7",
    "generation": 1,
    "state": "current",
    "cert": LEAF_EXAMPLE,
    "ca_chain": ISSUER_EXAMPLE,
    "not_after": "2026-10-08T10:00:00Z",
    "renew_after": "2026-08-07T10:00:00Z",
    "server_time": "2026-04-11T10:00:00Z",
    "wg": {
        "address": "10.8.0.7/32",
        "server_public_key": "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=",
        "endpoint": "vpn.example.com:51820",
        "allowed_ips": ["10.8.0.0/24"],
        "persistent_keepalive": 25,
        "config": _CONFIG.format(key=""),
    },
    "mqtt": {"host": "mqtt.example.com", "port": 8883},
    "hawkbit": {"url": "https://updates.example.com", "tenant": "DEFAULT"},
}
PENDING_ANSWER: Final[Schema] = NEW_ANSWER | {"state": "pending"}
OLD_ANSWER: Final[Schema] = NEW_ANSWER | {
    "ca_chain": ISSUER_EXAMPLE + ROOT_EXAMPLE,
    "certificate": LEAF_EXAMPLE,
    "wireguard_ip": "10.8.0.7",
    "wireguard_config": _CONFIG.format(key=f"PrivateKey = {PRIVATE_KEY_PLACEHOLDER}\n"),
}


def ref(name: str) -> Schema:
    """Return a reference to a schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def schemas() -> dict[str, Schema]:
    """Return every schema by its name."""
    return {
        "EnrollmentRequest": _request({"csr", "device_id"}, ["csr_pem"], NEW_REQUEST),
        "OldEnrollmentRequest": _request({"csr_pem", "device_id"}, ["csr"], OLD_REQUEST) | {"deprecated": True},
        "OldEnrollmentRequestWithId": _request({"csr_pem"}, ["csr", "device_id"], BODY_REQUEST) | {"deprecated": True},
        "ActivationRequest": _activation(),
        "EnrollmentAnswer": _answer(),
        "OldEnrollmentAnswer": _old_answer(),
        "Problem": _problem(),
        "Readiness": _readiness(),
    }


def _request(left_out: set[str], required: list[str], example: Schema) -> Schema:
    """Describe a request from the model that parses it."""
    described = EnrollFields.model_json_schema()["properties"]
    fields = {name: _field(schema) for name, schema in described.items() if name not in left_out}
    for name in required:
        fields[name]["type"] = "string"
    return {"type": "object", "properties": fields, "required": required, "examples": [example]}


def _activation() -> Schema:
    fields = {
        name: {"type": "string", "description": schema["description"]}
        for name, schema in ActivateFields.model_json_schema()["properties"].items()
    }
    return {"type": "object", "properties": fields, "required": list(fields), "examples": [ACTIVATION_REQUEST]}


def _field(described: Mapping[str, Any]) -> Schema:
    kind = next(branch for branch in described["anyOf"] if branch["type"] != "null")
    return {"description": described["description"], **kind, "type": [kind["type"], "null"]}


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description} | more


def _object(description: str, properties: dict[str, Schema], *, nullable: bool = False) -> Schema:
    return {
        "type": ["object", "null"] if nullable else "object",
        "description": description,
        "properties": properties,
        "required": list(properties),
    }


def _answer() -> Schema:
    number = {"type": "integer"}
    vpn = {
        "address": _text("The device's address with its prefix length."),
        "server_public_key": _text("The VPN server's public key, base64."),
        "endpoint": _text("`host:port` of the VPN server."),
        "allowed_ips": {"type": "array", "items": {"type": "string"}, "description": "Networks behind the tunnel."},
        "persistent_keepalive": number | {"description": "Seconds."},
        "config": _text("The same as a `wg0.conf` without the `PrivateKey` line."),
    }
    time = {"format": "date-time"}
    return _object(
        "A certificate and what it is for.",
        {
            "device_id": _text("As first registered or admitted."),
            "generation": number
            | {"minimum": 1, "description": "Counts the identities of this id; a renewal keeps it."},
            "state": _text("`pending`: not in use before it is activated.", enum=["current", "pending"]),
            "cert": _text("The device's certificate, PEM."),
            "ca_chain": _text("PEM: the issuing CA first, then its issuers, without the root."),
            "not_after": _text("When the certificate ends.", **time),
            "renew_after": _text("When to renew: after two thirds of the lifetime.", **time),
            "server_time": _text("The bridge's clock, for devices without one.", **time),
            "wg": _object("The VPN; null without a WireGuard key or without VPN.", vpn, nullable=True),
            "mqtt": _object(
                "The MQTT broker; null if there is none.", {"host": _text("Host name."), "port": number}, nullable=True
            ),
            "hawkbit": _object(
                "The update server; null if there is none.",
                {"url": _text("Base URL."), "tenant": _text("hawkBit tenant.")},
                nullable=True,
            ),
        },
    ) | {"examples": [NEW_ANSWER]}


def _old_answer() -> Schema:
    more = {
        "certificate": _text("The same as `cert`."),
        "wireguard_ip": _text("The VPN address without prefix length; empty without a VPN address."),
        "wireguard_config": _text(
            f"`wg0.conf` in which `{PRIVATE_KEY_PLACEHOLDER}` stands for the private key; empty without a VPN address."
        ),
    }
    return {
        "description": "The answer for older clients. Here `ca_chain` ends with the root. Written without blanks.",
        "allOf": [ref("EnrollmentAnswer"), {"type": "object", "properties": more, "required": list(more)}],
        "deprecated": True,
        "examples": [OLD_ANSWER],
    }


def _problem() -> Schema:
    lines = [
        f"- `{code}`: {title}{' (final for a device)' if code in FINAL_CODES else ''}" for code, title in TITLES.items()
    ]
    return {
        "type": "object",
        "description": "RFC 9457.",
        "properties": {
            "type": _text(f"`{PROBLEM_TYPE_PREFIX}` and the code.", format="uri"),
            "title": _text("The code in words."),
            "status": {"type": "integer", "description": "The HTTP status."},
            "detail": _text("What is wrong with this request, and what to do next. For people."),
            "code": _text("Stable. One of:\n\n" + "\n".join(lines), enum=[str(code) for code in Code]),
            "request_id": _text("The same as in `X-Request-Id`."),
        },
        "required": ["type", "title", "status", "detail", "code", "request_id"],
    }


def _readiness() -> Schema:
    part = {
        "type": "object",
        "properties": {
            "up": {"type": "boolean"},
            "reason": _text("What is wrong."),
            "advice": _text("What to check."),
        },
        "required": ["up"],
    }
    parts = {"type": "object", "additionalProperties": part}
    return _object(
        "Which part works.",
        {
            "ready": {"type": "boolean", "description": "True if a device can enroll now."},
            "parts": parts | {"description": "Without these no device can enroll."},
            "watched": parts | {"description": "These are caught up with later; they do not count for `ready`."},
        },
    )
