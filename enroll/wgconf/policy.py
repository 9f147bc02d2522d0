"""Which addresses an answer may give the device, and which traffic it may draw into the tunnel.

Responsible for single rules over typed addresses; each raises a ``ValueError`` that begins with the field's name.
Not responsible for keys, or for the field's place in the answer.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from enroll.names import HostPort, Network, is_ip

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface

WIDEST: Final = {4: 16, 6: 48}
"""Shortest prefix of ``allowed_ips`` per IP version."""

_MAX_ENDPOINT: Final = 300
# Ranges that neither a device's address nor a route of a tunnel lies in: this network, the own machine, the link,
# many receivers, and what is reserved (RFC 6890; for IPv6 the IPv4-mapped addresses too).
_NOBODYS: Final = tuple(
    ipaddress.ip_network(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/8", "fe80::/10", "ff00::/8")
)


def zoned(address: Address | Interface) -> bool:
    """Return whether it has a zone (``%eth0``): Python lets that hold any character, a newline too.

    An interface's ``ip`` has lost the zone that its text still has.
    """
    return isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None


def within(inner: Network, outer: Network) -> bool:
    """Return whether a network lies in another one; never across IP versions."""
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False


def address(text: str) -> Interface:
    """Parse ``wg.address``.

    :raises ValueError: no IP address.
    """
    try:
        return ipaddress.ip_interface(text)
    except ValueError as e:
        raise ValueError("address is no IP address") from e


def networks(texts: Iterable[str]) -> list[Network]:
    """Parse ``wg.allowed_ips``.

    :raises ValueError: something that is no network.
    """
    try:
        return [ipaddress.ip_network(text) for text in texts]
    except ValueError as e:
        raise ValueError("allowed_ips holds something that is no network") from e


def endpoint(text: str) -> HostPort:
    """Parse ``wg.endpoint``.

    :raises ValueError: not ``host:port``, or an address that is no server's.
    """
    if len(text) > _MAX_ENDPOINT:
        raise ValueError("endpoint is too long for host:port")
    try:
        server = HostPort.parse(text)
    except ValueError as e:
        raise ValueError(f"endpoint: {e}") from e
    for ip in literal(server):
        if ip.is_unspecified or ip.is_multicast or (ip.version == 4 and ip.is_reserved):  # noqa: PLR2004 - IPv4
            raise ValueError(f"endpoint {server} is no server's address")
    return server


def literal(server: HostPort) -> list[Address]:
    """Return the server's address, if it is written as one; no name is looked up."""
    return [ipaddress.ip_address(server.host)] if is_ip(server.host) else []


def check_address(ip: Address, routes: Sequence[Network], forbidden: Sequence[Address]) -> None:
    """Refuse an address outside of all reason.

    :raises ValueError: one that no host has, one of a server's, or a public one that no route of the tunnel covers
        (it would only take that address away from the device's own traffic).
    """
    if any(ip in network for network in _NOBODYS):
        raise ValueError(f"address {ip} is no address for a device")
    if ip in forbidden:
        raise ValueError(f"address {ip} is that of a server this device talks to")
    if ip.is_global and not any(ip in network for network in routes):
        raise ValueError(f"address {ip} is a public one outside of wg.allowed_ips")


def check_routes(routes: Sequence[Network], allowed: Sequence[Network], forbidden: Sequence[Address]) -> None:
    """Refuse routes that take more of the device's traffic than a VPN needs.

    Neighbouring networks count as the one that they are together.

    :param allowed: what the device's own configuration lets in; only the hard ranges hold for it.
    :raises ValueError: wider than ``WIDEST``, covering a forbidden address, or in nobody's range.
    """
    for network in routes:
        if any(within(network, nobodys) for nobodys in _NOBODYS):
            raise ValueError(f"allowed_ips: {network} does not belong into a tunnel")
    doubtful = [network for network in routes if not any(within(network, wide) for wide in allowed)]
    for network in doubtful:
        for ip in forbidden:
            if ip in network:
                raise ValueError(
                    f"allowed_ips: {network} covers {ip}, which is reached outside of the tunnel; "
                    "if that is meant, name the network in ENROLL_ALLOWED_IPS"
                )
    for network in _together(doubtful):
        widest = WIDEST[network.version]
        if network.prefixlen < widest:
            raise ValueError(
                f"allowed_ips: {network} is wider than /{widest} and would take over the device's traffic; "
                "if that is meant, name it in ENROLL_ALLOWED_IPS"
            )


def _together(routes: Sequence[Network]) -> list[Network]:
    four = [network for network in routes if isinstance(network, ipaddress.IPv4Network)]
    six = [network for network in routes if isinstance(network, ipaddress.IPv6Network)]
    return [*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six)]
