"""Which proxy leads to a server, by the usual variables.

Responsible for ``https_proxy``, ``all_proxy`` and ``no_proxy`` in either case (the lower one wins, an empty one
counts as absent), read as curl reads them: https://everything.curl.dev/usingcurl/proxies/env.html. Proxies are
spoken to in plain HTTP with CONNECT; what goes through is TLS to the bridge itself.

Not responsible for the connection. No text here holds a variable's value: it may contain a password.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from enroll.names import HostPort, is_ip

_DEFAULT_PORT: Final = 80
_NAMES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


class ProxyVariableError(ValueError):
    """A proxy variable makes no sense; the text names it and holds nothing of its value."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy, and what it wants in ``Proxy-Authorization``, if anything."""

    server: HostPort
    authorization: str | None = field(default=None, repr=False)


def proxy_for(target: HostPort, environment: Mapping[str, str]) -> Proxy | None:
    """Return the proxy to this server, or ``None`` for the straight way.

    :raises ProxyVariableError: the variable that applies is no ``http://[user:password@]host[:port]``.
    """
    found = next(((name, text) for name in _NAMES if (text := environment.get(name, "").strip())), None)
    if found is None or _bypassed(target, environment.get("no_proxy") or environment.get("NO_PROXY") or ""):
        return None
    return _parsed(*found)


def _parsed(name: str, text: str) -> Proxy:
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        server = HostPort(parts.hostname or "", _DEFAULT_PORT if parts.port is None else parts.port)
    except ValueError:
        raise ProxyVariableError(f"the variable {name} holds no address of a proxy") from None  # the cause quotes it
    if parts.scheme.lower() != "http":
        raise ProxyVariableError(f"the variable {name} names a kind of proxy that is not supported; use http://")
    if parts.username is None:
        return Proxy(server)
    secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return Proxy(server, f"Basic {base64.b64encode(secret).decode('ascii')}")


def _bypassed(target: HostPort, exceptions: str) -> bool:
    return any(_covers(entry.lower(), target) for entry in re.split(r"[,\s]+", exceptions) if entry)


def _covers(entry: str, target: HostPort) -> bool:
    """Return whether an entry of NO_PROXY means the target: ``*``, name, ``.name``, address, network, with port."""
    if entry == "*":
        return True
    host = target.host.lower().rstrip(".")
    with_port = re.fullmatch(r"(\[[^\]]*\]|[^:]*):([0-9]{1,5})", entry)
    if with_port is not None:
        if int(with_port[2]) != target.port:
            return False
        entry = with_port[1]
    entry = entry.strip("[]")
    if is_ip(host):
        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name = entry.strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))
