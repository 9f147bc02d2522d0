"""What a process that holds keys does before anything else.

Responsible for never leaving a core dump. Loads nothing slow.
"""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Mapping, Sequence
from typing import Final

from enroll.keys.provider import KeySettings

_PR_SET_DUMPABLE: Final = 4


def prepare_process(settings: KeySettings, environment: Mapping[str, str], arguments: Sequence[str]) -> None:
    """Make this process fit to hold and use the device's key; to be called before OpenSSL is loaded.

    :param environment: the process's whole environment.
    :param arguments: the interpreter's whole command line, ``sys.orig_argv``.
    """
    forbid_core_dumps()


def forbid_core_dumps() -> None:
    """Let no core file and no process of the same user see this memory (prctl(2), PR_SET_DUMPABLE)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
