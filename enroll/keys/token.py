"""A PKCS#11 token: the one place that speaks to python-pkcs11.

Responsible for loading the token's library, for logging in with the PIN of the PIN file, and for saying in one
clear sentence why a token does not do what it was asked. Not responsible for which key means what.
"""

from __future__ import annotations

import contextlib
import functools
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from enroll.errors import ConfigurationError, StorageError

if TYPE_CHECKING:
    from pkcs11.types import Session

_PIN_FILE: Final = "ENROLL_PKCS11_PIN_FILE"
_MODULE: Final = "ENROLL_PKCS11_MODULE"
_MOST_PIN: Final = 256


@functools.cache
def _library(module: Path) -> Any:
    """Load a token's library, once per process as PKCS#11 wants it."""
    try:
        import pkcs11  # noqa: PLC0415 - an optional dependency
    except ImportError as e:
        text = "is pkcs11, but the Python package python-pkcs11 is missing; install iot-bridge[pkcs11]"
        raise ConfigurationError("ENROLL_KEY", text) from e
    try:
        return pkcs11.lib(str(module))
    except pkcs11.PKCS11Error as e:
        raise ConfigurationError(_MODULE, f"{module} cannot be loaded as a PKCS#11 library: {e}") from e


@dataclass(frozen=True, slots=True)
class Token:
    """How to reach one token; nothing is opened before ``session``."""

    module: Path
    label: str
    pin_file: Path

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Log in, and out again.

        :raises StorageError: the token is not there, or fails.
        :raises ConfigurationError: the library, the package or the PIN is wrong.
        """
        library = _library(self.module)
        import pkcs11  # noqa: PLC0415 - it is there, or the line above had raised

        try:
            with self._open(library) as session:
                yield session
        except pkcs11.PKCS11Error as e:
            raise self._why(e) from e

    def _open(self, library: Any) -> Session:
        from pkcs11 import TokenFlag, UserAlreadyLoggedIn  # noqa: PLC0415 - as above

        token = library.get_token(token_label=self.label)
        if token.flags & (TokenFlag.USER_PIN_FINAL_TRY | TokenFlag.USER_PIN_LOCKED):
            # An agent that tries for ever would lock the token for good.
            raise ConfigurationError(
                _PIN_FILE,
                f"the token {self.label!r} refused PINs and would be locked by one more (or is); nothing was tried. "
                "Correct the PIN, and log in once by hand",
            )
        try:
            session: Session = token.open(rw=True, user_pin=self._pin())
        except UserAlreadyLoggedIn:  # logins are the process's; OpenSSL's provider may have been first
            session = token.open(rw=True)
        return session

    def _pin(self) -> str:
        try:
            with self.pin_file.open("rb") as stream:
                mode = stat.S_IMODE(self.pin_file.stat().st_mode)
                pin = stream.read(_MOST_PIN + 1).decode().rstrip("\r\n")
        except OSError as e:
            raise ConfigurationError(_PIN_FILE, f"cannot read {self.pin_file}: {e.strerror}") from e
        except UnicodeDecodeError:
            raise ConfigurationError(_PIN_FILE, f"{self.pin_file} holds no text") from None  # the cause shows the PIN
        if mode & stat.S_IRWXO:
            raise ConfigurationError(_PIN_FILE, f"{self.pin_file} is open to everyone; chmod 600 it")
        if not 1 <= len(pin) <= _MOST_PIN or not pin.isprintable():
            raise ConfigurationError(_PIN_FILE, f"{self.pin_file} holds no PIN (one line of text)")
        return pin

    def _why(self, error: Exception) -> StorageError | ConfigurationError:
        import pkcs11  # noqa: PLC0415 - as above

        name = f"the token {self.label!r}"
        match error:
            case pkcs11.NoSuchToken() | pkcs11.TokenNotPresent() | pkcs11.DeviceRemoved():
                return StorageError(f"{name} is not there; check that it is plugged in and ENROLL_PKCS11_TOKEN")
            case pkcs11.MultipleTokensReturned():
                return ConfigurationError("ENROLL_PKCS11_TOKEN", f"{self.label!r} is the label of several tokens")
            case pkcs11.PinIncorrect() | pkcs11.PinInvalid() | pkcs11.PinLenRange() | pkcs11.PinExpired():
                return ConfigurationError(_PIN_FILE, f"{name} does not take this PIN")
            case pkcs11.PinLocked():
                return ConfigurationError(_PIN_FILE, f"{name} is locked after wrong PINs; its administrator unlocks it")
            case pkcs11.DeviceMemory():
                return StorageError(f"{name} has no room for another key; remove keys that nobody needs")
            case _:
                return StorageError(f"{name} refused: {type(error).__name__} {error}".rstrip())
