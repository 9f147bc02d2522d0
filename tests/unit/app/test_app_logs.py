"""A log that cannot be written costs its line, and nothing else."""

import subprocess
import sys

SCRIPT = """
import logging, structlog
from bridge.app import logs
logs.configure()
structlog.get_logger("bridge").warning("lost")
logging.getLogger("uvicorn").warning("lost too")
try:
    raise ValueError("x")
except ValueError:
    structlog.get_logger("bridge").exception("lost as well")
print("still here", flush=True)
"""


def test_a_full_disk_under_the_log_raises_nothing() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device, not a path of ours
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=full, text=True, check=False
        )

    assert done.stdout == "still here\n"
