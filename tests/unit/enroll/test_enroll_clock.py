"""The belief of the time: laws that hold for every clock, every jump and every lie."""

from __future__ import annotations

import errno
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from enroll import built
from enroll.trust.certificates import Validity
from enroll.trust.clock import BUILT_AT, Belief, SystemClock, Timekeeper

FLOOR = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
ROOT_END = datetime(2036, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ALWAYS = Validity(datetime(1950, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))

moments = st.datetimes(datetime(1970, 1, 1), datetime(2150, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - given UTC
validities = st.tuples(moments, moments).map(lambda pair: Validity(min(pair), max(pair)))
seconds = st.floats(0, 1e9)


@dataclass
class Machine:
    """Two clocks: one that shows anything, one that only goes on."""

    shows: datetime = NOW
    uptime: float = 0.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return self.shows

    def monotonic(self) -> float:
        return self.uptime

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def keeper(shows: datetime = NOW, floor: datetime = FLOOR, end: datetime | None = ROOT_END) -> Timekeeper:
    made = Timekeeper(Machine(shows), floor)
    if end is not None:
        made.root_ends(end)
    return made


@pytest.mark.parametrize(
    ("shows", "trusted"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), False),
        (FLOOR - timedelta(seconds=1), False),
        (FLOOR, True),
        (NOW, True),
        (ROOT_END, True),
        (ROOT_END + timedelta(seconds=1), False),
        (datetime(2038, 1, 20, tzinfo=UTC), False),
        (datetime(2106, 2, 8, tzinfo=UTC), False),
    ],
)
def test_the_systems_clock_counts_between_the_floor_and_the_end_of_the_root(shows: datetime, trusted: bool) -> None:
    assert keeper(shows).belief() == Belief(shows if trusted else FLOOR, trusted, FLOOR, by_system=trusted)


def test_without_a_root_only_the_floor_counts() -> None:
    far = datetime(2106, 2, 8, tzinfo=UTC)
    assert keeper(far, end=None).belief() == Belief(far, trusted=True, floor=FLOOR)
    assert not keeper(datetime(1970, 1, 1, tzinfo=UTC), end=None).belief().trusted


def test_of_several_roots_the_latest_end_counts() -> None:
    made = keeper(ROOT_END + DAY)
    made.root_ends(FLOOR + DAY)
    assert not made.belief().trusted
    made.root_ends(ROOT_END + 2 * DAY)
    assert made.belief().trusted


def test_the_clock_is_read_each_time() -> None:
    machine = Machine(datetime(1970, 1, 1, tzinfo=UTC))
    made = Timekeeper(machine, FLOOR)
    assert not made.belief().trusted
    machine.shows = NOW  # NTP came
    assert made.belief() == Belief(NOW, trusted=True, floor=FLOOR)
    machine.shows = FLOOR - DAY  # and went
    assert made.belief() == Belief(FLOOR, trusted=False, floor=FLOOR, by_system=False)


def test_a_server_time_that_holds_goes_on_by_itself() -> None:
    machine = Machine(datetime(1970, 1, 1, tzinfo=UTC))
    made = Timekeeper(machine, FLOOR)
    assert made.hear(NOW, ALWAYS, [ALWAYS])
    for shows in (datetime(1970, 1, 1, tzinfo=UTC), datetime(2106, 2, 8, tzinfo=UTC), NOW - DAY):
        machine.shows = shows
        machine.uptime += 60
        expected = NOW + timedelta(seconds=machine.uptime)
        assert made.belief() == Belief(expected, trusted=True, floor=NOW, by_system=False)


def test_the_systems_clock_stands_for_a_time_heard_while_it_shows_about_the_same() -> None:
    machine = Machine(NOW - timedelta(seconds=30))
    made = Timekeeper(machine, FLOOR)
    assert made.hear(NOW, ALWAYS, [ALWAYS])
    assert made.belief().by_system
    machine.shows = NOW + 2 * DAY
    assert not made.belief().by_system
    machine.uptime += 2 * 86_400
    assert made.belief().by_system


WITHIN = Validity(NOW - DAY, NOW + DAY)
BEFORE, AFTER = Validity(NOW - 2 * DAY, NOW - DAY), Validity(NOW + DAY, NOW + 2 * DAY)


@pytest.mark.parametrize(
    ("said", "leaf", "chain"),
    [
        (FLOOR - timedelta(seconds=1), ALWAYS, [ALWAYS]),
        (NOW, BEFORE, [WITHIN]),
        (NOW, AFTER, [WITHIN]),
        (NOW, WITHIN, [BEFORE, ALWAYS]),
        (NOW, WITHIN, [AFTER, ALWAYS]),
        (NOW, WITHIN, [WITHIN, WITHIN, BEFORE]),
        (NOW, WITHIN, []),
        (datetime(9999, 12, 31, tzinfo=UTC), ALWAYS, [ALWAYS]),
    ],
)
def test_a_server_time_that_does_not_hold_moves_nothing(said: datetime, leaf: Validity, chain: list[Validity]) -> None:
    made = keeper()
    before = made.belief()
    assert not made.hear(said, leaf, chain)
    assert made.belief() == before


@given(shows=moments, floors=st.lists(moments, max_size=4), ends=st.lists(moments, max_size=2), later=seconds)
def test_belief_is_never_below_the_floor_and_the_floor_never_falls(
    shows: datetime, floors: list[datetime], ends: list[datetime], later: float
) -> None:
    machine = Machine(shows)
    made = Timekeeper(machine, FLOOR)
    for end in ends:
        made.root_ends(end)
    floor = FLOOR
    for moment in floors:
        made.raise_floor(moment)
        made.hear(moment, ALWAYS, [ALWAYS])
        floor = max(floor, moment)
        assert made.belief().floor == floor
        assert made.belief().now >= floor
        machine.uptime += later
        assert made.belief().now >= floor


@given(shows=moments, end=moments)
def test_an_untrusted_belief_is_the_floor_and_a_trusted_one_lies_between(shows: datetime, end: datetime) -> None:
    belief = keeper(shows, end=end).belief()
    assert belief.trusted == (FLOOR <= shows <= end)
    assert belief.now == (shows if belief.trusted else FLOOR)


@given(shows=moments, said=moments, leaf=validities, chain=st.lists(validities, max_size=3))
def test_what_is_heard_moves_the_belief_exactly_if_all_vouch_for_it(
    shows: datetime, said: datetime, leaf: Validity, chain: list[Validity]
) -> None:
    made = keeper(shows)
    before = made.belief()
    holds = said >= FLOOR and bool(chain) and all(v.begin <= said <= v.end for v in (leaf, *chain))
    assert made.hear(said, leaf, chain) == holds
    near = abs(shows - said) <= timedelta(minutes=1)
    assert made.belief() == (Belief(said, trusted=True, floor=said, by_system=near) if holds else before)


@given(
    first=moments,
    steps=st.lists(st.tuples(moments, st.floats(0, 1e6), moments, st.booleans()), max_size=12),
)
def test_once_a_server_was_believed_time_never_goes_back(
    first: datetime, steps: list[tuple[datetime, float, datetime, bool]]
) -> None:
    assume(first >= FLOOR)
    machine = Machine()
    made = Timekeeper(machine, FLOOR)
    assert made.hear(first, ALWAYS, [ALWAYS])
    last = made.belief().now
    for said, passed, shows, vouched in steps:
        machine.uptime += passed
        machine.shows = shows
        made.hear(said, ALWAYS, [ALWAYS] if vouched else [BEFORE])
        belief = made.belief()
        assert belief.trusted
        assert belief.now >= last
        last = belief.now


@given(said=moments, ahead=seconds)
def test_an_earlier_time_of_a_later_answer_holds_but_does_not_set_the_clock_back(said: datetime, ahead: float) -> None:
    assume(said >= FLOOR)
    machine = Machine()
    made = Timekeeper(machine, FLOOR)
    assert made.hear(said, ALWAYS, [ALWAYS])
    machine.uptime += ahead
    reached = made.belief().now
    assert made.hear(said, ALWAYS, [ALWAYS])
    assert made.belief().now == reached


def test_the_floor_of_a_build_has_passed() -> None:
    assert BUILT_AT == built.BUILT_AT
    assert BUILT_AT.tzinfo is UTC
    assert datetime.now(UTC) >= BUILT_AT
    assert Timekeeper(Machine(datetime(1970, 1, 1, tzinfo=UTC))).belief().now == BUILT_AT


def test_the_systems_clock_reads_and_waits() -> None:
    clock = SystemClock()
    before = clock.monotonic()
    clock.sleep(0.01)
    assert clock.monotonic() - before >= 0.01
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)


def test_a_clock_that_may_not_be_set_says_so() -> None:
    """In a process of its own that has given its rights away: the machine's clock stays as it is."""
    code = (
        "import os, sys\n"
        "from datetime import UTC, datetime\n"
        "from enroll.trust.clock import SystemClock\n"
        "if os.getuid() == 0: os.setgroups([]); os.setuid(65534)\n"
        "try: SystemClock().set(datetime.now(UTC))\n"
        "except OSError as e: sys.exit(100 + e.errno)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=False)
    assert ended.returncode == 100 + errno.EPERM, ended.stderr
