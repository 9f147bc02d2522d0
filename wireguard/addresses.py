"""Addresses of the VPN: the pool that devices are numbered from, and the server's endpoint.

Pure arithmetic on values that are checked when they are made, so that none of them can carry a newline
or a second directive into a configuration file. Who holds which address is not decided here.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from wireguard.errors import InvalidAddressError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_HOST_LENGTH = 253
_PORT_MAX = 65535
_PORT_TEXT = re.compile(r"[0-9]{1,5}")


def parse_address(text: str) -> Address:
    """Read one IPv4 or IPv6 address.

    Raises:
        InvalidAddressError: not an address, or one with a zone (`fe80::1%eth0`): Python lets a zone hold
            any character, a newline too.

    """
    try:
        return without_zone(ipaddress.ip_address(text))
    except ValueError as error:
        raise InvalidAddressError(f"{text!r} is not an IP address.") from error


def without_zone(address: Address) -> Address:
    """Give the address back if it has no zone.

    Raises:
        InvalidAddressError: it has one.

    """
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise InvalidAddressError("An address with a zone (the part behind '%') cannot be used in the VPN.")
    return address


def parse_network(text: str) -> Network:
    """Read one network in CIDR form; a bare address is the network of that one address.

    Raises:
        InvalidAddressError: not a network, bits set behind the prefix, or a zone.

    """
    try:
        network = ipaddress.ip_network(text, strict=True)
    except ValueError as error:
        raise InvalidAddressError(f"{text!r} is not a network such as 10.8.0.0/24: {error}.") from error
    without_zone(network.network_address)
    return network


def host_network(address: Address) -> Network:
    """Give the network of this one address: `/32`, for IPv6 `/128`."""
    return ipaddress.ip_network(address)


def in_order(networks: Iterable[Network]) -> tuple[Network, ...]:
    """Put networks into one order, each once, so that two lists of them can be compared."""
    return tuple(sorted(set(networks), key=lambda net: (net.version, net.network_address.packed, net.prefixlen)))


@dataclass(frozen=True, slots=True)
class Pool:
    """The VPN's subnet (`WG_SUBNET`): the server has its first host address, devices the others.

    IPv4 leaves out the network's own and the broadcast address, IPv6 the subnet-router anycast address
    (RFC 4291, section 2.6.1). Numbers are the addresses as integers: they stay the same when the subnet
    grows. An IPv6 number needs up to 128 bits, more than a database's integer has.
    """

    network: Network

    def __post_init__(self) -> None:
        """Refuse what cannot number a server and one device, or is not for hosts at all."""
        without_zone(self.network.network_address)
        if self.network.num_addresses < 4:  # noqa: PLR2004 - network, server, one device, broadcast
            raise InvalidAddressError(
                f"{self.network} has no room for a server and a device; the smallest subnet is a "
                f"/{self.network.max_prefixlen - 2}."
            )
        unusable = self.network.is_multicast or self.network.is_loopback or self.network.is_unspecified
        if unusable or self.network.prefixlen == 0:
            raise InvalidAddressError(f"{self.network} cannot number hosts; take a private one: 10.8.0.0/24.")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `WG_SUBNET`, such as `10.8.0.0/24`.

        Raises:
            InvalidAddressError: not a network, bits set behind the prefix, too small, or not for hosts.

        """
        return cls(parse_network(text))

    @property
    def server_address(self) -> Address:
        """The server's address: the first host of the subnet."""
        return self.network.network_address + 1

    @property
    def first(self) -> int:
        """The lowest number a device can have."""
        return int(self.network.network_address) + 2

    @property
    def last(self) -> int:
        """The highest number a device can have."""
        return int(self.network.broadcast_address) - (1 if self.network.version == 4 else 0)  # noqa: PLR2004 - IPv4

    @property
    def capacity(self) -> int:
        """How many devices have room: `last - first + 1`."""
        return self.last - self.first + 1

    def address(self, number: int) -> Address:
        """Give the device address of this number.

        Raises:
            InvalidAddressError: no device of this pool can have it.

        """
        if not self.first <= number <= self.last:
            raise InvalidAddressError(f"Number {number} is not assignable in {self.network}.")
        return self.network.network_address + (number - int(self.network.network_address))

    def number(self, address: Address) -> int:
        """Give the number of this device address; `pool.address(pool.number(a)) == a`.

        Raises:
            InvalidAddressError: no device of this pool can have it.

        """
        if address not in self:
            raise InvalidAddressError(f"{address} is not assignable in {self.network}.")
        return int(address)

    def __contains__(self, address: object) -> bool:
        """Whether a device can have this address: the server's own is not in the pool."""
        return (
            isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address)
            and address.version == self.network.version
            and self.first <= int(address) <= self.last
        )

    def __str__(self) -> str:
        return str(self.network)


def _checked_host(host: str) -> str:
    try:
        return str(without_zone(ipaddress.ip_address(host)))
    except ValueError:
        pass
    labels = host.split(".")
    if len(host) > _HOST_LENGTH or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
        raise InvalidAddressError(f"{host!r} is neither a host name nor an IP address.")
    return host


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a peer is reached over UDP: a host name or address, and a port of 1 to 65535.

    `host` holds an IPv6 address without brackets; `str()` adds them. Host names are ASCII (an
    international name in its `xn--` form), at most 253 characters.
    """

    host: str
    port: int

    def __post_init__(self) -> None:
        """Refuse everything that is not exactly one host and one port."""
        object.__setattr__(self, "host", _checked_host(self.host))
        if type(self.port) is not int or not 0 < self.port <= _PORT_MAX:
            raise InvalidAddressError(f"{self.port!r} is not a UDP port (1 to {_PORT_MAX}).")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `host:port`, `192.0.2.1:51820` or `[2001:db8::1]:51820` (`WG_SERVER_ENDPOINT`).

        Raises:
            InvalidAddressError: anything else, in particular a missing port.

        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or not _PORT_TEXT.fullmatch(port) or (":" in host) != bracketed:
            raise InvalidAddressError(
                f"{text!r} is not an endpoint; write host:port such as vpn.example.com:51820, "
                "an IPv6 address in brackets."
            )
        return cls(host[1:-1] if bracketed else host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
