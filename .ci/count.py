"""Count the tests of junit reports by suite: ``count.py REPORT...``; the last line is ``N passed, N failed``.

Exit 1 if a test failed or was skipped, a report is missing, or a suite ran no test. A skipped test counts as failed:
what was not seen working is not known to work.
"""

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

SUITES = ("architecture", "contract", "crash", "devicecrash", "e2e", "property", "races", "unit")
"""Folders below tests/ that must have run at least one test of `make test`."""
SERVERS = ("ca", "hawkbit", "keys", "mosquitto", "postgresql", "wireguard")
"""Folders below tests/contract/ that must have run at least one test against the real server or system."""

REAL = ("crash", "e2e", "races")
"""Other folders below tests/ that must have run at least one test on real servers."""


def suite_of(classname: str, *, real: bool) -> str:
    """Return the suite of a test, such as ``unit``, or ``contract/ca [real]``."""
    parts = classname.split(".")
    parts = parts[parts.index("tests") + 1 :] if "tests" in parts else parts
    if not real:
        return parts[0]
    return f"{'/'.join(parts[: 2 if parts[0] == 'contract' else 1])} [real]"


def outcomes(report: Path) -> Iterable[tuple[str, bool]]:
    """Yield suite and success of every test of a report."""
    real = report.stem.endswith("real")
    # The report was written by our own pytest a moment ago.
    for case in ET.parse(report).iter("testcase"):  # noqa: S314
        good = not any(case.find(tag) is not None for tag in ("failure", "error", "skipped"))
        yield suite_of(case.get("classname", ""), real=real), good


def main(reports: list[Path]) -> int:
    """Print the counts; return the exit code."""
    passed: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    missing = [report for report in reports if not report.exists()]
    for report in reports:
        for suite, good in () if report in missing else outcomes(report):
            (passed if good else failed)[suite] += 1
    wanted = {*SUITES, *(f"contract/{server} [real]" for server in SERVERS), *(f"{suite} [real]" for suite in REAL)}
    empty = sorted(wanted - passed.keys() - failed.keys())
    for suite in sorted(wanted | passed.keys() | failed.keys()):
        print(f"{suite:28} {passed[suite]:5} passed, {failed[suite]} failed")
    for suite in empty:
        print(f"{suite}: NO TEST RAN")
    for report in missing:
        print(f"{report}: MISSING")
    print(f"{passed.total()} passed, {failed.total()} failed")
    return 1 if missing or empty or failed.total() or not passed.total() else 0


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
