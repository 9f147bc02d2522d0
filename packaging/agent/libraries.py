"""The pure Python libraries that the agent carries along: exactly those of requirements.lock, hashes checked by pip.

Responsible for a folder of them below build/, made once per lock. cryptography is not among them: it is compiled, and
a device has it from its system.

    .venv/bin/python packaging/agent/libraries.py     # installs them, so that later builds need no network
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
CARRIED = ("paho-mqtt", "pyjwt")

_PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==\S+ \\\n(?: +--hash=\S+(?: \\)?\n)+")


class BuildFailed(Exception):
    """The build cannot go on; the text says what to do."""


def requirements(lock: str) -> str:
    """Return the lines of a lock file that name the carried libraries, with their hashes.

    Raises:
        BuildFailed: one is missing.

    """
    found = {match["name"]: match[0] for match in _REQUIREMENT.finditer(lock)}
    if missing := [name for name in CARRIED if name not in found]:
        raise BuildFailed(f"requirements.lock pins no {', '.join(missing)}; run `make lock`")
    return "".join(found[name] for name in CARRIED)


def installed(build: Path) -> Path:
    """Return the folder that holds them, installing it below `build` where this lock's is not there yet.

    Raises:
        BuildFailed: pip could not, for want of a network or because a hash differs.

    """
    wanted = requirements((PROJECT / "requirements.lock").read_text(encoding="utf-8"))
    folder = build / f"agent-libraries-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    build.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build, prefix="agent-libraries-new-") as scratch:
        lines, target = Path(scratch, "requirements.txt"), Path(scratch, "libraries")
        lines.write_text(wanted, encoding="utf-8")
        options = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--no-compile", "--target", str(target))
        finished = subprocess.run([*_PIP, *options, "-r", str(lines)], capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            raise BuildFailed(f"pip cannot install {' and '.join(CARRIED)}:\n{finished.stderr.strip()}")
        if compiled := [path.name for path in target.rglob("*.so")]:
            raise BuildFailed(f"{', '.join(compiled)} is compiled; the agent carries pure Python only")
        try:
            target.rename(folder)
        except OSError:  # another build was quicker
            shutil.rmtree(target)
    return folder


def modules(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files that belong into the archive: name there, and where each lies.

    Left out: what only tools read, and three modules that nothing which is left imports.
    """
    unneeded = {"paho/mqtt/publish.py", "paho/mqtt/subscribe.py", "jwt/help.py"}
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        if name not in unneeded:
            yield name, path


def licences(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the libraries' licences likewise. Eclipse's are two to choose from; ours is the distribution licence."""
    for path in sorted(folder.glob("*.dist-info/licenses/*")):
        if path.name not in {"epl-v20", "CONTRIBUTING.md"}:
            yield f"licences/{path.parts[-3].split('-')[0]}/{path.name}", path


if __name__ == "__main__":
    try:
        installed(PROJECT / "build")
    except BuildFailed as e:
        sys.exit(str(e))
