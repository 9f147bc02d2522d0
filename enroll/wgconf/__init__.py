"""The device's side of the tunnel as typed values, and the files that are made of them.

Responsible for refusing an answer whose ``wg`` fields could do harm (a newline is a ``PostUp`` run by root, a
wide ``allowed_ips`` takes over the device's traffic), for rendering what is left for wg-quick(8), wg(8) and
systemd-networkd, and for reading ``wg0.conf`` back. The answer's own ``config`` text is never looked at.

Not responsible for writing files or raising an interface (``enroll.tunnel``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from enroll.errors import AnswerRejectedError
from enroll.names import HostPort, Network
from enroll.wgconf import ini, policy
from enroll.wgconf.policy import WIDEST, Address, Interface
from enroll.wgconf.words import check_public_key, interface_name, key_text
from enroll.wire import WireGuardAnswer

__all__ = ["HEADER", "WIDEST", "Address", "TunnelConfig", "check_public_key", "interface_name"]

HEADER: Final = "# written by iot-enroll; changes are lost at the next enrollment"
"""First line of every file rendered here."""

_MAX_ROUTES: Final = 32
_MAX_KEEPALIVE: Final = 65535
_SECTIONS: Final = {
    "Interface": frozenset({"PrivateKey", "Address"}),
    "Peer": frozenset({"PublicKey", "Endpoint", "AllowedIPs", "PersistentKeepalive"}),
}


@dataclass(frozen=True, slots=True)
class TunnelConfig:
    """What ``wg0.conf`` says, but for the device's own private key. No field can hold a line of its own."""

    address: Interface
    """One address: prefix /32, or /128."""
    server_public_key: str
    endpoint: HostPort
    allowed_ips: tuple[Network, ...]
    persistent_keepalive: int
    """Seconds; 0 is off."""

    def __post_init__(self) -> None:
        if self.address.network.prefixlen != self.address.max_prefixlen or policy.zoned(self.address):
            raise ValueError(f"address must be a single address (/{self.address.max_prefixlen})")
        check_public_key(self.server_public_key)
        if not 1 <= len(self.allowed_ips) <= _MAX_ROUTES:
            raise ValueError(f"allowed_ips must hold 1 to {_MAX_ROUTES} networks")
        if any(policy.zoned(network.network_address) for network in self.allowed_ips):
            raise ValueError("allowed_ips holds a network with a zone")
        if not 0 <= self.persistent_keepalive <= _MAX_KEEPALIVE:
            raise ValueError("persistent_keepalive is not 0 to 65535 seconds")

    @classmethod
    def from_answer(
        cls,
        wg: WireGuardAnswer,
        own_public_key: str | None,
        allowed: Sequence[Network] = (),
        forbidden: Sequence[Address] = (),
    ) -> TunnelConfig:
        """Check every field of the answer.

        :param allowed: networks that the device's own configuration lets into the tunnel: not held to a width,
            and they may cover what is forbidden.
        :param forbidden: addresses that must stay outside of the tunnel: the bridge's, the broker's.
        :raises AnswerRejectedError: names the field.
        """
        if wg.server_public_key == own_public_key:
            raise AnswerRejectedError("wg.server_public_key is this device's own key")
        try:
            config = cls(
                policy.address(wg.address),
                wg.server_public_key,
                policy.endpoint(wg.endpoint),
                tuple(dict.fromkeys(policy.networks(wg.allowed_ips))),
                wg.persistent_keepalive,
            )
            policy.check_address(config.address.ip, config.allowed_ips, forbidden)
            policy.check_routes(config.allowed_ips, allowed, [*forbidden, *policy.literal(config.endpoint)])
        except ValueError as e:
            raise AnswerRejectedError(f"wg.{e}") from e
        return config

    @classmethod
    def parse(cls, content: bytes) -> tuple[TunnelConfig, str]:
        """Read what ``render`` has written: the typed values, and the private key.

        :raises ValueError: anything else; the text shows nothing of the content.
        """
        try:
            found = ini.read(content.decode("ascii"), _SECTIONS)
            interface, peer = found["Interface"], found["Peer"]
            config = cls(
                policy.address(interface["Address"]),
                peer["PublicKey"],
                policy.endpoint(peer["Endpoint"]),
                tuple(policy.networks(part.strip() for part in peer["AllowedIPs"].split(","))),
                int(peer.get("PersistentKeepalive", "0")),
            )
            return config, key_text(interface["PrivateKey"])
        except (ValueError, KeyError) as e:
            raise ValueError("is not as this agent writes it") from e

    def render(self, private_key: str) -> bytes:
        """Return ``wg0.conf`` for wg-quick(8): a secret, as it holds the private key."""
        own = [f"PrivateKey = {key_text(private_key)}", f"Address = {self.address}"]
        return _text(HEADER, "[Interface]", *own, "", "[Peer]", *self._peer(" = "))

    def render_for_wg(self, private_key: str) -> bytes:
        """Return the same for ``wg setconf`` and ``wg syncconf``, which know of no address: a secret."""
        return _text("[Interface]", f"PrivateKey = {key_text(private_key)}", "", "[Peer]", *self._peer(" = "))

    def render_netdev(self, name: str, private_key: str) -> bytes:
        """Return ``.netdev`` for systemd.netdev(5): a secret, as it holds the private key."""
        device = [f"Name={interface_name(name)}", "Kind=wireguard"]
        key = f"PrivateKey={key_text(private_key)}"
        own = [HEADER, "[NetDev]", *device, "", "[WireGuard]", key, ""]
        return _text(*own, "[WireGuardPeer]", *self._peer("="))

    def render_network(self, name: str) -> bytes:
        """Return ``.network`` for systemd.network(5): the address, and a route for each of ``allowed_ips``.

        The machine counts as online without the tunnel: nothing waits for a server that may be down.
        """
        lines = [HEADER, "[Match]", f"Name={interface_name(name)}", "", "[Link]", "RequiredForOnline=no", ""]
        lines += ["[Network]", f"Address={self.address}", "LinkLocalAddressing=no", "IPv6AcceptRA=no"]
        for network in self.allowed_ips:
            lines += ["", "[Route]", f"Destination={network}"]
        return _text(*lines)

    def _peer(self, equals: str) -> list[str]:
        lines = [
            f"PublicKey{equals}{self.server_public_key}",
            f"Endpoint{equals}{self.endpoint}",
            f"AllowedIPs{equals}{', '.join(str(network) for network in self.allowed_ips)}",
        ]
        if self.persistent_keepalive:
            lines.append(f"PersistentKeepalive{equals}{self.persistent_keepalive}")
        return lines


def _text(*lines: str) -> bytes:
    return ("\n".join(lines) + "\n").encode("ascii")
