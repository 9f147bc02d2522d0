"""Configuration: the environment, read once, as one frozen typed object.

Responsible for names, types, defaults and for what may go together. Every error names its variable. Not responsible for
trying connections: that is ``iot-bridge config check``.
"""

from bridge.config.modes import Mode, mode_of
from bridge.config.settings import Settings, load

__all__ = ["Mode", "Settings", "load", "mode_of"]
