"""Reading back what this agent has written: sections of ``Key = value`` lines.

Responsible for taking nothing but the sections and keys it is told, each once. Not for what the values mean.
"""

from __future__ import annotations

from collections.abc import Mapping


def read(text: str, known: Mapping[str, frozenset[str]]) -> dict[str, dict[str, str]]:
    """Return the values by section and key; blank lines and lines that begin with ``#`` are passed over.

    :raises ValueError: a line that is no part of that, or a section or key that is unknown or there twice.
    """
    found: dict[str, dict[str, str]] = {}
    section = ""
    for line in text.split("\n"):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            if section in found or section not in known:
                raise ValueError("a section is unknown, or there twice")
            found[section] = {}
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or key not in known.get(section, ()) or key in found[section]:
            raise ValueError("a line is unknown, or there twice")
        found[section][key] = value
    return found
