"""Configuration text for WireGuard, written from typed values only.

Responsible for two texts: the `wg0.conf` of a device (wg-quick(8)) and the `[Peer]` sections that
`wg addconf` reads on the server (wg(8), CONFIGURATION FILE FORMAT). No value that goes in can hold a
newline, so no value can become a directive. Not responsible for private keys: a device puts in its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from wireguard.addresses import Address, Endpoint, Network, host_network, without_zone
from wireguard.errors import InvalidValueError
from wireguard.keys import PublicKey
from wireguard.peers import Peer

PRIVATE_KEY_PLACEHOLDER = "<REPLACE_WITH_DEVICE_PRIVATE_KEY>"
_KEEPALIVE_MAX = 65535


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """What a device needs to reach the VPN, but for its private key.

    `address` is the device's own, `allowed_ips` what it sends into the tunnel, `persistent_keepalive` the
    seconds between packets that keep a NAT open (1 to 65535), None for none.
    """

    address: Address
    server_public_key: PublicKey
    endpoint: Endpoint
    allowed_ips: tuple[Network, ...]
    persistent_keepalive: int | None = 25

    def __post_init__(self) -> None:
        """Refuse zones, an empty tunnel, and a keepalive that `wg` would refuse."""
        without_zone(self.address)
        for network in self.allowed_ips:
            without_zone(network.network_address)
        if not self.allowed_ips:
            raise InvalidValueError("A tunnel needs at least one allowed network.")
        keepalive = self.persistent_keepalive
        if keepalive is not None and not 0 < keepalive <= _KEEPALIVE_MAX:
            raise InvalidValueError(f"A persistent keepalive is 1 to {_KEEPALIVE_MAX} seconds, not {keepalive}.")


def render_device(config: DeviceConfig, *, placeholder: bool = False) -> str:
    """Write a device's `wg0.conf`, ending with a newline.

    Without `placeholder` there is no `PrivateKey` line: the device adds one under `[Interface]`. With it
    the line holds `PRIVATE_KEY_PLACEHOLDER`, which clients of complete-device-management replace.
    """
    lines = ["[Interface]"]
    if placeholder:
        lines.append(f"PrivateKey = {PRIVATE_KEY_PLACEHOLDER}")
    lines += [
        f"Address = {host_network(config.address)}",
        "",
        "[Peer]",
        f"PublicKey = {config.server_public_key}",
        f"Endpoint = {config.endpoint}",
        f"AllowedIPs = {', '.join(map(str, config.allowed_ips))}",
    ]
    if config.persistent_keepalive is not None:
        lines.append(f"PersistentKeepalive = {config.persistent_keepalive}")
    return "\n".join(lines) + "\n"


def render_peers(peers: Iterable[Peer]) -> str:
    """Write the server's `[Peer]` sections, in the order given, for `wg addconf`.

    There is no `[Interface]` section on purpose, so this text must not go to `wg syncconf` or
    `wg setconf`: they would take the interface's private key and port away.
    """
    return "\n".join(f"[Peer]\nPublicKey = {peer.public_key}\nAllowedIPs = {peer.allowed_ip}\n" for peer in peers)
