"""The embedded CA: step-ca's HTTP API in this process, strict, kept in a folder.

It refuses what step-ca refuses, with the same statuses and messages, and has the two provisioners that
the bridge wants: one for devices, one for servers. For development, demonstrations and tests; loopback only.
"""

from ca.standin.server import LOCALHOST, StandInCa, StandInSettings
from ca.standin.store import Signed, read_signed

__all__ = ["LOCALHOST", "Signed", "StandInCa", "StandInSettings", "read_signed"]
