"""The agent's reachable situations, explored from the code, and the page of the docs that lists them.

``python -m tests.unit.enroll.states --write`` writes the page; a test compares it.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from enroll.plan import (
    RULES,
    Action,
    Due,
    Found,
    Identity,
    Keys,
    Last,
    Next,
    Phase,
    Progress,
    Rule,
    Wanted,
    deciding_rule,
    next_action,
)

PAGE = Path(__file__).parents[3] / "docs" / "device-states.md"

VALUES: dict[str, tuple[Any, ...]] = {
    "unfit": (False, True),
    "older": (False, True),
    "keys": tuple(Keys),
    "identity": tuple(Identity),
    "next": tuple(Next),
    "due": tuple(Due),
    "last": tuple(Last),
    "anchored": (False, True),
    "set_aside": tuple(Phase),
    "renewal": tuple(Phase),
    "activation": tuple(Phase),
    "refresh": tuple(Phase),
    "broker": tuple(Phase),
    "doubted": (False, True),
    "tunnel": tuple(Phase),
    "updaters": tuple(Phase),
    "renew_now": (False, True),
}
ENDS = frozenset({Action.FINISH, Action.LATER, Action.STOP})
_REPEATED = frozenset({Action.FETCH_ROOT, Action.ENROLL, Action.CONNECT})
_ASKING = _REPEATED | {Action.REFRESH, Action.RENEW, Action.ACTIVATE}
_FAILING = frozenset({Action.MAKE_NEXT_KEY, Action.RAISE_TUNNEL, Action.WRITE_UPDATERS})


@dataclass(frozen=True)
class World:
    """A situation: what lies on disk, the age of the certificate, what this run has seen, what is wanted."""

    found: Found
    due: Due
    progress: Progress
    wanted: Wanted

    @property
    def action(self) -> Action:
        return next_action(self.found, self.due, self.progress, self.wanted)

    @property
    def rule(self) -> Rule:
        return deciding_rule(self.found, self.due, self.progress, self.wanted)


def starts() -> list[World]:
    """Every state of the disk in which a run may begin."""
    return [
        World(Found(unfit, older, keys, identity, next_), due, Progress(), Wanted(renew_now))
        for unfit, older, keys, identity, next_, due, renew_now in product(
            (False, True), (False, True), Keys, Identity, Next, Due, (False, True)
        )
        if not (older and (identity is not Identity.NONE or unfit or keys is Keys.READY))
        if not (identity is Identity.NONE and due is not Due.NOT_YET)
    ]


def outcomes(world: World) -> Iterator[World]:
    """What the world may make of the action: every success and every failure."""
    action = world.action
    ends = [Last.WELL]
    if action in _ASKING:
        ends = [Last.WELL, Last.EXHAUSTED, Last.FINAL] + ([Last.AGAIN] if action in _REPEATED else [])
    elif action in _FAILING or (action is Action.SET_ASIDE and world.found.identity is not Identity.NONE):
        ends = [Last.WELL, Last.EXHAUSTED]
    for last, refused in product(ends, (False, True) if action is Action.CONNECT else (False,)):
        after = world.progress.after(action, last, refused=refused)
        for found, due in _effects(world, action, last):
            anchored = after.anchored or found.identity is not Identity.NONE
            anchored = anchored or (action is Action.FETCH_ROOT and last is Last.WELL)
            yield World(found, due, replace(after, anchored=anchored), world.wanted)


def _effects(  # noqa: C901, PLR0912 - one case for each action
    world: World, action: Action, last: Last
) -> Iterator[tuple[Found, Due]]:
    """What lies on disk afterwards."""
    found, due, well = world.found, world.due, last is Last.WELL
    match action:
        case Action.PROMOTE:
            yield replace(found, identity=Identity.HELD, next=Next.NONE, keys=Keys.READY), Due.NOT_YET
        case Action.SET_ASIDE if not well:
            yield found, due
        case Action.SET_ASIDE:
            for keys, identity in product(Keys, {Identity.NONE, found.identity}):
                yield replace(found, unfit=False, keys=keys, identity=identity), due
        case Action.TAKE_OVER:
            for identity, keys in product((Identity.NONE, Identity.PARTIAL), Keys):
                yield replace(found, older=False, identity=identity, keys=keys), Due.NOT_YET
        case Action.MAKE_KEYS:
            yield replace(found, keys=Keys.READY), due
        case Action.ENROLL if well:
            yield replace(found, identity=Identity.HELD), Due.NOT_YET
        case Action.MAKE_NEXT_KEY if well:
            yield replace(found, next=Next.KEY), due
        case Action.RENEW if well:
            yield replace(found, next=Next.PENDING), due
            yield replace(found, next=Next.CONFIRMED), due
        case Action.ACTIVATE if well:
            yield replace(found, next=Next.CONFIRMED), due
        case Action.RENEW | Action.ACTIVATE:
            yield found, due
            yield replace(found, next=Next.NONE), due  # useless by the bridge's word
        case Action.REFRESH if well:
            yield replace(found, identity=Identity.HELD), Due.NOT_YET if due is Due.UNKNOWN else due
        case _:
            yield found, due


@lru_cache(maxsize=1)
def reachable() -> dict[World, Action]:
    """Return every situation that a run can come to, with its action."""
    reached: dict[World, Action] = {}
    waiting = deque(starts())
    while waiting:
        world = waiting.popleft()
        if world in reached:
            continue
        reached[world] = world.action
        if reached[world] not in ENDS:
            waiting.extend(outcomes(world))
    return reached


_INTRODUCTION = """\
# What the agent does, and when

Written from `enroll/plan.py` by `python -m tests.unit.enroll.states --write`; a test compares it with the code.
`next_action` looks at what lies on **disk** (read again after each action; there is no other memory), at the
certificate's **age** by the time believed, and at what **this run** has seen. The first rule that applies decides.
"""


def _words(facet: str, values: frozenset[Any]) -> str:
    names = [
        str(value).lower() if isinstance(value, bool) else str(value) for value in VALUES[facet] if value in values
    ]
    return f"{facet.replace('_', ' ')}: {' or '.join(names)}"


def render() -> str:
    """Return the page."""
    reached = reachable()
    deciding: dict[int, int] = {}
    for world in reached:
        deciding[id(world.rule)] = deciding.get(id(world.rule), 0) + 1
    lines = [
        _INTRODUCTION,
        f"{len(reached):,} situations can be reached; every one is decided by one of these rules.",
        "",
    ]
    lines += ["| # | when | action | why | situations |", "|--:|---|---|---|--:|"]
    for number, rule in enumerate(RULES, 1):
        when = "; ".join(_words(facet, values) for facet, values in rule.when.items())
        lines.append(f"| {number} | {when} | **{rule.action}** | {rule.why} | {deciding[id(rule)]:,} |")
    lines += ["", "## What a start finds", "", _START_WORDS]
    lines += ["| " + " | ".join([*_COLUMNS.values(), "first action"]) + " |", "|---" * (len(_COLUMNS) + 1) + "|"]
    lines += sorted(_start_row(row, action) for row, action in _merged(_start_rows()))
    lines += ["", "## How a run ends", ""]
    lines += ["| end | after | situations |", "|---|---|--:|"]
    ends = [rule for rule in RULES if rule.action in ENDS]
    lines += [f"| {rule.action} | {rule.why} | {deciding[id(rule)]:,} |" for rule in ends]
    return "\n".join(lines) + "\n"


_START_WORDS = "The first action of a run by what lies on disk; `iot-enroll renew` makes any certificate due.\n"


_COLUMNS = {"identity": "identity", "keys": "keys", "next": "`next/`", "unfit": "unfit files", "older": "older client"}
_COLUMNS |= {"due": "certificate"}
_COLUMN_VALUES = {facet: frozenset(VALUES[facet]) for facet in _COLUMNS}

Row = tuple[frozenset[Any], ...]


def _start_rows() -> list[tuple[Row, Action]]:
    rows = []
    for world in starts():
        if not world.wanted.renew_now:
            found = world.found
            values = (found.identity, found.keys, found.next, found.unfit, found.older, world.due)
            rows.append((tuple(frozenset([value]) for value in values), world.action))
    return rows


def _merged(rows: list[tuple[Row, Action]]) -> list[tuple[Row, Action]]:
    """Join rows that differ in one column only and have the same action, until none are left."""
    for column in (1, 5, 3, 2, 4, 0):
        groups: dict[tuple[Any, ...], frozenset[Any]] = {}
        for row, action in rows:
            rest = (*row[:column], *row[column + 1 :], action)
            groups[rest] = groups.get(rest, frozenset()) | row[column]
        rows = [((*rest[:column], values, *rest[column:-1]), rest[-1]) for rest, values in groups.items()]
    return rows


def _start_row(row: Row, action: Action) -> str:
    cells = []
    for facet, values in zip(_COLUMNS, row, strict=True):
        named = [str(value).lower() for value in VALUES[facet] if value in values]
        cells.append("any" if values == _COLUMN_VALUES[facet] else " or ".join(named))
    return "| " + " | ".join([*cells, f"**{action}**"]) + " |"


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(render())
    else:
        print(render())  # noqa: T201 - it is what was asked for
