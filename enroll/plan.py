"""What to do next: one pure, total function over what is known.

Responsible for the order of a first boot: keys before any request, the broker before success is claimed, the
tunnel whatever the broker says. The agent performs the action, looks again, and asks again.

Not responsible for performing, waiting, or for why an attempt failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """What the agent can do."""

    MAKE_KEYS = "make_keys"
    ENROLL = "enroll"
    CONNECT = "connect"
    RAISE_TUNNEL = "raise_tunnel"
    TRY_LATER = "try_later"
    FINISH = "finish"


class Phase(StrEnum):
    """How far a phase got within this run."""

    UNTRIED = "untried"
    SETTLED = "settled"
    FAILED = "failed"
    """The budget ended before it succeeded."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What lies on disk, and what this run has seen."""

    prepared: bool
    """Both keys and a CSR for them are on disk."""
    enrolled: bool
    """The flag is there and every file it stands for holds."""
    broker: Phase
    tunnel: Phase


def next_action(situation: Situation) -> Action:
    """Return the next action; total over every situation."""
    if situation.enrolled:
        if situation.broker is Phase.UNTRIED:
            return Action.CONNECT
        if situation.tunnel is Phase.UNTRIED:
            return Action.RAISE_TUNNEL
        return Action.TRY_LATER if situation.broker is Phase.FAILED else Action.FINISH
    return Action.ENROLL if situation.prepared else Action.MAKE_KEYS
