"""What must not be written anywhere, or only in one place."""

import ast
import io
import re
import tokenize
from pathlib import Path

# Where a connection may be unverified: to fetch a root and compare its digest, and for nothing else.
UNVERIFIED = {"ca/bootstrap.py": 1, "enroll/network/transport.py": 1}
LEFT_UNDONE = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".sh", ".cfg", ""}
IGNORED = {".git", ".venv", ".real", "build", "dist", "__pycache__", ".hypothesis", "node_modules"}


def project_files(project: Path, suffixes: set[str]) -> list[Path]:
    return [
        path
        for path in project.rglob("*")
        if path.is_file()
        and path.suffix in suffixes
        and not any(part in IGNORED or part.endswith("_cache") for part in path.relative_to(project).parts)
    ]


def test_connections_are_unverified_in_one_function_per_package(product_files: list[Path], project: Path) -> None:
    found: dict[str, int] = {}
    for path in product_files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and turns_off(node):
                name = str(path.relative_to(project))
                found[name] = found.get(name, 0) + 1
    assert found == UNVERIFIED


def turns_off(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and node.attr in {"CERT_NONE", "_create_unverified_context"}:
            return True
        if isinstance(node, ast.keyword) and node.arg == "verify" and is_false(node.value):
            return True
        if isinstance(node, ast.Assign) and is_false(node.value):
            return any(isinstance(one, ast.Attribute) and one.attr == "check_hostname" for one in node.targets)
    return False


def is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def test_tests_verify_too(project: Path) -> None:
    banned = re.compile(r"verify\s*=\s*False|_create_unverified_context|CERT_NONE")
    others = [path for path in project_files(project / "tests", {".py"}) if path != Path(__file__)]
    assert [str(path) for path in others if banned.search(path.read_text())] == []


def test_nothing_is_left_undone(project: Path) -> None:
    found = [
        f"{path.relative_to(project)}:{number}"
        for path in project_files(project, TEXT)
        if path.stat().st_size < 1_000_000 and path.name != "requirements.lock"
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if LEFT_UNDONE.search(line)
    ]
    assert found == []


def test_no_test_sleeps(project: Path) -> None:
    """`asyncio.sleep` of a hundredth at most, inside a bounded wait, yields to the loop; `time.sleep` wastes time."""
    found = [
        f"{path.relative_to(project)}:{node.lineno}"
        for path in project_files(project / "tests", {".py"})
        if path.name.startswith("test_")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "sleep"}
    ]
    assert found == []


def test_no_test_is_skipped(project: Path) -> None:
    banned = {"pytest.skip", "pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail", "pytest.importorskip"}
    found = [
        f"{path.relative_to(project)}:{node.lineno}"
        for path in project_files(project / "tests", {".py"})
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in banned
    ]
    assert found == []


def test_every_silenced_lint_says_why(product_files: list[Path], project: Path) -> None:
    silent = re.compile(r"#\s*noqa(?::\s*(?P<codes>[A-Z0-9]+(?:,\s*[A-Z0-9]+)*))?(?P<reason>.*)")
    found = []
    for path in product_files:
        explained: set[str] = set()
        explanation = -1
        for comment in comments(path):
            if (match := silent.search(comment.string)) is None:
                explanation = comment.start[0]  # a comment on the line above is a reason too
                continue
            codes = set(re.split(r",\s*", match["codes"] or "")) - {""}
            if match["reason"].strip(" -") or explanation == comment.start[0] - 1:
                explained |= codes
            elif not codes or codes - explained:
                found.append(f"{path.relative_to(project)}:{comment.start[0]}")
    assert found == []


def comments(path: Path) -> list[tokenize.TokenInfo]:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return [token for token in tokens if token.type == tokenize.COMMENT]
