"""OpenSSL's configuration for TLS with a key in hardware.

Responsible for the text of the configuration, per provider of keys. Not responsible for how it gets into the
process (``enroll.keys.process``).

The names of providers are given without paths: the wheels of cryptography carry an OpenSSL of their own, which
reads the same configuration, finds no such module beside itself, and is the better for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from enroll.errors import ConfigurationError
from enroll.keys.provider import KeySettings

_FRAME: Final = """\
openssl_conf = init_section

[init_section]
providers = providers_section
alg_section = algorithms_section

[providers_section]
default = default_section
{name} = {name}_section

[default_section]
activate = 1

[{name}_section]
activate = 1
{options}
[algorithms_section]
{algorithms}"""

_SIGNATURES_IN_THE_TPM: Final = "default_properties = ?tpm2.signature=yes\n"
"""Needed by tpm2-openssl before 1.2, which exports its keys as if they had no private part: then OpenSSL's own
signature is tried with that, and fails. Nothing more is preferred: the TPM's digests cannot be duplicated in the
middle, as TLS does with the transcript, and it has no ephemeral P-256. What remains with these versions is that RSA
signatures of servers are verified in the TPM too, which knows no keys above 2048 bits."""

_EXPORTS_RIGHTLY: Final = (1, 2)
_MODULES: Final = ("lib/*/ossl-modules", "lib64/ossl-modules", "lib/ossl-modules")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./+@:,=-]+", re.ASCII)


def for_tpm(version: tuple[int, ...] | None, *, still_in_file: bool = False) -> str:
    """Return the configuration for a key in the TPM.

    :param version: of tpm2-openssl; ``None`` if nobody knows.
    :param still_in_file: the key in use is one from before there was a TPM; the old versions can serve one of them.
    """
    needed = not still_in_file and (version is None or version < _EXPORTS_RIGHTLY)
    return _FRAME.format(name="tpm2", options="", algorithms=_SIGNATURES_IN_THE_TPM if needed else "")


def for_token(settings: KeySettings, environment: Mapping[str, str]) -> str | None:
    """Return the configuration for a key in a token; ``None`` where OpenSSL has no provider for tokens.

    :raises ConfigurationError: a path cannot be written in OpenSSL's configuration.
    """
    if not has_pkcs11_provider(environment):
        return None
    module = _plain("ENROLL_PKCS11_MODULE", settings.pkcs11_module)
    pin_file = _plain("ENROLL_PKCS11_PIN_FILE", settings.pkcs11_pin_file)
    options = (
        f"pkcs11-module-path = {module}\n"
        f"pkcs11-module-token-pin = file:{pin_file}\n"
        # The token's library is in use by the agent too: it must not be ended under its hands.
        "pkcs11-module-quirks = no-deinit\n"
    )
    return _FRAME.format(name="pkcs11", options=options, algorithms="")


def has_pkcs11_provider(environment: Mapping[str, str], prefixes: tuple[Path, ...] = (Path("/usr"),)) -> bool:
    """Return whether OpenSSL has the provider pkcs11 (https://github.com/latchset/pkcs11-provider)."""
    named = environment.get("OPENSSL_MODULES")
    if named:
        return (Path(named) / "pkcs11.so").exists()
    return any(any(prefix.glob(f"{folder}/pkcs11.so")) for prefix in prefixes for folder in _MODULES)


def _plain(variable: str, path: Path | None) -> Path:
    if path is None or not _PLAIN.fullmatch(str(path)):
        raise ConfigurationError(variable, f"{path} has characters that OpenSSL's configuration cannot carry")
    return path
