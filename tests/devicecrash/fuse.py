"""Where a device's process can die: at the begin of every effect, counted, with no word about it in the product.

Whatever the agent is given is wrapped by reflection: a method that is new is an effect until it is named here as one
that only looks. An effect that goes around all of it is seen by Python's own audit hook.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

from enroll.agent import Runtime
from tests.devicecrash.flash import Flash
from tests.devicecrash.orders import Boundary, Order

LOOKS: Final = frozenset(
    {
        "addresses",
        "clock.monotonic",
        "clock.now",
        "clock.sleep",
        "inventory",
        "machine.find",
        "machine.group",
        "machine.has_interface",
        "machine.is_root",
        "machine.runs_systemd",
        "provider.name",
        "provider.read",
        "report",
        "uniform",
    }
)
"""What changes nothing that outlives the process. Everything else is an effect."""

OUTSIDE: Final = frozenset(
    {
        "os.chmod",
        "os.chown",
        "os.exec",
        "os.fork",
        "os.link",
        "os.mkdir",
        "os.posix_spawn",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.symlink",
        "os.system",
        "os.truncate",
        "os.utime",
        "socket.bind",
        "socket.connect",
        "socket.sendto",
        "subprocess.Popen",
    }
)
"""Audit events that are effects (https://docs.python.org/3.11/library/audit_events.html); ``open`` if for writing."""
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_TAKES_SPACE: Final = frozenset({"create", "make_folder"})


class Fuse:
    """Counts effects, and ends this process with SIGKILL, or lets the disk refuse, where its order says so."""

    def __init__(self, order: Order, flash: Flash) -> None:
        self._order, self._flash = order, flash
        self._case = order.case
        self._journal = os.open(self._case.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC, 0o600)
        self._depth = 0
        self._reached = self._on_disk = self._elsewhere = 0
        self._seen: set[Any] = set()
        self._visible: set[Any] = set()
        self.boundaries: list[Boundary] = []
        self.uncounted: list[str] = []
        if order.study:
            sys.addaudithook(self._audit)

    def guard(self, runtime: Runtime) -> Runtime:
        """Return the runtime with every part of it counted."""
        return replace(runtime, **{f.name: self.part(f.name, getattr(runtime, f.name)) for f in fields(runtime)})

    def part(self, name: str, part: Any) -> Any:
        """Return a stand-in for a function, or for an object with methods."""
        return self.effect(name, part) if callable(part) else _Guarded(name, part, self)

    def effect(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a call that is counted, unless it only looks."""

        def counted(*given: Any, **named: Any) -> Any:
            if name in LOOKS or self._depth:
                with self._inside():
                    return call(*given, **named)
            paths = [str(one.relative_to(self._case.flash)) for one in given if isinstance(one, Path)]
            self.reach(" ".join([name, *paths]))
            self._refuse(name, given)
            with self._inside():
                return call(*given, **named)

        return counted

    def reach(self, label: str) -> None:
        """Count the begin of an effect; the process may end here.

        What is tried again is one effect, however often: that is a matter of moments.
        """
        if self.boundaries and label == self.boundaries[-1].label and not label.startswith("disk."):
            return
        os.write(self._journal, f"{label}\n".encode())
        new, losses = True, ()
        if self._order.study:
            visible = self._flash.visible(self._elsewhere)
            new = visible not in self._visible
            self._visible.add(visible)
            self._seen.add(self._flash.seen(self._elsewhere))
            losses = tuple(self._flash.losses(self._seen, self._elsewhere))
        self.boundaries.append(Boundary(label, new, losses))
        if not label.startswith("disk."):
            self._elsewhere += 1
        if self._reached == self._order.die_at:
            self._end()
        self._reached += 1

    def _end(self) -> None:
        order = self._order
        if order.during is not None:
            threading.Thread(target=self._die, args=[order.during], daemon=True).start()
            return
        if order.loss is None:
            self._flash.save(self._case.cache)
        else:
            self._case.cache.unlink(missing_ok=True)
            self._flash.strike(order.loss)
        self._die(0)

    def _die(self, seconds: float) -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    def _refuse(self, name: str, given: tuple[Any, ...]) -> None:
        part, _, method = name.partition(".")
        if part != "disk":
            return
        self._on_disk += 1
        refusal, number = self._order.refusal, self._on_disk - 1
        if refusal is None or number < refusal.at or (number > refusal.at and not refusal.lasting):
            return
        if number > refusal.at and refusal.number == errno.ENOSPC and method not in _TAKES_SPACE:
            return
        if method == "create":
            with self._inside():
                given[0].write_bytes(given[1][: len(given[1]) // 2])  # what fitted
        raise OSError(refusal.number, os.strerror(refusal.number))

    @contextmanager
    def _inside(self) -> Any:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def _audit(self, event: str, given: tuple[Any, ...]) -> None:
        if self._depth or (event not in OUTSIDE and event != "open"):
            return
        if event == "open" and (isinstance(given[0], int) or not given[2] & _WRITES):
            return  # a descriptor that is open already, or a look
        self.uncounted.append(f"{event} {given!r}")

    def close(self) -> None:
        """Count no more: what follows is the observer's."""
        self._depth += 1


class _Guarded:
    def __init__(self, name: str, part: Any, fuse: Fuse) -> None:
        self._name, self._part, self._fuse = name, part, fuse

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._part, attribute)
        return self._fuse.effect(f"{self._name}.{attribute}", value) if callable(value) else value
