"""What a process that holds keys does before anything else.

Responsible for never leaving a core dump, and for OpenSSL's configuration where the key is in hardware:
OpenSSL reads ``OPENSSL_CONF`` once, when it is first loaded, so the interpreter is started again with it.
Loads nothing slow, and nothing that loads OpenSSL.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from enroll.keys import kinds, openssl_conf
from enroll.keys.provider import KeySettings

MARKER: Final = "IOT_ENROLL_RESTARTED"
"""Variable that says that this process is the second one."""

_PR_SET_DUMPABLE: Final = 4
_KEY_FILES: Final = ("device.key", "device-key.pem")
"""Ours, and an older client's that is about to be taken over."""

_MOST_READ: Final = 65536
_LEAST_DESCRIPTOR: Final = 200
"""Above all that children are given, so that the name means nothing to them."""

Execute = Callable[[str, list[str], dict[str, str]], object]


def _exec(program: str, arguments: list[str], environment: dict[str, str]) -> None:
    """Become another program: this process, its descriptors, nothing of its memory."""
    os.execve(program, arguments, environment)  # noqa: S606 - the interpreter that runs this, with its own arguments


def prepare_process(
    settings: KeySettings, environment: Mapping[str, str], arguments: Sequence[str], execute: Execute = _exec
) -> None:
    """Make this process fit to hold and use the device's key; to be called before OpenSSL is loaded.

    Where the key is in hardware, and nobody has set ``OPENSSL_CONF``, this starts the interpreter again, once,
    and does not return.

    :param environment: the process's whole environment.
    :param arguments: the interpreter's whole command line, ``sys.orig_argv``.
    :param execute: replaces the process; tests watch it.
    :raises ConfigurationError: OpenSSL cannot be configured as the settings say.
    """
    forbid_core_dumps()
    if MARKER in environment or environment.get("OPENSSL_CONF"):
        return
    text, more = _for_hardware(settings, environment)
    if text is None:
        return
    more |= {MARKER: "1", "OPENSSL_CONF": f"/proc/self/fd/{_memory_file(text.encode())}"}
    execute(sys.executable or arguments[0], list(arguments), {**environment, **more})


def _for_hardware(settings: KeySettings, environment: Mapping[str, str]) -> tuple[str | None, dict[str, str]]:
    """Return OpenSSL's configuration, if one is needed, and the variables that go with it."""
    match settings.key:
        case "tpm":
            from enroll.keys.tpm_command import TpmCommand, way  # noqa: PLC0415 - only who has a TPM pays for it

            # Its library writes to standard error what the agent says in a sentence.
            quiet = {"TSS2_LOG": environment.get("TSS2_LOG") or "all+none"}
            version = TpmCommand(environment).version()
            text = openssl_conf.for_tpm(version, still_in_file=_still_in_file(settings.folder))
            return text, way(environment) | quiet
        case "pkcs11":
            return openssl_conf.for_token(settings, environment), {}
        case _:
            return None, {}


def _still_in_file(folder: Path) -> bool:
    """Return whether the key in use is one from before there was hardware for it."""
    for name in _KEY_FILES:
        with contextlib.suppress(OSError), (folder / name).open("rb") as stream:
            return kinds.kind(stream.read(_MOST_READ)) == "file"
    return False


def forbid_core_dumps() -> None:
    """Let no core file and no debugger of the same user see this memory (prctl(2), PR_SET_DUMPABLE)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _memory_file(content: bytes) -> int:
    """Return a descriptor that outlives execve, of a file that is nowhere on disk."""
    made = os.memfd_create("openssl.cnf", os.MFD_CLOEXEC)
    try:
        os.write(made, content)
        return fcntl.fcntl(made, fcntl.F_DUPFD, _LEAST_DESCRIPTOR)  # a duplicate without close-on-exec
    finally:
        os.close(made)
