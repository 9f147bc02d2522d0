"""Texts that strangers wrote, made fit to be shown: in a message, a log, a terminal.

Responsible for one line, nothing but printable characters, and an end. Not responsible for what a text means.
"""

from __future__ import annotations


def printable(text: str, limit: int = 400) -> str:
    """Return a stranger's text fit for a terminal: one line, no control characters, bounded."""
    flat = "".join(c if c.isprintable() else " " for c in text[: limit + 1])
    return flat if len(flat) <= limit else f"{flat[:limit]}…"
