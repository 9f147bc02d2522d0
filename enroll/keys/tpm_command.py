"""The TPM through the ``openssl`` command and its provider tpm2 (https://github.com/tpm2-software/tpm2-openssl).

Responsible for running the command (key and digest through anonymous files and pipes, nothing secret in an
argument list), and for saying in one clear sentence why a TPM does not do what it was asked.

The wheels of cryptography carry an OpenSSL that knows no system providers; hence a command.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from enroll.errors import ConfigurationError, StorageError
from enroll.keys.provider import KeyFormatError

TCTI: Final = "TPM2OPENSSL_TCTI"
"""Variable of tpm2-openssl that says how to reach the TPM."""

RESOURCE_MANAGER: Final = "/dev/tpmrm0"
SECONDS: Final = 60.0
"""A slow TPM takes seconds to make its primary key; one that takes longer hangs."""

_INHERITED: Final = ("PATH", "TPM2", "TSS2_", "DBUS_", "OPENSSL_MODULES", "LD_LIBRARY_PATH", "XDG_RUNTIME_DIR")
_WITHOUT_MANAGER: Final = re.compile(r"device(:/dev/tpm\d+)?")
_PROVIDERS: Final = ("-provider", "tpm2", "-provider", "default")
_TPM_ERROR: Final = re.compile(r"ErrorCode \(0x([0-9a-f]{8})\)")
_VERSION: Final = re.compile(r"tpm2\n.*?version: (\d+(?:\.\d+)*)", re.DOTALL)
_FORMAT_ONE: Final = 0x080
_RC_INTEGRITY: Final = 0x09F
_RC_OBJECT_MEMORY: Final = 0x902
_RC_LOCKOUT: Final = 0x921
_MOST_TOLD: Final = 300


def way(environment: Mapping[str, str], manager: Path = Path(RESOURCE_MANAGER)) -> dict[str, str]:
    """Return the variable that says how to reach the TPM, where nobody said it: the kernel's resource manager.

    :raises ConfigurationError: somebody said to use the TPM without one: a second key would find no room in it.
    """
    named = environment.get(TCTI)
    if named and _WITHOUT_MANAGER.fullmatch(named):
        raise ConfigurationError(TCTI, f"{named!r} has no resource manager; use device:{RESOURCE_MANAGER}")
    return {TCTI: f"device:{manager}"} if not named and manager.exists() else {}


class TpmCommand:
    """``openssl`` with the TPM behind it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Take what the command needs of this process's environment; nothing else is handed on."""
        self._environment = {
            name: value for name, value in environment.items() if value and name.startswith(_INHERITED)
        }
        # Errors, not warnings, of the TPM's library; a system-wide configuration could load the TPM twice.
        self._environment |= {"OPENSSL_CONF": "/dev/null", "TSS2_LOG": "all+error", "LC_ALL": "C"}
        self._environment |= way(environment)

    def run(self, command: str, *arguments: str, key: bytes | None = None, given: bytes = b"") -> bytes:
        """Run an ``openssl`` command and return its output.

        :param key: content of a key file, put in the place of the argument ``KEY``.
        :param given: what the command reads from its input.
        :raises KeyFormatError: the TPM says that it did not wrap this key.
        :raises StorageError: the TPM cannot be reached, or says no for now.
        :raises ConfigurationError: what the command needs is not installed or not configured.
        """
        descriptor = os.memfd_create("key", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, key or b"")
            place = f"/proc/self/fd/{descriptor}"
            line = ["openssl", command, *_PROVIDERS, *(place if a == "KEY" else a for a in arguments)]
            ended = self._ended(line, given, descriptor)
        finally:
            os.close(descriptor)
        if ended.returncode == 0:
            return ended.stdout
        raise self._why(ended.stderr.decode(errors="replace"))

    def version(self) -> tuple[int, ...] | None:
        """Return the version of tpm2-openssl; ``None`` where it or the TPM does not answer."""
        try:
            told = self.run("list", "-providers").decode(errors="replace")
        except (StorageError, ConfigurationError, KeyFormatError):
            return None
        found = _VERSION.search(told)
        return tuple(map(int, found[1].split("."))) if found else None

    def _ended(self, line: Sequence[str], given: bytes, descriptor: int) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(  # noqa: S603 - the system's openssl, by PATH; nothing of the arguments comes from outside
                line,
                input=given,
                capture_output=True,
                env=self._environment,
                pass_fds=[descriptor],
                timeout=SECONDS,
                check=False,
            )
        except FileNotFoundError as e:
            raise ConfigurationError("ENROLL_KEY", "is tpm, but there is no openssl command; install it") from e
        except OSError as e:
            raise StorageError(f"cannot run openssl for the TPM: {e.strerror or e}") from e
        except subprocess.TimeoutExpired as e:
            raise StorageError(f"the TPM did not answer within {SECONDS:.0f} s") from e

    def _why(self, told: str) -> KeyFormatError | StorageError | ConfigurationError:
        """Return what went wrong, of the command's error output."""
        if "unable to load provider tpm2" in told:
            return self._unloaded(told)
        codes = [int(code, 16) & 0xFFF for code in _TPM_ERROR.findall(told)]
        if any(code & _FORMAT_ONE and code & 0x0BF == _RC_INTEGRITY for code in codes):
            return KeyFormatError("was wrapped by another TPM, or this TPM was cleared since")
        if _RC_OBJECT_MEMORY in codes:
            return StorageError(
                f"the TPM is out of memory for keys: it is used without a resource manager; check {TCTI} "
                f"(device:{RESOURCE_MANAGER}, or tabrmd with tpm2-abrmd)"
            )
        if _RC_LOCKOUT in codes:
            return StorageError(
                "the TPM is in lockout after wrong passwords; wait, or reset it with tpm2_dictionarylockout"
            )
        return StorageError(f"the TPM refused: {_last(told)}; check it with tpm2_selftest and tpm2_getcap")

    def _unloaded(self, told: str) -> StorageError | ConfigurationError:
        """Return why OpenSSL has no provider tpm2: it is not installed, or it found no TPM."""
        if "could not load the shared library" in told:
            return ConfigurationError("ENROLL_KEY", "is tpm, but OpenSSL has no provider tpm2; install tpm2-openssl")
        way = self._environment.get(TCTI)
        if way is None:
            return StorageError(
                f"no TPM found: there is no {RESOURCE_MANAGER} and {TCTI} is not set; check that the kernel has a "
                "driver for it and that the firmware enables it"
            )
        if "Functionality not supported" in told or "Could not load" in told or "Bad value" in told:
            return ConfigurationError(TCTI, f"{way!r} names no way to a TPM that is installed here")
        return StorageError(f"the TPM cannot be reached through {TCTI}={way}; check the device and who runs the agent")


def _last(told: str) -> str:
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    named = [line for line in lines if line.startswith(("ERROR", "WARNING"))] or lines or ["no reason was given"]
    return "".join(c if c.isprintable() else " " for c in named[-1])[:_MOST_TOLD]
