"""`python -m compose.demo`: exit 0 only if every line was true."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

import httpx

from compose.demo.processes import INTERRUPTS
from compose.demo.screen import Screen, Untrue
from compose.demo.story import tell


def _interrupt_once(_number: int, _frame: FrameType | None) -> None:
    """Unwind, and let no second signal disturb the ending of what was started."""
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Run the demonstration in a temporary folder; return the exit code."""
    parser = argparse.ArgumentParser(prog="compose.demo", description="A device's first boot, and its end.")
    parser.add_argument("--no-tunnel", action="store_true", help="raise no real tunnel, also where it is possible")
    arguments = parser.parse_args()
    for number in INTERRUPTS:
        signal.signal(number, _interrupt_once)
    screen = Screen()
    try:
        with tempfile.TemporaryDirectory(prefix="iot-bridge-demo-") as folder:
            tell(screen, Path(folder), with_tunnel=not arguments.no_tunnel)
    except (Untrue, httpx.HTTPError) as e:
        screen.untrue(str(e) or type(e).__name__)
        return 1
    except KeyboardInterrupt:
        screen.remark("interrupted; everything that was started has been ended")
        return 130
    screen.summary()
    return 0


if __name__ == "__main__":
    sys.exit(main())
