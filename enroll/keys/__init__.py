"""The device's own keys: made here or in hardware, never sent anywhere.

Importing this package is cheap: cryptography and everything else that is slow comes with the first key.
"""

from enroll.keys.process import prepare_process
from enroll.keys.provider import DeviceKey, KeyFormatError, KeyProvider, KeySettings, provider
from enroll.keys.wireguard import WireGuardKey

__all__ = [
    "DeviceKey",
    "KeyFormatError",
    "KeyProvider",
    "KeySettings",
    "WireGuardKey",
    "prepare_process",
    "provider",
]
