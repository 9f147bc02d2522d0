"""OpenSSL's configuration for TLS with a key in hardware.

Responsible for the text of the configuration, per provider of keys. Not responsible for how it gets into the
process (``enroll.keys.process``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from enroll.keys.provider import KeySettings

_TPM: Final = """\
openssl_conf = init_section

[init_section]
providers = providers_section
alg_section = algorithms_section

[providers_section]
default = default_section
tpm2 = tpm2_section

[default_section]
activate = 1

[tpm2_section]
activate = 1

[algorithms_section]
default_properties = ?tpm2.signature=yes
"""
"""Of all that the TPM offers, signatures alone are preferred: its digests cannot be duplicated in the middle, as TLS
does with the transcript, and its key agreement speaks no ephemeral P-256."""


def render(settings: KeySettings, environment: Mapping[str, str]) -> str | None:
    """Return the configuration, or ``None`` where the key needs none."""
    return _TPM if settings.key == "tpm" else None
