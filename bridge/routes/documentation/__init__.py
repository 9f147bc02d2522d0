"""The API document (OpenAPI 3.1) and the page that people read.

Written out rather than derived from handlers, so that the hot path stays plain; tests compare it with what the doors
really take and answer.
"""

from __future__ import annotations

from typing import Any, Final

from bridge.routes.documentation import operations, schemas

_ABOUT: Final = """\
Enrollment of devices and the few public documents of one tenant's PKI.

A device makes its key and a CSR, posts it to `POST /devices/{device_id}/enroll`, and is answered with its \
certificate, its place in the VPN, and the addresses of the MQTT broker and the update server.

One public key is one certificate, for ever. Repeating a request with the same key is always safe: it gives the same \
certificate, whatever was lost in between. Another key for an active id is refused with 409.

Bodies are JSON in UTF-8, at most 32 KiB, one object, no field twice. Unknown fields are ignored. `null` is the same \
as leaving a field out.

Every error is a problem document (RFC 9457, `application/problem+json`) with a stable `code`. For a device only \
`retired` and `bad_csr` are final; everything else is worth trying again, slowly, and not before `Retry-After`.

Every answer carries `X-Request-Id`: the caller's own, if it sent a sane one (1 to 64 letters, digits, dots, dashes, \
underscores), else a new one. It is what the operator finds in the log and in the audit trail.
"""

_TAGS: Final = [
    {"name": "Enrollment", "description": "What devices call."},
    {
        "name": "Trust",
        "description": "The tenant's public certificates. Compare the root's digest with the pinned one.",
    },
    {"name": "Events", "description": "What the IoT platform calls."},
    {"name": "Operation", "description": "What monitoring calls."},
]


def describe(version: str, path_prefix: str) -> dict[str, Any]:
    """Return the OpenAPI document. With a prefix, what devices call is listed there too, as deprecated."""
    paths = operations.paths()
    if path_prefix:
        paths |= operations.under_prefix(paths, path_prefix)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "IoT bridge",
            "version": version,
            "summary": "Zero-touch enrollment of IoT devices.",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": _TAGS,
        "paths": paths,
        "components": {"schemas": schemas.schemas(), "securitySchemes": schemas.SECURITY},
    }
