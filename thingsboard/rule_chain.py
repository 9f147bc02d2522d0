"""The rule chain that posts connect events to the bridge, as data, and its attachment to the root chain.

    root chain: Message Type Switch --Connect Event--> this chain
    this chain: filter CONNECT_EVENT -> checkpoint HighPriority -> envelope -> POST to the bridge

The checkpoint moves the message to a queue that repeats it: on queue Main an event that fails once is lost.
Writes only differences, and compares what ThingsBoard stored with what was sent: a node whose configuration
it cannot upgrade falls back to defaults without a word. Not responsible for when to install it.

ThingsBoard keeps and exports the webhook's secret in clear; whoever administrates the tenant can read it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from thingsboard.client import PAGE, ThingsBoardClient
from thingsboard.errors import PlatformBadAnswer, PlatformMisconfigured

CHAIN_NAME = "Enrollment bridge"
SECRET_HEADER = "X-Bridge-Webhook-Secret"  # noqa: S105 - the header's name
READ_TIMEOUT_MS = 1500
"""Milliseconds ThingsBoard waits for the bridge. Always set: 0 would mean for ever."""

_ENGINE = "org.thingsboard.rule.engine"
_FILTER = f"{_ENGINE}.filter.TbMsgTypeFilterNode"
_CHECKPOINT = f"{_ENGINE}.flow.TbCheckpointNode"
_TRANSFORM = f"{_ENGINE}.transform.TbTransformMsgNode"
_REST = f"{_ENGINE}.rest.TbRestApiCallNode"
_SWITCH = f"{_ENGINE}.filter.TbMsgTypeSwitchNode"
_INPUT = f"{_ENGINE}.flow.TbRuleChainInputNode"
_CONNECT = "Connect Event"
_ENVELOPE = (
    "return {msg: {event: msgType, deviceName: metadata.deviceName, deviceType: metadata.deviceType, "
    "state: msg}, metadata: metadata, msgType: msgType};"
)
_UNCHANGED = "return {msg: msg, metadata: metadata, msgType: msgType};"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The bridge's webhook as ThingsBoard reaches it. `ca_pem` is the root that its HTTPS hangs on."""

    url: str
    secret: str = field(repr=False)
    ca_pem: str | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith(("https://", "http://")):
            raise ValueError("the webhook's URL begins with https:// or http://")
        if "${" in self.url + self.secret or "$[" in self.url + self.secret:
            raise ValueError("ThingsBoard would read ${...} and $[...] as patterns of its own")


@dataclass(frozen=True, slots=True)
class Installed:
    """What `install` found and did."""

    chain_id: str
    chain_changed: bool
    attached: bool
    """Whether the root chain had to be changed."""


def chain_nodes(endpoint: Endpoint) -> list[Json]:
    """Return the chain's nodes in order; each is joined to the next one by `chain_connections`."""
    script = {"scriptLang": "TBEL", "jsScript": _UNCHANGED, "tbelScript": _ENVELOPE}
    return [
        _node(_FILTER, "connect?", 0, {"messageTypes": ["CONNECT_EVENT"]}, x=300),
        {**_node(_CHECKPOINT, "checkpoint HighPriority", 1, {}, x=430), "queueName": "HighPriority"},
        _node(_TRANSFORM, "envelope", 0, script, x=560),
        _node(_REST, "bridge", 3, _rest_configuration(endpoint), x=820),
    ]


def chain_connections() -> list[Json]:
    """Return the relations between the nodes of `chain_nodes`."""
    relations = ("True", "Success", "Success")
    return [{"fromIndex": at, "toIndex": at + 1, "type": kind} for at, kind in enumerate(relations)]


async def install(client: ThingsBoardClient, endpoint: Endpoint) -> Installed:
    """Bring chain and attachment into agreement with `endpoint`; a second run changes nothing.

    Raises `StaleVersion` where somebody edits a chain at the same time (run it again), `PlatformBadAnswer`
    where ThingsBoard stored something else than it was sent, `PlatformMisconfigured` where the root chain has
    no Message Type Switch.
    """
    try:
        return await _install(client, endpoint)
    except (KeyError, IndexError, TypeError, AttributeError) as e:
        raise PlatformBadAnswer("ThingsBoard answered rule chains of an unknown form") from e


async def _install(client: ThingsBoardClient, endpoint: Endpoint) -> Installed:
    root_id, chain_id = await _find_chains(client)
    if chain_id is None:
        made = await client.request(
            "POST", "/api/ruleChain", {"name": CHAIN_NAME, "type": "CORE", "root": False, "debugMode": False}
        )
        chain_id = str(made["id"]["id"])
    changed = await _write_chain(client, chain_id, endpoint)
    return Installed(chain_id, changed, await _attach(client, root_id, chain_id))


async def _find_chains(client: ThingsBoardClient) -> tuple[str, str | None]:
    root_id, ours, page, more = None, None, 0, True
    while more:
        params = {"pageSize": str(PAGE), "page": str(page), "type": "CORE"}
        content = await client.request("GET", "/api/ruleChains", params=params)
        for chain in content["data"]:
            root_id = chain["id"]["id"] if chain.get("root") else root_id
            ours = chain["id"]["id"] if chain.get("name") == CHAIN_NAME else ours
        page, more = page + 1, content.get("hasNext") is True
    if root_id is None:
        raise PlatformMisconfigured("the tenant has no root rule chain; set one in ThingsBoard")
    return root_id, ours


async def _write_chain(client: ThingsBoardClient, chain_id: str, endpoint: Endpoint) -> bool:
    stored = await _metadata(client, chain_id)
    nodes, connections = chain_nodes(endpoint), chain_connections()
    if _agrees(stored, nodes, connections):
        return False
    wanted = {
        "ruleChainId": {"entityType": "RULE_CHAIN", "id": chain_id},
        "version": stored.get("version"),
        "firstNodeIndex": 0,
        "nodes": nodes,
        "connections": connections,
        "ruleChainConnections": None,
    }
    await client.request("POST", "/api/ruleChain/metadata", wanted)
    if not _agrees(await _metadata(client, chain_id), nodes, connections):
        raise PlatformBadAnswer(
            f"ThingsBoard stored the rule chain {CHAIN_NAME!r} otherwise than it was sent; "
            "see its log for a node whose configuration it could not read"
        )
    return True


async def _attach(client: ThingsBoardClient, root_id: str, chain_id: str) -> bool:
    root = await _metadata(client, root_id)
    if _attached(root, chain_id):
        return False
    switch = next((at for at, node in enumerate(root["nodes"]) if node["type"] == _SWITCH), None)
    if switch is None:
        raise PlatformMisconfigured(
            f"the root rule chain has no Message Type Switch; send its {_CONNECT!r} messages to "
            f"the chain {CHAIN_NAME!r} by hand"
        )
    configuration = {"ruleChainId": chain_id, "forwardMsgToDefaultRuleChain": False}
    entry = {"fromIndex": switch, "toIndex": len(root["nodes"]), "type": _CONNECT}
    changed = {
        **root,
        "nodes": [*root["nodes"], _node(_INPUT, "bridge", 1, configuration, x=824, y=600)],
        "connections": [*(root.get("connections") or []), entry],
    }
    await client.request("POST", "/api/ruleChain/metadata", changed)
    if not _attached(await _metadata(client, root_id), chain_id):
        raise PlatformBadAnswer("ThingsBoard did not keep the attachment to the root rule chain; see its log")
    return True


async def _metadata(client: ThingsBoardClient, chain_id: str) -> Json:
    content = await client.request("GET", f"/api/ruleChain/{chain_id}/metadata")
    if not isinstance(content, dict):
        raise PlatformBadAnswer("ThingsBoard answered rule chain metadata that is no object")
    return {**content, "nodes": content.get("nodes") or []}


def _attached(root: Json, chain_id: str) -> bool:
    """Tell whether a Message Type Switch sends connect events to a node that enters our chain."""
    nodes = root["nodes"]
    for edge in root.get("connections") or []:
        source, target = nodes[edge["fromIndex"]], nodes[edge["toIndex"]]
        enters = target["type"] == _INPUT and target["configuration"].get("ruleChainId") == chain_id
        if edge["type"] == _CONNECT and source["type"] == _SWITCH and enters:
            return True
    return False


def _agrees(stored: Json, nodes: list[Json], connections: list[Json]) -> bool:
    """Compare by what was sent; ThingsBoard adds ids, times, and fields of newer versions."""
    same_nodes = len(stored["nodes"]) == len(nodes) and all(
        _covers(found, node) for found, node in zip(stored["nodes"], nodes, strict=True)
    )
    found = sorted(_edges(stored.get("connections") or []))
    return same_nodes and stored.get("firstNodeIndex") == 0 and found == sorted(_edges(connections))


def _edges(connections: list[Json]) -> Iterator[tuple[int, int, str]]:
    return ((edge["fromIndex"], edge["toIndex"], edge["type"]) for edge in connections)


def _covers(found: Any, sent: Any) -> bool:
    if isinstance(sent, Mapping):
        return isinstance(found, Mapping) and all(_covers(found.get(key), sent[key]) for key in sent)
    return bool(found == sent)


def _node(kind: str, name: str, version: int, configuration: Json, *, x: int, y: int = 150) -> Json:
    return {
        "type": kind,
        "name": name,
        "configurationVersion": version,
        "configuration": configuration,
        "additionalInfo": {"layoutX": x, "layoutY": y},
    }


def _rest_configuration(endpoint: Endpoint) -> Json:
    credentials: Json = {"type": "anonymous"}
    if endpoint.ca_pem is not None:
        credentials = {"type": "cert.PEM", "caCert": endpoint.ca_pem}
    return {
        "restEndpointUrlPattern": endpoint.url,
        "requestMethod": "POST",
        "headers": {"Content-Type": "application/json", SECRET_HEADER: endpoint.secret},
        "readTimeoutMs": READ_TIMEOUT_MS,
        "maxParallelRequestsCount": 0,
        "parseToPlainText": False,
        "enableProxy": False,
        "useSystemProxyProperties": False,
        "proxyPort": 0,
        "ignoreRequestBody": False,
        "maxInMemoryBufferSizeInKb": 256,
        "credentials": credentials,
    }
