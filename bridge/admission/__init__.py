"""Admission: who may come in at all. Deny by default; each open door is named by the operator.

Responsible for the policies. Not responsible for what an admitted device gets
(:mod:`bridge.enrollment.decision`).
"""

from __future__ import annotations

from bridge.admission.policies import OpenDoor, RegisteredOnly
from bridge.errors import Misconfigured
from bridge.ports.admission import AdmissionPolicy


def policy_named(name: str) -> AdmissionPolicy:
    """Return the policy that ``BRIDGE_ADMISSION`` names.

    :raises Misconfigured: there is no such policy.
    """
    for policy in (RegisteredOnly(), OpenDoor()):
        if policy.name == name:
            return policy
    raise Misconfigured(f"BRIDGE_ADMISSION={name!r} is not known; use 'registered' or, by name only, 'open'")


__all__ = ["OpenDoor", "RegisteredOnly", "policy_named"]
