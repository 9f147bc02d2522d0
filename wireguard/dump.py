"""Reading `wg show IF dump` without keeping its secrets.

The format is in wg(8): tab separated, the interface's line first, then a line for each peer. The first
field of the first line is the interface's private key and the second of each peer its preshared key:
neither leaves this module, and no error text here repeats what was read.
"""

import re
from datetime import UTC, datetime

from wireguard.addresses import Endpoint, Network, in_order, parse_network
from wireguard.errors import InvalidValueError, UnexpectedOutputError
from wireguard.interface import InterfaceState, PeerStatus
from wireguard.keys import PeerKey

_NONE = "(none)"
_INTERFACE_FIELDS = 4
_PEER_FIELDS = 8
_DIGITS = re.compile(r"[0-9]{1,20}")
_LAST_EPOCH = 253402300799
# A device on the same link shows as [fe80::1%eth0]:51820; the zone means nothing elsewhere.
_ZONE = re.compile(r"%[^\]]*")


def parse_dump(text: str) -> InterfaceState:
    """Read the output of `wg show IF dump` for one interface.

    Raises:
        UnexpectedOutputError: it is not in that format. The text is not repeated.

    """
    lines = text.splitlines()
    if not lines:
        raise UnexpectedOutputError("wg show printed nothing for the interface.")
    try:
        _, public_key, port, _ = _fields(lines[0], _INTERFACE_FIELDS)
        return InterfaceState(
            public_key=None if public_key == _NONE else PeerKey.parse(public_key),
            listen_port=_number(port),
            peers=tuple(sorted(map(_peer, lines[1:]), key=lambda peer: peer.public_key.raw)),
        )
    except InvalidValueError as error:
        raise UnexpectedOutputError("wg show printed a value that is not in its own format.") from error


def _peer(line: str) -> PeerStatus:
    public_key, _, endpoint, allowed_ips, handshake, rx, tx, _ = _fields(line, _PEER_FIELDS)
    return PeerStatus(
        public_key=PeerKey.parse(public_key),
        allowed_ips=_networks(allowed_ips),
        endpoint=None if endpoint == _NONE else Endpoint.parse(_ZONE.sub("", endpoint)),
        latest_handshake=_moment(_number(handshake)),
        rx=_number(rx),
        tx=_number(tx),
    )


def _moment(epoch: int) -> datetime | None:
    if epoch > _LAST_EPOCH:
        raise UnexpectedOutputError("wg show printed a handshake behind the year 9999.")
    return datetime.fromtimestamp(epoch, UTC) if epoch else None


def _networks(text: str) -> tuple[Network, ...]:
    if text == _NONE:
        return ()
    return in_order(map(parse_network, text.split(",")))


def _fields(line: str, count: int) -> list[str]:
    fields = line.split("\t")
    if len(fields) != count:
        raise UnexpectedOutputError(f"A line of wg show has {len(fields)} fields instead of {count}.")
    return fields


def _number(text: str) -> int:
    if not _DIGITS.fullmatch(text):
        raise UnexpectedOutputError("wg show printed something else where a number should be.")
    return int(text)
