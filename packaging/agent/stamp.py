"""The date of a build, in `enroll/built.py`: the floor below which no device's clock is believed.

    python3 packaging/agent/stamp.py enroll/built.py     # rewrites the file; wants SOURCE_DATE_EPOCH

Responsible for that one line, for the zipapp as for an image build. The date never goes below the one in the sources.
"""

import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

_LINE = re.compile(
    r"^BUILT_AT: Final = datetime\((?P<year>\d+), (?P<month>\d+), (?P<day>\d+), tzinfo=UTC\)$", re.MULTILINE
)


def stamped(source: str, moment: datetime) -> str:
    """Return the module's source with the day of `moment` (aware) in it, or as it was if that day is earlier.

    Raises:
        ValueError: the line that holds the date is not there exactly once.

    """
    found = _LINE.findall(source)
    if len(found) != 1:
        raise ValueError(f"enroll/built.py has {len(found)} lines `BUILT_AT: Final = datetime(Y, M, D, tzinfo=UTC)`")
    year, month, day = map(int, found[0])
    day_of_build = max(datetime(year, month, day, tzinfo=UTC), moment.astimezone(UTC))
    text = f"BUILT_AT: Final = datetime({day_of_build.year}, {day_of_build.month}, {day_of_build.day}, tzinfo=UTC)"
    return _LINE.sub(text, source)


def main(path: Path) -> int:
    """Rewrite the file; return the exit code."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch.isdecimal():
        print("SOURCE_DATE_EPOCH is not set to a number of seconds", file=sys.stderr)
        return 2
    moment = datetime.fromtimestamp(int(epoch), UTC)
    path.write_text(stamped(path.read_text(encoding="utf-8"), moment), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
