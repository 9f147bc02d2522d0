"""What a person sees: one line for each thing that was observed. Colours on a terminal, plain text elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from rich.console import Console
from rich.text import Text


class Untrue(Exception):
    """Something that had to be observed was not; the text says what was seen instead."""


@dataclass(slots=True)
class Screen:
    """Prints phases and their lines, and counts the lines that were true."""

    console: Console = field(default_factory=lambda: Console(highlight=False))
    began: float = field(default_factory=monotonic)
    lines: int = 0

    def title(self, text: str) -> None:
        """Print the headline."""
        self.console.print(Text(text, style="bold"))

    def phase(self, name: str, what: str) -> None:
        """Begin a phase."""
        self.console.print(Text.assemble((name, "bold cyan"), "  ", (what, "dim")), soft_wrap=True)

    def true(self, text: str) -> None:
        """Print a line that was observed, now."""
        self.lines += 1
        self._line(self._sign("✓", "ok"), "green", text)

    def remark(self, text: str) -> None:
        """Print a line that claims nothing: what could not be tried here, and why."""
        self._line("-", "yellow", text)

    def untrue(self, text: str) -> None:
        """Print what ended the demonstration."""
        self._line(self._sign("✗", "NO"), "bold red", text)

    def summary(self) -> None:
        """Print the closing line."""
        self.console.print(Text(f"{self.lines} of {self.lines} lines true, {monotonic() - self.began:.1f} s"))

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Show on a terminal that something takes a moment."""
        if self.console.is_terminal:
            with self.console.status(f"{what} …"):
                yield
        else:
            yield

    def _sign(self, drawn: str, written: str) -> str:
        return drawn if self.console.is_terminal and "utf" in self.console.encoding.lower() else written

    def _line(self, sign: str, style: str, text: str) -> None:
        self.console.print(Text.assemble("  ", (sign, style), f" {text}"), soft_wrap=True)
