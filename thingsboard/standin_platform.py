"""What the stand-in knows beside devices: the tenant, device profiles, rule chains, queues, its token key.

The default profile and the root chain are those of a fresh ThingsBoard. Rule chains are stored and versioned,
not run: where connect events go is the stand-in's own setting.
"""

import json
import secrets
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from thingsboard import standin_root_chain
from thingsboard.standin_records import NULL_ID, Json, entity, normalized, write_json
from thingsboard.standin_refusals import bad, not_found, stale

_CHAIN = "X509_CERTIFICATE_CHAIN"
_PROFILE_DEFAULTS: Json = {
    "description": None,
    "image": None,
    "type": "DEFAULT",
    "transportType": "DEFAULT",
    "provisionType": "DISABLED",
    "defaultRuleChainId": None,
    "defaultDashboardId": None,
    "defaultQueueName": None,
    "firmwareId": None,
    "softwareId": None,
    "defaultEdgeRuleChainId": None,
    "externalId": None,
}
_NODE_DEFAULTS: Json = {"debugSettings": None, "singletonMode": False, "queueName": None, "configurationVersion": 0}

_CURRENT_VERSIONS = {"org.thingsboard.rule.engine.profile.TbDeviceProfileNode": 1}


class PlatformRecord:
    """The tenant's settings, on disk before any call that changes them returns."""

    def __init__(self, folder: Path, *, clock: Callable[[], datetime]) -> None:
        self._path = folder / "platform.json"
        self._clock = clock
        self._lock = threading.RLock()
        if self._path.exists():
            self._content: Json = json.loads(self._path.read_text())
        else:
            self._content = {"tenant": str(uuid4()), "token_key": secrets.token_hex(64)}
            self._content |= {"profiles": [], "chains": [], "metadata": {}}
            self._create_defaults()

    @property
    def tenant_id(self) -> str:
        """The tenant's UUID."""
        return str(self._content["tenant"])

    @property
    def token_key(self) -> str:
        """The key that signs access tokens."""
        return str(self._content["token_key"])

    # device profiles

    def default_profile(self) -> Json:
        """Return the tenant's default profile."""
        return next(profile for profile in self.profiles() if profile["default"])

    def profiles(self) -> list[Json]:
        """List all profiles."""
        with self._lock:
            return list(self._content["profiles"])

    def profile_of(self, device: Json) -> Json:
        """Find the profile a device asks for, the default one where it asks for none."""
        wanted = (device.get("deviceProfileId") or {}).get("id")
        if wanted is None:
            return self.default_profile()
        for profile in self.profiles():
            if profile["id"]["id"] == wanted:
                return profile
        raise bad("Device is referencing non existing device profile!")

    def create_profile(self, wanted: Json, *, default: bool = False) -> Json:
        """Store a profile. One issuing CA serves one chain profile only."""
        name = _name(wanted, "Device profile")
        data = dict(wanted.get("profileData") or {})
        provision = dict(data.get("provisionConfiguration") or {"type": "DISABLED"})
        key: str = secrets.token_hex(32)
        if provision["type"] == _CHAIN:
            secret = provision["provisionDeviceSecret"] = normalized(str(provision.get("provisionDeviceSecret")))
            taken = (p["profileData"]["provisionConfiguration"] for p in self.profiles())
            if any(other.get("provisionDeviceSecret") == secret for other in taken):
                raise bad("Device profile with such certificate already exists!")
        if any(profile["name"] == name for profile in self.profiles()):
            raise bad("Device profile with such name already exists!")
        profile = {
            "id": entity("DEVICE_PROFILE", str(uuid4())),
            "createdTime": self._now(),
            "tenantId": entity("TENANT", self.tenant_id),
            "name": name,
            **{field: wanted.get(field, value) for field, value in _PROFILE_DEFAULTS.items()},
            "provisionDeviceKey": key,
            "version": 1,
            "default": default,
            "profileData": _profile_data(data, provision),
        }
        with self._lock:
            self._content["profiles"].append(profile)
            self._save()
        return profile

    # rule chains

    def chains(self) -> list[Json]:
        """List all rule chains."""
        with self._lock:
            return list(self._content["chains"])

    def create_chain(self, wanted: Json) -> Json:
        """Store an empty rule chain."""
        name = _name(wanted, "Rule chain")
        chain = {
            "id": entity("RULE_CHAIN", str(uuid4())),
            "createdTime": self._now(),
            "tenantId": entity("TENANT", self.tenant_id),
            "name": name,
            "type": wanted.get("type", "CORE"),
            "firstRuleNodeId": None,
            "root": bool(wanted.get("root")),
            "debugMode": False,
            "externalId": None,
            "version": 1,
            "configuration": None,
            "additionalInfo": None,
        }
        metadata: Json = {"version": 1, "firstNodeIndex": None, "nodes": [], "connections": None}
        with self._lock:
            self._content["chains"].append(chain)
            stored = {"ruleChainId": chain["id"], **metadata, "ruleChainConnections": None}
            self._content["metadata"][chain["id"]["id"]] = stored
            self._save()
        return chain

    def metadata(self, chain_id: str) -> Json:
        """Return nodes and connections of a chain."""
        with self._lock:
            if chain_id not in self._content["metadata"]:
                raise not_found(f"Rule chain with id [{chain_id}] is not found")
            return dict(self._content["metadata"][chain_id])

    def save_metadata(self, wanted: Json, *, upgrade: bool = True) -> Json:
        """Replace nodes and connections; a version, where one is sent, must be the stored one.

        Nodes with the configuration of an older ThingsBoard are brought up, as on any save there.
        """
        with self._lock:
            chain_id = str((wanted.get("ruleChainId") or {}).get("id"))
            stored = self.metadata(chain_id)
            if wanted.get("version") not in (None, stored["version"]):
                raise stale("Rule chain")
            edges = sorted(wanted.get("connections") or [], key=lambda e: (e["fromIndex"], e["toIndex"], e["type"]))
            changed = {
                "ruleChainId": stored["ruleChainId"],
                "version": stored["version"] + 1,
                "firstNodeIndex": wanted.get("firstNodeIndex"),
                "nodes": [self._node(node, stored["ruleChainId"]) for node in wanted.get("nodes") or []],
                "connections": edges,
                "ruleChainConnections": None,
            }
            for node in changed["nodes"] if upgrade else []:
                current = _CURRENT_VERSIONS.get(node["type"], 0)
                node["configurationVersion"] = max(node["configurationVersion"], current)
            self._content["metadata"][chain_id] = changed
            self._save()
            return changed

    def _node(self, wanted: Json, chain: Json) -> Json:
        return {
            "id": wanted.get("id") or entity("RULE_NODE", str(uuid4())),
            "createdTime": wanted.get("createdTime") or self._now(),
            "ruleChainId": chain,
            "type": wanted["type"],
            "name": wanted["name"],
            **{field: wanted.get(field, value) for field, value in _NODE_DEFAULTS.items()},
            "configuration": wanted.get("configuration"),
            "externalId": None,
            "additionalInfo": wanted.get("additionalInfo"),
        }

    # queues

    def queues(self) -> list[Json]:
        """List the rule engine's queues: what Main loses, HighPriority repeats."""
        return [
            self._queue("Main", "main", ("BURST", 1000), ("SKIP_ALL_FAILURES", 3, 3)),
            self._queue("HighPriority", "hp", ("BURST", 100), ("RETRY_FAILED_AND_TIMED_OUT", 0, 5)),
            self._queue(
                "SequentialByOriginator",
                "sq",
                ("SEQUENTIAL_BY_ORIGINATOR", 100),
                ("RETRY_FAILED_AND_TIMED_OUT", 3, 5),
            ),
        ]

    def _queue(self, name: str, topic: str, submit: tuple[str, int], process: tuple[str, int, int]) -> Json:
        strategy, retries, pause = process
        return {
            "id": entity("QUEUE", str(UUID(int=len(name), version=4))),
            "createdTime": self._content["profiles"][0]["createdTime"],
            "tenantId": entity("TENANT", NULL_ID),
            "name": name,
            "topic": f"tb_rule_engine.{topic}",
            "pollInterval": 25,
            "partitions": 10,
            "consumerPerPartition": True,
            "packProcessingTimeout": 2000,
            "submitStrategy": {"type": submit[0], "batchSize": submit[1]},
            "processingStrategy": {
                "type": strategy,
                "retries": retries,
                "failurePercentage": 0.0,
                "pauseBetweenRetries": pause,
                "maxPauseBetweenRetries": pause,
            },
            "additionalInfo": None,
        }

    def _create_defaults(self) -> None:
        self.create_profile({"name": "default"}, default=True)
        root = self.create_chain({"name": "Root Rule Chain", "root": True})
        wanted = {"ruleChainId": root["id"], "firstNodeIndex": standin_root_chain.FIRST_NODE}
        parts = {"nodes": standin_root_chain.nodes(), "connections": standin_root_chain.connections()}
        self.save_metadata(wanted | parts, upgrade=False)

    def _save(self) -> None:
        write_json(self._path, self._content)

    def _now(self) -> int:
        return int(self._clock().timestamp() * 1000)


def _name(wanted: Json, what: str) -> str:
    name = wanted.get("name")
    if not isinstance(name, str) or not name.strip():
        raise bad(f"{what} name should be specified!")
    return name


def _profile_data(data: Json, provision: Json) -> Any:
    transport = dict(data.get("transportConfiguration") or {"type": "DEFAULT"})
    if transport["type"] == "MQTT":
        transport.setdefault("sparkplugAttributesMetricNames", None)
    return {
        "configuration": data.get("configuration") or {"type": "DEFAULT"},
        "transportConfiguration": transport,
        "provisionConfiguration": provision,
        "alarms": data.get("alarms"),
    }
