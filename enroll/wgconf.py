"""The device's side of the tunnel as typed values, and ``wg0.conf`` made of them.

Responsible for refusing an answer whose ``wg`` fields could do harm (a newline is a ``PostUp`` run by root, a
wide ``allowed_ips`` takes over the device's traffic) and for rendering what is left. The answer's own
``config`` text is never looked at.

Not responsible for raising an interface (``enroll.tunnel``).
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from dataclasses import dataclass
from typing import Final, TypeAlias

from enroll.errors import AnswerRejectedError
from enroll.names import HostPort
from enroll.wire import WireGuardAnswer

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Interface: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface

WIDEST: Final = {4: 16, 6: 48}
"""Shortest prefix of ``allowed_ips`` per IP version."""

_MAX_ROUTES: Final = 32
_MAX_KEEPALIVE: Final = 65535
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class TunnelConfig:
    """What ``wg0.conf`` says, but for the device's own private key."""

    address: Interface
    server_public_key: str
    endpoint: HostPort
    allowed_ips: tuple[Network, ...]
    persistent_keepalive: int
    """Seconds; 0 is off."""

    @classmethod
    def from_answer(cls, wg: WireGuardAnswer, own_public_key: str) -> TunnelConfig:
        """Check every field of the answer.

        :raises AnswerRejectedError: names the field.
        """
        key = _public_key(wg.server_public_key)
        if key == own_public_key:
            raise AnswerRejectedError("wg.server_public_key is this device's own key")
        if not 0 <= wg.persistent_keepalive <= _MAX_KEEPALIVE:
            raise AnswerRejectedError("wg.persistent_keepalive is not 0 to 65535 seconds")
        try:
            endpoint = HostPort.parse(wg.endpoint)
        except ValueError as e:
            raise AnswerRejectedError(f"wg.endpoint: {e}") from e
        return cls(_address(wg.address), key, endpoint, _routes(wg.allowed_ips), wg.persistent_keepalive)

    def render(self, private_key: str) -> bytes:
        """Return ``wg0.conf`` for wg-quick(8): a secret, as it holds the private key."""
        lines = [
            "# written by iot-enroll; changes are lost at the next enrollment",
            "[Interface]",
            f"PrivateKey = {private_key}",
            f"Address = {self.address}",
            "",
            "[Peer]",
            f"PublicKey = {self.server_public_key}",
            f"Endpoint = {self.endpoint}",
            f"AllowedIPs = {', '.join(str(network) for network in self.allowed_ips)}",
        ]
        if self.persistent_keepalive:
            lines.append(f"PersistentKeepalive = {self.persistent_keepalive}")
        return ("\n".join(lines) + "\n").encode("ascii")


def _public_key(text: str) -> str:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as e:
        raise AnswerRejectedError("wg.server_public_key is not base64") from e
    if len(raw) != _KEY_BYTES or not any(raw) or base64.b64encode(raw).decode() != text:
        raise AnswerRejectedError("wg.server_public_key is no WireGuard key")
    return text


def _address(text: str) -> Interface:
    try:
        address = ipaddress.ip_interface(text)
    except ValueError as e:
        raise AnswerRejectedError("wg.address is no IP address") from e
    if "%" in text or address.network.prefixlen != address.max_prefixlen:
        raise AnswerRejectedError(f"wg.address must be a single address (/{address.max_prefixlen})")
    ip = address.ip
    if ip.is_loopback or ip.is_multicast or ip.is_unspecified or ip.is_link_local or ip.is_reserved:
        raise AnswerRejectedError(f"wg.address {ip} is no address for a device")
    return address


def _routes(texts: tuple[str, ...]) -> tuple[Network, ...]:
    if not 1 <= len(texts) <= _MAX_ROUTES:
        raise AnswerRejectedError(f"wg.allowed_ips must hold 1 to {_MAX_ROUTES} networks")
    return tuple(_route(text) for text in texts)


def _route(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as e:
        raise AnswerRejectedError("wg.allowed_ips holds something that is no network") from e
    if "%" in text or network.is_loopback or network.is_multicast or network.is_link_local:
        raise AnswerRejectedError(f"wg.allowed_ips: {network} does not belong into a tunnel")
    widest = WIDEST[network.version]
    if network.prefixlen < widest:
        raise AnswerRejectedError(
            f"wg.allowed_ips: {network} is wider than /{widest} and would take over the device's traffic"
        )
    return network
