"""What the device's packaging repeats of the agent's own words: ``device.py --check`` or ``--write``.

The commented template of /etc/iot-enroll.conf, and docs/device.md's table of variables.
"""

import sys
import textwrap
from pathlib import Path

from enroll.config import VARIABLES

PROJECT = Path(__file__).resolve().parents[1]
TEMPLATE = PROJECT / "packaging" / "iot-enroll.conf"
PAGE = PROJECT / "docs" / "device.md"
_BEGIN, _END = "<!-- variables -->\n", "<!-- end of variables -->"
_HEAD = """\
# What iot-enroll knows from outside; systemd reads this file: NAME=value, one a line, nothing expanded.
# Needed are the bridge, the device's id and the root's fingerprint; each other line shows a variable that is not set.
# The unit sets CERTS_DIR=/var/lib/iot-enroll before it and reads /run/iot-enroll.conf after it.
# Changed? systemctl start iot-enroll; systemctl status iot-enroll
"""


def template(_: str = "") -> str:
    """Return the configuration file as a package installs it."""
    parts = [_HEAD]
    for name, meaning in VARIABLES.items():
        lines = textwrap.wrap(meaning, 118, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False)
        parts.append("\n" + "\n".join(lines) + f"\n#{name}=\n")
    return "".join(parts)


def page(text: str) -> str:
    """Return the page with the table as it is today.

    :raises ValueError: a marker is missing.
    """
    before, _, rest = text.partition(_BEGIN)
    _, found, after = rest.partition(_END)
    if not found:
        raise ValueError("docs/device.md lacks the markers of its table of variables")
    rows = ["| variable | meaning |", "|---|---|"]
    rows += [f"| `{name}` | {meaning} |" for name, meaning in VARIABLES.items()]
    return before + _BEGIN + "\n".join(rows) + "\n" + _END + after


def main(argument: str) -> int:
    """Check or write both files."""
    old = []
    for path, made in ((TEMPLATE, template), (PAGE, page)):
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        wanted = made(text)
        if text == wanted:
            continue
        if argument == "--write":
            path.write_text(wanted, encoding="utf-8")
        else:
            old.append(str(path.relative_to(PROJECT)))
    if old:
        print(f"{' and '.join(old)}: old; .venv/bin/python .ci/device.py --write")
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
