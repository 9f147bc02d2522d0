"""The small values that the agent's parts exchange: ids, fingerprints, addresses of servers.

Each is parsed at the edge and cannot hold nonsense afterwards. Standard library only, so that a wrong
configuration is reported before anything slow is imported. A ``ValueError`` says what is wrong with the
text; the caller knows which variable or field it stood in and raises its own error.

Not responsible for certificates or keys.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from enroll.printable import printable

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
MAX_PORT: Final = 65535
_MAX_HOST: Final = 253

_DEVICE_ID: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?", re.ASCII)
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?", re.ASCII)
_PATH: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)*", re.ASCII)
_HEX64: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class DeviceId:
    """The one name of a device in all systems; never an IP address or ``localhost``."""

    value: str

    def __post_init__(self) -> None:
        if not _DEVICE_ID.fullmatch(self.value):
            raise ValueError(
                f"{self.value!r} is no device id: 1 to 64 of A-Z a-z 0-9 . _ -, first and last a letter or digit"
            )
        if self.value.lower() == "localhost" or is_ip(self.value):
            raise ValueError(f"{self.value!r} is no device id: a leaf must never name a server")

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """SHA-256 of a certificate's DER: 64 lower-case hex digits."""

    value: str

    def __post_init__(self) -> None:
        if not _HEX64.fullmatch(self.value):
            raise ValueError("a fingerprint is the SHA-256 of a certificate: 64 hex digits")

    @classmethod
    def parse(cls, text: str) -> Fingerprint:
        """Parse hex digits in either case, with or without colons between bytes (as OpenSSL prints).

        :raises ValueError: not 64 hex digits.
        """
        bare = text.strip().lower()
        if ":" in bare:
            if not re.fullmatch(r"[0-9a-f]{2}(?::[0-9a-f]{2}){31}", bare):
                raise ValueError("a fingerprint is the SHA-256 of a certificate: 64 hex digits")
            bare = bare.replace(":", "")
        return cls(bare)

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class HostPort:
    """A server as it can be dialled: host name or IP address (IPv6 without brackets), and port."""

    host: str
    port: int

    def __post_init__(self) -> None:
        if not is_host(self.host):
            raise ValueError(f"{printable(self.host, 100)!r} is neither a host name nor an IP address")
        if not 1 <= self.port <= MAX_PORT:
            raise ValueError(f"{self.port} is no port")

    @classmethod
    def parse(cls, text: str) -> HostPort:
        """Parse ``host:port`` or ``[v6]:port``.

        :raises ValueError: not of that form.
        """
        host, colon, port = text.rpartition(":")
        if not colon or not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII):
            raise ValueError(f"{text!r} is not host:port")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            if ":" not in host:
                raise ValueError(f"{text!r}: brackets are for IPv6 addresses")
        elif ":" in host:
            raise ValueError(f"{text!r}: an IPv6 address is written in brackets")
        return cls(host, int(port))

    @property
    def loopback(self) -> bool:
        """True if the text itself says that this is the own machine (no name is looked up)."""
        if self.host.lower().rstrip(".") in {"localhost", "localhost.localdomain"}:
            return True
        return is_ip(self.host) and ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class BridgeUrl:
    """Where the bridge answers: ``https://host[:port][/prefix]``, without a slash at the end."""

    value: str

    @classmethod
    def parse(cls, text: str) -> BridgeUrl:
        """Parse a base URL; a slash at the end is dropped.

        :raises ValueError: not https, or with user, query, fragment or odd characters.
        """
        parts = urlsplit(text.strip())
        if parts.scheme != "https":
            raise ValueError(f"{text!r} must begin with https://; the agent never speaks plain HTTP")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("a base URL has no user, query or fragment")
        server = HostPort(parts.hostname or "", 443 if parts.port is None else parts.port)
        path = parts.path.rstrip("/")
        if not _PATH.fullmatch(path):
            raise ValueError(f"{parts.path!r} is no path prefix")
        authority = str(server) if parts.port is not None else str(server).removesuffix(":443")
        return cls(f"https://{authority}{path}")

    def __str__(self) -> str:
        return self.value


def is_ip(text: str) -> bool:
    """Return whether the text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_host(text: str) -> bool:
    """Return whether the text is a DNS name in its usual letters or an IP address without a zone."""
    if is_ip(text):
        return "%" not in text
    return len(text) <= _MAX_HOST and _HOST.fullmatch(text) is not None


def parse_network(text: str) -> Network:
    """Return the network, such as ``10.8.0.0/16``; bits beyond the prefix must be zero.

    :raises ValueError: it is none.
    """
    if "%" in text:
        raise ValueError(f"{text!r}: a network has no zone")
    return ipaddress.ip_network(text)
