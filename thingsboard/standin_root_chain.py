"""The root rule chain of a fresh ThingsBoard: where the bridge's chain is attached to."""

from typing import Any

FIRST_NODE = 6

_ENGINE = "org.thingsboard.rule.engine"
_EVERY = {"type": "ON_EVERY_MESSAGE"}
_SCRIPT = (
    "return '\\nIncoming message:\\n' + JSON.stringify(msg) + '\\nIncoming metadata:\\n' + JSON.stringify(metadata);"
)
_LOG = {"scriptLang": "TBEL", "jsScript": _SCRIPT, "tbelScript": _SCRIPT}
_TIMESERIES = {"defaultTTL": 0, "useServerTs": False, "processingSettings": _EVERY}
_ATTRIBUTES = {
    "processingSettings": _EVERY,
    "scope": "CLIENT_SCOPE",
    "notifyDevice": False,
    "sendAttributesUpdatedNotification": False,
    "updateAttributesOnlyOnValueChange": True,
}
_PROFILE = {"persistAlarmRulesState": False, "fetchAlarmRulesStateOnStart": False}
_PROFILE_HELP = (
    "Process incoming messages from devices with the alarm rules defined in the device profile. "
    'Dispatch all incoming messages with "Success" relation type.'
)
_SWITCH = 2


def nodes() -> list[dict[str, Any]]:
    """Return its nodes."""
    rows: list[tuple[str, str, int, Any, dict[str, Any]]] = [
        ("telemetry.TbMsgTimeseriesNode", "Save Timeseries", 1, _TIMESERIES, _at(824, 156)),
        ("telemetry.TbMsgAttributesNode", "Save Client Attributes", 3, _ATTRIBUTES, _at(825, 52)),
        ("filter.TbMsgTypeSwitchNode", "Message Type Switch", 0, {"version": 0}, _at(347, 149)),
        ("action.TbLogNode", "Log RPC from Device", 0, _LOG, _at(825, 266)),
        ("action.TbLogNode", "Log Other", 0, _LOG, _at(825, 379)),
        ("rpc.TbSendRPCRequestNode", "RPC Call Request", 0, {"timeoutInSeconds": 60}, _at(825, 468)),
        (
            "profile.TbDeviceProfileNode",
            "Device Profile Node",
            0,
            _PROFILE,
            {"description": _PROFILE_HELP, **_at(204, 240)},
        ),
    ]
    return [
        {
            "type": f"{_ENGINE}.{kind}",
            "name": name,
            "configurationVersion": version,
            "configuration": configuration,
            "additionalInfo": shown,
        }
        for kind, name, version, configuration, shown in rows
    ]


def connections() -> list[dict[str, Any]]:
    """Return the relations between its nodes."""
    kinds = {
        0: "Post telemetry",
        1: "Post attributes",
        3: "RPC Request from Device",
        4: "Other",
        5: "RPC Request to Device",
    }
    edges = [{"fromIndex": _SWITCH, "toIndex": to, "type": kind} for to, kind in kinds.items()]
    return [*edges, {"fromIndex": FIRST_NODE, "toIndex": _SWITCH, "type": "Success"}]


def _at(x: int, y: int) -> dict[str, Any]:
    return {"layoutX": x, "layoutY": y}
