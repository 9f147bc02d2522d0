"""The connect event as it reaches the bridge's webhook, in all the forms that rule chains send it.

Pure: bytes and headers in, a value out. Does not check the secret, and believes nothing but a name.

The forms:

- the envelope of this project's rule chain: `{"event", "deviceName", "deviceType", "state"}`, with or without
  `deviceId` and `metadata`;
- the data alone, where the REST node follows the filter directly: no name, unless a header `X-Device` has it;
- `{"msgType", "metadata", "data"}` as complete-device-management's rule chain sends it, under its own names of
  the event ("Post connect", `POST_CONNECT`);
- `{"event", "metadata", "data"}`, also from the REST node's Failure branch, with the data as object or as text.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from thingsboard.models import ConnectEvent, OtherEvent, instant

MAX_BODY = 32 * 1024
"""Bytes of a body that is looked at."""

_CONNECT_NAMES = frozenset({"connectevent", "postconnect"})
_EVENT_FIELDS = ("event", "msgType", "messageType", "eventType", "type")
_EVENT_HEADERS = ("x-event", "x-msg-type", "x-message-type")
_NAME_FIELDS = ("deviceName", "originatorName")
_NAME_HEADERS = ("x-device", "x-device-name")
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,255}")
_PUNCTUATION = re.compile(r"[\W_]+")
_MAX_KIND = 64

Node = Mapping[str, Any]


def parse_event(body: bytes, headers: Mapping[str, str]) -> ConnectEvent | OtherEvent:
    """Read an event. Never raises: what cannot be read is an `OtherEvent` without kind.

    A `ConnectEvent` without name is one that does not say whose it is.
    """
    nodes = _nodes(body)
    folded = {key.lower(): value for key, value in headers.items()}
    name = _first(nodes, _NAME_FIELDS) or _in_headers(folded, _NAME_HEADERS)
    kinds = [*_kinds(nodes), *(folded[header] for header in _EVENT_HEADERS if header in folded)]
    state = next((node for node in nodes if "lastConnectTime" in node), {})
    if any(_is_connect(kind) for kind in kinds) or (not kinds and _looks_connected(state)):
        return ConnectEvent(
            device_name=name,
            device_id=_first(nodes, ("deviceId",)),
            device_type=_first(nodes, ("deviceType",)),
            last_connect=instant(state.get("lastConnectTime")),
        )
    return OtherEvent(kind=kinds[0][:_MAX_KIND] if kinds else None, device_name=name)


def _nodes(body: bytes) -> list[Node]:
    """List the objects of a body that may carry a name or an event: itself and its known parts."""
    top = _decoded(body) if len(body) <= MAX_BODY else None
    if not isinstance(top, dict):
        return []
    nodes: list[Node] = [top]
    for field in ("metadata", "data", "msg", "state"):
        part = top.get(field)
        part = _decoded(part) if isinstance(part, str) else part
        if isinstance(part, dict):
            nodes.append(part)
            if isinstance(state := part.get("state"), dict):
                nodes.append(state)
    return nodes


def _decoded(text: bytes | str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _kinds(nodes: list[Node]) -> Iterator[str]:
    for node in nodes:
        for field in _EVENT_FIELDS:
            value = node.get(field)
            if isinstance(value, str) and value:
                yield value


def _is_connect(kind: str) -> bool:
    return _PUNCTUATION.sub("", kind[:_MAX_KIND]).casefold() in _CONNECT_NAMES


def _looks_connected(state: Node) -> bool:
    """Tell bare data of a connect event from that of a disconnect event: the later time is the event's."""
    connected, gone = instant(state.get("lastConnectTime")), instant(state.get("lastDisconnectTime"))
    return connected is not None and (gone is None or gone <= connected)


def _first(nodes: list[Node], fields: tuple[str, ...]) -> str | None:
    found = (node.get(field) for field in fields for node in nodes)
    return next((value for value in found if isinstance(value, str) and _NAME.fullmatch(value)), None)


def _in_headers(folded: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    found = (folded.get(name, "") for name in names)
    return next((value for value in found if _NAME.fullmatch(value)), None)
