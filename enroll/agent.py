"""One run of the agent: it looks at the disk, asks the plan what is next, does it, and looks again.

Responsible for the loop, for keeping to one budget, and for turning what an action met into what the plan decides
by. Everything it reaches the world by is injected.

Not responsible for any decision (``enroll.plan``), for doing anything itself (``enroll.deeds``), for configuration,
printing or exit codes (``enroll.cli``).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from enroll import events
from enroll.backoff import Backoff, Budget
from enroll.config import Settings
from enroll.deeds import Deeds, Runtime
from enroll.disk import files
from enroll.errors import BrokerError, EnrollError, RefusedError, StoppedError, TryAgainError
from enroll.plan import Action, Due, Last, Next, Progress, Wanted, next_action
from enroll.schedule import due
from enroll.wire import Code

__all__ = ["Agent", "Runtime"]

_UNREACHABLE: Final = Backoff(base=1.0, cap=300.0)
"""Nobody answered, or somebody else: networks come and go by themselves."""
_REFUSED: Final = Backoff(base=2.0, cap=3600.0)
"""The bridge said not now: a person may have to act, and there may be ten thousand of us."""
_BROKER: Final = Backoff(base=0.5, cap=30.0)

_REPEATED: Final = frozenset({Action.FETCH_ROOT, Action.ENROLL, Action.CONNECT})
"""What is tried again within one run; anything else waits for the next one."""

_OPTIONAL: Final = frozenset(
    {Action.MAKE_NEXT_KEY, Action.RENEW, Action.ACTIVATE, Action.REFRESH, Action.CONNECT, Action.WRITE_UPDATERS}
)
"""What a device with an identity can do without for now: a full disk must not keep it from its broker."""


_ELSEWHERE: Final = frozenset(
    {Action.WAIT, Action.FETCH_ROOT, Action.CONNECT, Action.RAISE_TUNNEL, Action.WRITE_UPDATERS}
)
"""What leaves the folder as it is: nothing new is to be seen there."""

_LOOKING: Final = frozenset({Action.MAKE_KEYS, Action.ENROLL, Action.PROMOTE})
"""What ends with a look of its own, because it is not done before the folder gives back what was written."""


class Agent:
    """One run in one folder."""

    def __init__(self, settings: Settings, runtime: Runtime, *, renew_now: bool = False) -> None:
        self._settings = settings
        self._world = runtime
        self._budget = Budget.start(settings.budget, runtime.clock.monotonic)
        self._deeds = Deeds(settings, runtime, lambda: self._budget)
        self._wanted = Wanted(renew_now=renew_now)
        self._progress = Progress()
        self._failures: dict[Action, int] = {}
        self._failure: EnrollError | None = None
        self._broker_said: str | None = None
        self._wait = 0.0

    def run(self) -> None:
        """Bring the device as far as it can get within the budget.

        Returning means: the flag is written and the broker accepted the leaf, or none is named.

        :raises StoppedError: the bridge said a final word.
        :raises ConfigurationError: the folder belongs to another device.
        :raises TryAgainError: not within this run.
        """
        with files.locked(self._world.disk, self._settings.folder):
            self._deeds.look()
            self._begin()
            while (action := self._next()) is not Action.FINISH:
                self._perform(action)

    def now(self) -> datetime:
        """Return the time as the run believes it."""
        return self._deeds.keeper.belief().now

    def stay(self) -> None:
        """Stay connected until SIGTERM or SIGINT; for demonstrations."""
        self._deeds.stay()

    def _begin(self) -> None:
        seen = self._deeds.seen
        if seen.enrollment is not None:
            self._world.report(events.enrolled(seen.enrollment.summary(), new=False))
        elif seen.pair.state is not Next.CONFIRMED and seen.older is None:
            if seen.flagged:
                why = "; ".join(f"{entry.path.name} {entry.why}" for entry in seen.unfit) or "files are missing"
                self._world.report(events.invalid(why))
            self._spread()
        self._budget = Budget.start(self._settings.budget, self._world.clock.monotonic)

    def _spread(self) -> None:
        seconds = self._world.uniform(0.0, self._settings.start_spread)
        if seconds > 0:
            self._world.report(events.waiting("start", "spreads a fleet's first requests", "start_spread", seconds))
            self._world.clock.sleep(seconds)

    def _next(self) -> Action:
        seen = self._deeds.seen
        age = Due.NOT_YET if seen.enrollment is None else due(seen.enrollment.record, self._deeds.keeper.belief())
        progress = replace(self._progress, anchored=self._deeds.anchored)
        return next_action(seen.found(), age, progress, self._wanted)

    def _perform(self, action: Action) -> None:
        if action in {Action.LATER, Action.STOP}:
            raise self._failure or TryAgainError("this device is not done yet")
        refused = False
        try:
            if action is Action.WAIT:
                self._world.clock.sleep(self._wait)
            else:
                self._deeds.do(action)
            last = Last.WELL
        except StoppedError as e:
            last = self._stopped(action, e)
        except TryAgainError as e:
            if e.ends_run and not self._can_do_without(action):
                raise
            refused = isinstance(e, BrokerError) and e.refused
            last = self._failed(action, e)
        if action not in _ELSEWHERE and not (action in _LOOKING and last is Last.WELL):
            self._deeds.look()
        self._progress = self._progress.after(action, last, refused=refused)

    def _can_do_without(self, action: Action) -> bool:
        held = self._deeds.seen.enrollment is not None
        return action in _OPTIONAL or (action is Action.SET_ASIDE and held)

    def _stopped(self, action: Action, error: StoppedError) -> Last:
        if error.problem is not Code.RETIRED and self._deeds.seen.enrollment is not None:
            # What is wrong with one request says nothing of the identity that is there.
            return self._failed(action, TryAgainError(str(error)))
        if self._broker_said is not None:
            self._deeds.doors.gave_up(self._deeds.enrolled(), self._broker_said)
        self._failure = error
        return Last.FINAL

    def _failed(self, action: Action, error: TryAgainError) -> Last:
        self._failure = error
        if action not in _REPEATED:
            self._world.report(events.postponed(action.value, str(error), error.code))
            return Last.EXHAUSTED
        count = self._failures[action] = self._failures.get(action, 0) + 1
        self._wait = _backoff(error).delay(count, error.retry_after, self._world.uniform)
        connecting = action is Action.CONNECT
        if connecting:
            self._broker_said = str(error)
        if error.ends_run or self._wait >= self._budget.remaining():
            if connecting:
                self._deeds.doors.gave_up(self._deeds.enrolled(), str(error))
            return Last.EXHAUSTED
        what = "MQTT" if connecting else "enrollment"
        self._world.report(events.waiting(what, str(error), error.code, self._wait))
        return Last.AGAIN


def _backoff(error: TryAgainError) -> Backoff:
    match error:
        case BrokerError():
            return _BROKER
        case RefusedError() if error.retry_after is None:
            return _REFUSED
        case _:
            return _UNREACHABLE
