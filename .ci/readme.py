"""README.md's tables of variables, made of the program's own descriptions: ``readme.py --check`` or ``--write``."""

import sys
from pathlib import Path

from pydantic_core import PydanticUndefined

from bridge.config.settings import SECRETS, Settings
from enroll.config import VARIABLES

README = Path(__file__).resolve().parents[1] / "README.md"


def server_table() -> str:
    """Return the table of the server's variables, in the order of the settings."""
    rows = ["| variable | meaning | default |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        variable = f"`{name.upper()}`" + (" ¹" if name.upper() in SECRETS else "")
        rows.append(f"| {variable} | {field.description} | {_default(name)} |")
    return "\n".join(rows)


def agent_table() -> str:
    """Return the table of the agent's variables."""
    rows = ["| variable | meaning |", "|---|---|"]
    rows += [f"| `{name}` | {meaning} |" for name, meaning in VARIABLES.items()]
    return "\n".join(rows)


def _default(name: str) -> str:
    if name == "bridge_data":
        return "`$XDG_DATA_HOME/iot-bridge`"
    default = Settings.model_fields[name].default
    if default is None or default is PydanticUndefined or default == "":
        return ""
    if (seconds := getattr(default, "total_seconds", None)) is not None:
        whole = int(seconds())
        for unit, length in (("d", 86_400), ("h", 3_600)):
            if whole % length == 0:
                return f"`{whole // length}{unit}`"
        return f"`{whole}s`"
    return f"`{default}`"


def filled(text: str) -> str:
    """Return the text with both tables as they are today.

    :raises ValueError: a marker is missing.
    """
    for name, table in (("server", server_table()), ("agent", agent_table())):
        begin, end = f"<!-- {name} variables -->\n", f"<!-- end of {name} variables -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"README.md lacks the markers of the {name}'s variables")
        text = before + begin + table + "\n" + end + after
    return text


def main(argument: str) -> int:
    """Check or write README.md."""
    text = README.read_text(encoding="utf-8")
    wanted = filled(text)
    if argument == "--write":
        README.write_text(wanted, encoding="utf-8")
        return 0
    if text != wanted:
        print("README.md's configuration tables are old: .venv/bin/python .ci/readme.py --write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
