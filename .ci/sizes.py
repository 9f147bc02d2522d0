"""Print how long the product's files and functions are; exit 1 where one is over the limit."""

import ast
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("bridge", "enroll", "ca", "thingsboard", "hawkbit", "wireguard")
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 50


@dataclass(frozen=True, order=True)
class Length:
    """Lines of a file, or of a function without its decorators and docstring."""

    lines: int
    where: str


def files(project: Path = PROJECT) -> list[Length]:
    """Return the length of every product file that is not empty."""
    return sorted(
        Length(len(path.read_text(encoding="utf-8").splitlines()), str(path.relative_to(project)))
        for path in sources(project)
        if path.stat().st_size
    )


def functions(project: Path = PROJECT) -> list[Length]:
    """Return the length of every function of the product."""
    return sorted(
        Length(_lines(node), f"{path.relative_to(project)}:{node.lineno} {node.name}")
        for path in sources(project)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def sources(project: Path = PROJECT) -> Iterator[Path]:
    """Yield the product's Python files, migrations left out: they are written once and never read as a whole."""
    for package in PACKAGES:
        for path in sorted((project / package).rglob("*.py")):
            if "versions" not in path.parts:
                yield path


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    documented = ast.get_docstring(node, clean=False) is not None
    text = first.end_lineno - first.lineno + 1 if documented and first.end_lineno else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - text


def main() -> int:
    """Print both distributions."""
    good = True
    for name, found, most in (
        ("files", files(), MOST_LINES_OF_A_FILE),
        ("functions", functions(), MOST_LINES_OF_A_FUNCTION),
    ):
        lines = [one.lines for one in found]
        p90 = statistics.quantiles(lines, n=10)[-1]
        longest = found[-1]
        print(
            f"{name}: {len(found)}, median {statistics.median(lines):.0f} lines, p90 {p90:.0f},"
            f" longest {longest.lines} ({longest.where}), limit {most}"
        )
        for one in found:
            if one.lines > most:
                good = False
                print(f"  TOO LONG: {one.where}, {one.lines} lines")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
