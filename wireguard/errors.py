"""Errors of the `wireguard` package: one family, split by who has to act.

Every public function of this package raises subclasses of `WireGuardError` only; what the standard
library or a process raised is chained as the cause. Texts are for people and name what to check. No
text ever holds a private key.
"""

from pathlib import Path


class WireGuardError(Exception):
    """Base of everything this package raises."""


# --- values: the caller handed in something that WireGuard could not use or that is not safe to write ---


class InvalidValueError(WireGuardError):
    """A value that was refused at the edge."""


class InvalidKeyError(InvalidValueError):
    """Not a usable Curve25519 key. The text never repeats the key: it could be a private one."""


class InvalidAddressError(InvalidValueError):
    """Not an address, network or endpoint that can stand in a WireGuard configuration."""


class InvalidInterfaceNameError(InvalidValueError):
    """Not a name that Linux and wg-quick accept for an interface."""


class InvalidPeerError(InvalidValueError):
    """A peer, or a set of peers, that contradicts itself (the same key or address twice)."""


# --- the interface: `wg`, `wg-quick` and `wireguard-go` on this host ---


class InterfaceError(WireGuardError):
    """The interface could not be read or changed."""


class ToolMissingError(InterfaceError):
    """The program is not installed or not on the PATH."""


class NoSuchInterfaceError(InterfaceError):
    """There is no WireGuard interface of this name in this network namespace."""


class NotPermittedError(InterfaceError):
    """The process may not configure interfaces (it needs root or CAP_NET_ADMIN)."""


class ToolTimeoutError(InterfaceError):
    """The program gave no answer in time and was ended."""


class RefusedError(InterfaceError):
    """The program ran and refused for another reason; `detail` is its own message, secrets cut."""

    def __init__(self, message: str, *, detail: str) -> None:
        super().__init__(message)
        self.detail = detail


class KeyRefusedError(RefusedError):
    """The program found a key, in its arguments or in a file, that is none."""


class UnexpectedOutputError(InterfaceError):
    """`wg` printed something this version of the package does not understand."""


# --- files on the shared volume ---


class PeerFileError(WireGuardError):
    """A file of the WireGuard data folder cannot be used; `path` says which."""

    def __init__(self, message: str, *, path: Path) -> None:
        super().__init__(message)
        self.path = path


class FileMissingError(PeerFileError):
    """The file is not there (yet)."""


class MalformedFileError(PeerFileError):
    """The file is cut off or is not JSON: no writer of ours leaves such a file."""


class ForeignFileError(PeerFileError):
    """The file is JSON of another shape: another program writes to this name."""


class StaleRevisionError(PeerFileError):
    """The revision is older than the one already there; `present` is that one."""

    def __init__(self, message: str, *, path: Path, present: int) -> None:
        super().__init__(message, path=path)
        self.present = present


class RevisionConflictError(PeerFileError):
    """The revision is already there with other peers: two registries write to one folder.

    Not a `StaleRevisionError`: that one may be passed over, this one never.
    """


class FolderUnusableError(PeerFileError):
    """The folder cannot be read, written or locked (missing, full, no permission, lock held)."""
