"""What tests count, beside passing: kept with each test's report, summed up in the last lines of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import pytest
import structlog
from hypothesis import HealthCheck, settings

# How fast a machine is, and whether Hypothesis has its tables already, decides nothing here.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_COUNT: Final = "count: "


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """A server that ran in this process leaves its logging behind: the next test must not inherit it."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Callable[[str, int], None]:
    """Record how many of something a test saw; it stands in the JUnit report too."""

    def record(what: str, number: int) -> None:
        request.node.user_properties.append((f"{_COUNT}{what}", number))

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say the sums."""
    sums: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                for what, number in report.user_properties:
                    if what.startswith(_COUNT):
                        sums[what.removeprefix(_COUNT)] += number
    for what in sorted(sums):
        terminalreporter.write_line(f"{what}: {sums[what]}")
