"""``make bench``: every figure of the project that is about speed or memory, printed as ratios of one run."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import audit
import device
import enrollment
import scale

BENCHMARKS = {
    "enrollment": enrollment.measure,
    "audit": audit.measure,
    "scale": scale.measure,
    "device": device.measure,
}


def main() -> None:
    """Run those that are named, or all."""
    for name in sys.argv[1:] or BENCHMARKS:
        with tempfile.TemporaryDirectory(prefix="iot-bridge-bench-") as folder:
            asyncio.run(BENCHMARKS[name](Path(folder)))


if __name__ == "__main__":
    main()
