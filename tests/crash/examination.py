"""What must be true after every death, once device and operator have come again and the reconciler is at rest."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from bridge.enrollment.csr import parse_csr
from bridge.model.identity import DeviceId
from tests.crash.house import FIRST as FIRST_ADDRESS
from tests.crash.house import INSTALLATION
from tests.crash.plan import DeviceKeys, Plan, Report
from tests.crash.scenarios import Scenario
from thingsboard.models import Leaf

_CERTIFIED = {"certificate.first", "certificate.reenroll", "certificate.renew", "certificate.lost"}
_WIREGUARD_OF_RENEWAL = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is known of one death and its aftermath."""

    plan: Plan
    scenario: Scenario
    report: Report
    signed_before: frozenset[str]
    """Serials that the CA had signed for the device when the victim was dead."""
    signed: frozenset[str]
    """The same, at the end."""

    @property
    def issuances(self) -> dict[str, dict[str, Any]]:
        """Rows by serial, at the end."""
        return {row["serial"]: row for row in self.report["at_end"]["issuance"]}

    @property
    def device(self) -> dict[str, Any]:
        """The one device row."""
        (row,) = self.report["at_end"]["device"]
        return dict(row)

    @property
    def abandons(self) -> bool:
        """Tell whether an operator takes the id back on the way: then it is forgotten, once nothing is left of it."""
        return "abandoned" in self.plan.scenario

    def spki(self, number: int) -> str:
        """Return the digest of the device's first or second key."""
        return parse_csr(self.plan.keys[number].csr_pem, DeviceId(self.plan.device)).spki.hex

    @property
    def wireguard(self) -> DeviceKeys:
        """Whose WireGuard key is the peer's: the current identity's; a renewal keeps it."""
        reenrolled = self.scenario.generation > 1
        return self.plan.keys[(self.scenario.current_key if reenrolled else None) or _WIREGUARD_OF_RENEWAL]


def examine(evidence: Evidence) -> None:
    """Assert all of it."""
    the_database_is_sound(evidence)
    no_certificate_is_unknown(evidence)
    everything_is_revoked_but_what_is_live(evidence)
    counters_agree(evidence)
    every_certificate_is_in_the_audit_trail_once(evidence)
    links_are_settled(evidence)
    if evidence.scenario.renews:
        the_device_holds_a_key_to_every_door(evidence)
    if evidence.scenario.current_key is None:
        nothing_is_left(evidence)
    else:
        one_certificate_is_answered(evidence)
        one_lease_is_held(evidence)
        the_outside_agrees(evidence)


def the_database_is_sound(evidence: Evidence) -> None:
    for tables in (evidence.report["at_start"], evidence.report["at_end"]):
        assert tables.get("foreign_key_check", []) == []
        assert tables.get("integrity_check", [{"integrity_check": "ok"}]) == [{"integrity_check": "ok"}]


def no_certificate_is_unknown(evidence: Evidence) -> None:
    """The registry could revoke whatever the CA signed, in the very moment of the death and at the end."""
    crl = frozenset(evidence.report["crl"])
    at_death = frozenset(row["serial"] for row in evidence.report["at_start"]["issuance"])
    # An abandoned id is forgotten, but not before its serials stand on the CRL.
    assert evidence.signed_before - crl <= at_death
    assert evidence.signed - crl <= frozenset(evidence.issuances)


def everything_is_revoked_but_what_is_live(evidence: Evidence) -> None:
    crl = frozenset(evidence.report["crl"])
    expected = Counter(current=int(evidence.scenario.current_key is not None))
    expected["pending"] = int(evidence.scenario.pending_key is not None)
    states = Counter(row["state"] for row in evidence.issuances.values())
    assert set(states) <= {"current", "pending", "revoked"}
    assert {state: states[state] for state in expected} == dict(expected)
    live = frozenset(serial for serial, row in evidence.issuances.items() if row["state"] in expected)
    assert live.isdisjoint(crl)
    assert live <= evidence.signed
    assert evidence.signed - live <= crl
    assert frozenset(evidence.issuances) - live <= crl
    for row in evidence.issuances.values():
        number = {"current": evidence.scenario.current_key, "pending": evidence.scenario.pending_key}.get(row["state"])
        assert number is None or row["spki"] == evidence.spki(number)


def the_device_holds_a_key_to_every_door(evidence: Evidence) -> None:
    """At the death itself: the current leaf opens, and so does the one that the platform was told of last.

    The device holds both: the former one until it has the answer to its activation, the new one since before.
    """
    rows, doors = evidence.report["at_start"]["issuance"], evidence.report["doors_at_start"]
    if evidence.report["at_start"]["device"][0]["state"] == "tombstone":
        return
    crl = frozenset(doors["crl"])
    (current,) = [row for row in rows if row["state"] == "current"]
    activated = [row for row in evidence.report["at_start"]["audit"] if row["action"] == "certificate.activated"]
    assert current["spki"] == evidence.spki(1 if activated else 0)
    assert current["serial"] not in crl
    (told,) = [row for row in rows if row["leaf"] and Leaf.from_pem(row["leaf"]).credentials_id == doors["credential"]]
    assert told["state"] == "current" or (told["state"] == "superseded" and activated)
    assert told["serial"] not in crl
    # The former leaf is given up after the platform has the new one, and not before.
    for row in rows:
        assert row["state"] != "superseded" or row["serial"] not in crl
        assert row["state"] not in {"revoking", "revoked"} or not row["taken"] or told["state"] == "current"


def one_certificate_is_answered(evidence: Evidence) -> None:
    answers = evidence.report["answers"]
    assert len(answers) == 2
    first, again = answers
    assert again == first | {"created": False}
    answered = evidence.scenario.pending_key
    state = "pending" if answered is not None else "current"
    row = evidence.issuances[first["serial"]]
    assert (row["state"], row["leaf_sha256"]) == (state, first["leaf"])
    assert (first["state"], first["generation"]) == (state, evidence.scenario.generation)
    # Told to wait exactly where an attempt of unknown outcome was still open.
    started, now = evidence.report["at_start"], evidence.report["started_at"]
    open_ones = [r for r in started["issuance"] if r["state"] == "intent" and not r["refused"] and r["deadline"] > now]
    waited = evidence.report["refusals"].count("in_progress")
    assert waited == len(open_ones) or evidence.abandons


def one_lease_is_held(evidence: Evidence) -> None:
    tables = evidence.report["at_end"]
    (lease,) = [row for row in tables["lease"] if row["free_at"] is None]
    assert lease["device"] == evidence.plan.device
    assert lease["public_key"] == evidence.wireguard.wg_key
    assert {answer["address"] for answer in evidence.report["answers"]} == {str(IPv4Address(lease["address"]))}
    # Only one address ever left the pool, whatever was tried how often; what an abandoned id had is in quarantine.
    resting = [row["former_device"] for row in tables["lease"] if row["free_at"] is not None]
    assert resting in ([], [evidence.plan.device] if evidence.abandons else [])
    assert tables["lease_pool"][0]["next_address"] == int(FIRST_ADDRESS) + 1 + len(resting)
    held = [row["public_key"] for row in tables["wireguard_key"] if row["free_at"] is None]
    assert held == [evidence.wireguard.wg_key]


def counters_agree(evidence: Evidence) -> None:
    """Generation and epoch are what the rows say: nothing was counted twice, nothing was left out."""
    device, rows = evidence.device, evidence.issuances.values()
    assert device["generation"] == evidence.scenario.generation
    retired = evidence.scenario.current_key is None
    assert device["state"] == ("tombstone" if retired else "active")
    activations = sum(row["taken"] and row["kind"] != "renew" for row in rows)
    assert activations == evidence.scenario.generation
    renewed = [row for row in evidence.report["at_end"]["audit"] if row["action"] == "certificate.activated"]
    assert len(renewed) == evidence.scenario.activations or (retired and len(renewed) <= 1)
    epoch = len(rows) + activations + len(renewed) + retired
    # What is forgotten leaves its raising of the epoch behind.
    forgotten = device["epoch"] - epoch
    assert 0 <= forgotten <= int(evidence.plan.scenario == "CA is unreachable" or evidence.abandons)
    windows = [row["outcome"] for row in evidence.report["at_end"]["reenroll_window"]]
    assert windows == ["used"] * (evidence.scenario.generation - 1)


def every_certificate_is_in_the_audit_trail_once(evidence: Evidence) -> None:
    entries = [row for row in evidence.report["at_end"]["audit"] if row["action"] in _CERTIFIED]
    serials = [json.loads(row["detail"])["serial"] for row in entries]
    stored = [serial for serial, row in evidence.issuances.items() if row["leaf"] is not None]
    # Of what was forgotten only the trail remains.
    assert sorted(stored) == sorted(one for one in serials if not evidence.abandons or one in evidence.issuances)


def links_are_settled(evidence: Evidence) -> None:
    links = evidence.report["at_end"]["link"]
    wanted = "absent" if evidence.scenario.current_key is None else "present"
    assert {row["system"]: row["wanted"] for row in links if row["system"] != "ca"} == dict.fromkeys(
        ("hawkbit", "thingsboard", "wireguard"), wanted
    )
    assert [row for row in links if row["settled_at"] is None or row["claimed_by"] or row["foreign_object"]] == []


def the_outside_agrees(evidence: Evidence) -> None:
    (current,) = [row for row in evidence.issuances.values() if row["state"] == "current"]
    (lease,) = [row for row in evidence.report["at_end"]["lease"] if row["free_at"] is None]
    address = str(IPv4Address(lease["address"]))
    assert evidence.report["platform"]["credential"] == Leaf.from_pem(current["leaf"]).credentials_id
    assert evidence.report["attributes"] == {"iot_bridge": INSTALLATION, "wireguard_ip": address}
    assert evidence.report["target"] == {
        "controller_id": evidence.plan.device,
        "description": f"iot-bridge:{INSTALLATION}",
    }
    assert evidence.report["peers"] == [[evidence.wireguard.wg_key, address]]
    if evidence.scenario.current_key != 0:
        assert evidence.report["refusals"][-1] == "key_in_use"


def nothing_is_left(evidence: Evidence) -> None:
    assert (evidence.report["platform"], evidence.report["target"], evidence.report["peers"]) == (None, None, [])
    assert (evidence.report["answers"], set(evidence.report["refusals"])) == ([], {"retired"})
    (lease,) = evidence.report["at_end"]["lease"]
    assert (lease["device"], lease["former_device"]) == (None, evidence.plan.device)
    assert lease["free_at"] > evidence.report["started_at"]
