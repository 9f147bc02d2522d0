"""The agent as one file that any Python 3.11 or newer runs: `build/iot-enroll.pyz`.

    .venv/bin/python packaging/agent/build_zipapp.py [--output FILE] [--no-bytecode]

Responsible for its content and for building the same bytes from the same sources: names sorted, one date, one mode.
Beside each source lies its byte code for the Python that builds, so that a start compiles nothing; another minor
version finds a foreign magic number there and takes the source.

The date is SOURCE_DATE_EPOCH, or that of the last commit.
"""

import argparse
import hashlib
import importlib.util
import io
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.util import MAGIC_NUMBER
from pathlib import Path

from libraries import PROJECT, BuildFailed, installed, licences, modules
from stamp import stamped

OUTPUT = PROJECT / "build" / "iot-enroll.pyz"
INTERPRETER = b"#!/usr/bin/python3 -I\n"
"""Isolated: no PYTHONPATH and no user's folder may add to what runs as root."""
MAIN = b"import sys\n\nfrom enroll.cli import main\n\nsys.exit(main())\n"

_EARLIEST = datetime(1980, 1, 1, tzinfo=UTC)  # what a zip archive can say
_FILE = 0o100644 << 16


def date_of_build() -> datetime:
    """Return SOURCE_DATE_EPOCH, else the date of the last commit.

    Raises:
        BuildFailed: there is neither.

    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch:
        told = subprocess.run(
            ["git", "log", "-1", "--format=%ct"], cwd=PROJECT, capture_output=True, text=True, check=False
        )
        epoch = told.stdout.strip()
    if not epoch.isdecimal():
        raise BuildFailed("set SOURCE_DATE_EPOCH, the date of this build in seconds: there is no git history to ask")
    return datetime.fromtimestamp(int(epoch), UTC)


def sources(build: Path, moment: datetime) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of everything but byte code."""
    yield "__main__.py", MAIN
    yield f"iot_bridge-{version()}.dist-info/METADATA", metadata(version())
    yield "licences/iot-enroll/LICENSE", (PROJECT / "LICENSE").read_bytes()
    for path in sorted((PROJECT / "enroll").rglob("*.py")):
        content = path.read_bytes()
        name = path.relative_to(PROJECT).as_posix()
        if name == "enroll/built.py":
            content = stamped(content.decode(), moment).encode()
        yield name, content
    folder = installed(build)
    for name, path in (*modules(folder), *licences(folder)):
        yield name, path.read_bytes()


def version() -> str:
    """Return the project's version."""
    with (PROJECT / "pyproject.toml").open("rb") as file:
        text: str = tomllib.load(file)["project"]["version"]
        return text


def metadata(number: str) -> bytes:
    """Return what `importlib.metadata` asks for, so that the agent can tell its version."""
    return f"Metadata-Version: 2.1\nName: iot-bridge\nVersion: {number}\n".encode()


def byte_code(name: str, source: bytes) -> bytes:
    """Return the content of a .pyc that is never compared with its source (PEP 552)."""
    import marshal  # noqa: PLC0415 - the only place, and its name says what format this is

    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    return MAGIC_NUMBER + (0b01).to_bytes(4, "little") + importlib.util.source_hash(source) + marshal.dumps(code)


def archive(files: Iterator[tuple[str, bytes]], moment: datetime, *, bytecode: bool) -> bytes:
    """Return the whole zipapp."""
    content = dict(files)
    if bytecode:
        content |= {
            re.sub(r"\.py$", ".pyc", name): byte_code(name, source)
            for name, source in sorted(content.items())
            if name.endswith(".py")
        }
    stream = io.BytesIO()
    stream.write(INTERPRETER)
    date = max(moment, _EARLIEST).timetuple()[:6]
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
        for name, data in sorted(content.items()):
            entry = zipfile.ZipInfo(name, date)
            entry.external_attr = _FILE
            entry.create_system = 3
            entry.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(entry, data)
    return stream.getvalue()


def main() -> int:
    """Build; print size and digest; return the exit code."""
    parser = argparse.ArgumentParser(description="The agent as one file.")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--no-bytecode", action="store_true", help="sources only; to measure what byte code saves")
    chosen = parser.parse_args()
    try:
        moment = date_of_build()
        made = archive(sources(PROJECT / "build", moment), moment, bytecode=not chosen.no_bytecode)
    except BuildFailed as e:
        print(e, file=sys.stderr)
        return 1
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_bytes(made)
    chosen.output.chmod(0o755)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    built = f"byte code for Python {python}" if not chosen.no_bytecode else "sources only"
    print(f"{chosen.output}: {len(made):,} bytes, {built}, dated {moment:%Y-%m-%d}")
    print(f"sha256 {hashlib.sha256(made).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
