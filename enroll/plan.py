"""What to do next: one pure, total function over what lies on disk, the time believed, and what this run has seen.

Responsible for every decision of the agent, as rules tried in order; ``docs/device-states.md`` is written from
them. The agent performs the action, looks at the disk again, and asks again.

Not responsible for performing, for reading a clock or a disk, or for how long to wait (``enroll.backoff``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final


class Action(StrEnum):
    """What the agent can do."""

    PROMOTE = "promote the new pair"
    SET_ASIDE = "set unfit files aside"
    TAKE_OVER = "take over an older client's files"
    MAKE_KEYS = "make keys and CSR"
    FETCH_ROOT = "fetch the pinned root"
    ENROLL = "enroll"
    ACTIVATE = "activate the new pair"
    MAKE_NEXT_KEY = "make the next key"
    RENEW = "renew"
    REFRESH = "ask the bridge again"
    CONNECT = "connect to the broker"
    RAISE_TUNNEL = "bring the tunnel up"
    WRITE_UPDATERS = "write the updater's configuration"
    WAIT = "wait"
    LATER = "end this run, exit 75"
    STOP = "stop for good, exit 1"
    FINISH = "finish, exit 0"


class Keys(StrEnum):
    """The device's own keys."""

    MISSING = "missing"
    """Device key, WireGuard key or CSR is not there."""
    READY = "ready"


class Identity(StrEnum):
    """The flag and what it stands for, whatever the date."""

    NONE = "none"
    PARTIAL = "partial"
    """The certificate holds, but the servers are not known (taken over from an older client), or the tunnel's
    configuration is lost."""
    HELD = "held"


class Next(StrEnum):
    """What lies in ``next/``."""

    NONE = "none"
    KEY = "key"
    """Key and CSR: a renewal was begun."""
    PENDING = "pending"
    """A whole pair that the bridge has not confirmed."""
    CONFIRMED = "confirmed"
    """The bridge has confirmed the pair, promoted or half promoted: forward is the only way."""


class Due(StrEnum):
    """The certificate's age by belief (``enroll.trust.clock``)."""

    UNKNOWN = "unknown"
    """No time is believed, and the floor alone does not make a renewal due."""
    NOT_YET = "not yet"
    DUE = "due"
    EXPIRED = "expired"


class Last(StrEnum):
    """How the last action ended, where that decides something."""

    WELL = "well"
    AGAIN = "again"
    """It failed, and the wait before the next attempt fits into this run's budget."""
    EXHAUSTED = "exhausted"
    """It failed, and the wait does not fit."""
    FINAL = "final"
    """The bridge said a final word."""


class Phase(StrEnum):
    """How far a part of the work got within this run."""

    UNTRIED = "untried"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Found:
    """What lies on disk: the agent's only memory, read again after each action."""

    unfit: bool = False
    """A file is torn, zero-filled, foreign, or does not fit its neighbours."""
    older: bool = False
    """The files of a client of complete-device-management, and none of ours."""
    keys: Keys = Keys.MISSING
    identity: Identity = Identity.NONE
    next: Next = Next.NONE


@dataclass(frozen=True, slots=True)
class Progress:
    """What this run has seen; a new run begins with nothing."""

    last: Last = Last.WELL
    anchored: bool = False
    """The pinned root is at hand."""
    set_aside: Phase = Phase.UNTRIED
    renewal: Phase = Phase.UNTRIED
    activation: Phase = Phase.UNTRIED
    refresh: Phase = Phase.UNTRIED
    broker: Phase = Phase.UNTRIED
    doubted: bool = False
    """The broker refused this certificate in this run."""
    tunnel: Phase = Phase.UNTRIED
    updaters: Phase = Phase.UNTRIED

    def after(self, action: Action, last: Last, *, refused: bool = False) -> Progress:
        """Return the progress once an action has ended.

        :param refused: the broker answered, and the answer was no.
        """
        if last is Last.FINAL or (last is not Last.WELL and action in _ESSENTIAL):
            return replace(self, last=last)
        if action is Action.WAIT:
            return replace(self, last=Last.WELL)
        if action is Action.CONNECT and last is Last.AGAIN:
            # A broker that says no may know the new pair already: then the confirmation was lost.
            activation = Phase.UNTRIED if refused else self.activation
            return replace(self, last=last, doubted=self.doubted or refused, activation=activation)
        if action is Action.MAKE_NEXT_KEY and last is Last.WELL:
            return self
        if action is Action.ACTIVATE and last is not Last.WELL:
            return replace(self, activation=Phase.FAILED, renewal=Phase.FAILED)
        settled = _SETTLES.get(action)
        done = Phase.DONE if last is Last.WELL else Phase.FAILED
        changes: dict[str, Any] = {} if settled is None else {settled: done}
        return replace(self, **changes)


_ESSENTIAL: Final = frozenset({Action.FETCH_ROOT, Action.ENROLL})
"""Without these there is no identity, and nothing else to do meanwhile."""

_SETTLES: Final[Mapping[Action, str]] = MappingProxyType(
    {
        Action.SET_ASIDE: "set_aside",
        Action.ENROLL: "refresh",
        Action.REFRESH: "refresh",
        Action.MAKE_NEXT_KEY: "renewal",
        Action.RENEW: "renewal",
        Action.PROMOTE: "renewal",
        Action.ACTIVATE: "activation",
        Action.CONNECT: "broker",
        Action.RAISE_TUNNEL: "tunnel",
        Action.WRITE_UPDATERS: "updaters",
    }
)
"""Which part of the progress an action settles, well or not."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the configuration and the command ask for."""

    renew_now: bool = False
    """``iot-enroll renew``: renew whatever the date."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table: in these situations, do this."""

    action: Action
    why: str
    when: Mapping[str, frozenset[Any]]
    """Facet to the values it may have; a facet that is not named may have any."""

    def applies(self, situation: Mapping[str, Any]) -> bool:
        """Return whether every named facet has one of its values."""
        return all(situation[facet] in values for facet, values in self.when.items())


def _rule(action: Action, why: str, **when: Any) -> Rule:
    allowed = {facet: frozenset(value if isinstance(value, tuple) else (value,)) for facet, value in when.items()}
    return Rule(action, why, MappingProxyType(allowed))


_HAS: Final = (Identity.PARTIAL, Identity.HELD)

RULES: Final = (
    _rule(Action.STOP, "the bridge said a final word; only a person can go on", last=Last.FINAL),
    _rule(Action.PROMOTE, "the bridge has confirmed the new pair: forward is the only way", next=Next.CONFIRMED),
    _rule(Action.SET_ASIDE, "never trusted, never silently deleted", unfit=True, identity=Identity.NONE),
    _rule(
        Action.SET_ASIDE,
        "never trusted, never silently deleted; where the disk refuses, the identity that holds goes on",
        unfit=True,
        set_aside=(Phase.UNTRIED, Phase.DONE),
    ),
    _rule(Action.TAKE_OVER, "the device has an identity already; it is not enrolled twice", older=True),
    # -- no identity yet --------------------------------------------------------------------------------
    _rule(Action.LATER, "the wait does not fit into this run", identity=Identity.NONE, last=Last.EXHAUSTED),
    _rule(Action.WAIT, "the attempt failed; the next one is for the same key", identity=Identity.NONE, last=Last.AGAIN),
    _rule(
        Action.FETCH_ROOT,
        "nothing is believed before the pin holds",
        identity=Identity.NONE,
        next=Next.PENDING,
        anchored=False,
    ),
    _rule(
        Action.ACTIVATE,
        "the pair in use is lost, the new one is whole",
        identity=Identity.NONE,
        next=Next.PENDING,
        activation=Phase.UNTRIED,
    ),
    _rule(Action.LATER, "the new pair waits for its confirmation", identity=Identity.NONE, next=Next.PENDING),
    _rule(Action.MAKE_KEYS, "on disk before the first request", identity=Identity.NONE, keys=Keys.MISSING),
    _rule(Action.FETCH_ROOT, "nothing is believed before the pin holds", identity=Identity.NONE, anchored=False),
    _rule(Action.ENROLL, "everything is ready", identity=Identity.NONE),
    # -- an identity: first what the bridge may have to say about it ----------------------------------------
    _rule(
        Action.ACTIVATE,
        "until the bridge confirms it, the new pair may open no door",
        next=Next.PENDING,
        activation=Phase.UNTRIED,
        last=Last.WELL,
    ),
    _rule(
        Action.MAKE_NEXT_KEY,
        "a renewal brings a new key, on disk before the request",
        next=Next.NONE,
        due=(Due.DUE, Due.EXPIRED),
        renewal=Phase.UNTRIED,
        last=Last.WELL,
    ),
    _rule(
        Action.MAKE_NEXT_KEY,
        "an operator asked for it",
        next=Next.NONE,
        renew_now=True,
        renewal=Phase.UNTRIED,
        last=Last.WELL,
    ),
    _rule(
        Action.RENEW,
        "the same key again, until its certificate is here",
        next=Next.KEY,
        due=(Due.DUE, Due.EXPIRED),
        renewal=Phase.UNTRIED,
        last=Last.WELL,
    ),
    _rule(
        Action.RENEW,
        "an operator asked for it",
        next=Next.KEY,
        renew_now=True,
        renewal=Phase.UNTRIED,
        last=Last.WELL,
    ),
    _rule(Action.REFRESH, "the bridge tells the time", due=Due.UNKNOWN, refresh=Phase.UNTRIED, last=Last.WELL),
    _rule(
        Action.REFRESH,
        "the bridge's stored answer brings back what is missing",
        identity=Identity.PARTIAL,
        refresh=Phase.UNTRIED,
        last=Last.WELL,
    ),
    _rule(
        Action.REFRESH,
        "the broker refuses: the bridge knows why",
        doubted=True,
        next=(Next.NONE, Next.KEY),
        refresh=Phase.UNTRIED,
    ),
    # -- an identity: phases 2 and 3 ------------------------------------------------------------------------
    _rule(Action.RAISE_TUNNEL, "waiting for the broker holds no tunnel up", last=Last.AGAIN, tunnel=Phase.UNTRIED),
    _rule(Action.WAIT, "the broker may not know this certificate yet", last=Last.AGAIN),
    _rule(
        Action.CONNECT,
        "phase 2",
        broker=Phase.UNTRIED,
        due=(Due.UNKNOWN, Due.NOT_YET, Due.DUE),
    ),
    _rule(Action.RAISE_TUNNEL, "phase 3", tunnel=Phase.UNTRIED),
    _rule(Action.WRITE_UPDATERS, "only where asked for", updaters=Phase.UNTRIED),
    # -- an identity: how the run ends ----------------------------------------------------------------------
    _rule(Action.LATER, "an expired certificate opens no door", due=Due.EXPIRED),
    _rule(Action.LATER, "the broker has not accepted the certificate", broker=Phase.FAILED),
    _rule(Action.LATER, "the new pair waits for its confirmation", next=Next.PENDING),
    _rule(Action.LATER, "the renewal is outstanding", renewal=Phase.FAILED),
    _rule(Action.LATER, "what the bridge knows is still missing", identity=Identity.PARTIAL),
    _rule(Action.FINISH, "nothing is left to do", identity=_HAS),
)
"""Tried in order; the first that applies decides. The last one applies to every identity: the table is total."""


def facets(found: Found, due: Due, progress: Progress, wanted: Wanted) -> dict[str, Any]:
    """Return the situation as the rules see it: one flat mapping."""
    situation: dict[str, Any] = {"due": due}
    for part in (found, progress, wanted):
        situation |= {field.name: getattr(part, field.name) for field in fields(part)}
    return situation


def deciding_rule(found: Found, due: Due, progress: Progress, wanted: Wanted) -> Rule:
    """Return the first rule that applies; there always is one."""
    situation = facets(found, due, progress, wanted)
    return next(rule for rule in RULES if rule.applies(situation))


def next_action(found: Found, due: Due, progress: Progress, wanted: Wanted) -> Action:
    """Return the next action; total over every situation."""
    return deciding_rule(found, due, progress, wanted).action
