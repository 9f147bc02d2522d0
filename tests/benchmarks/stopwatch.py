"""Runs one command and tells what it cost: a process of its own, and a small one.

A child's peak of memory begins at what its parent held when it was forked, so the large process that compares must
not be the parent. Loads next to nothing for the same reason.

    python -I -S stopwatch.py FLAG COMMAND…     # prints: status, seconds, CPU seconds, peak memory in KiB

With a FLAG, the clock stops when the command prints a line that contains it, and the command is killed there: what
it does after that is not part of the comparison. With an empty one the clock stops when the command ends.
"""

import os
import signal
import sys
import time


def main(flag: bytes, command: list[str]) -> None:
    """Run it once."""
    reading, writing = os.pipe()
    begun = time.perf_counter()
    child = os.posix_spawn(
        command[0],
        command,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)],
    )
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as told:
        text = b""
        while piece := told.read(65536):
            text += piece
            if flag and flag in text:
                os.kill(child, signal.SIGKILL)
                break
        ended = time.perf_counter()
        _, status, usage = os.wait4(child, 0)
    if not flag:
        ended = time.perf_counter()
    reached = flag in text if flag else os.waitstatus_to_exitcode(status) == 0
    if not reached:
        os.write(2, text)
    print(int(not reached), ended - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)


if __name__ == "__main__":
    main(sys.argv[1].encode(), sys.argv[2:])
