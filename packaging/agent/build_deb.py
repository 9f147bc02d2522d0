"""The agent as a Debian package: `build/iot-enroll_VERSION_all.deb`, of the zipapp that was built before.

    .venv/bin/python packaging/agent/build_deb.py [--zipapp FILE] [--output FOLDER]

Responsible for the tree, its modes and the control files; `dpkg-deb` packs it. The date is that of the zipapp's
entries, so that the same zipapp gives the same package.
"""

import argparse
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from libraries import PROJECT, BuildFailed

BUILD = PROJECT / "build"
PACKAGING = PROJECT / "packaging"
NAME = "iot-enroll"
UNITS = ("iot-enroll.service", "iot-enroll.timer", "iot-enroll-retry.timer", "iot-enroll-status.service")
CONFFILE = "/etc/iot-enroll.conf"
CONTROL = """\
Package: iot-enroll
Version: {version}
Section: admin
Priority: optional
Architecture: all
Depends: python3 (>= 3.11), python3-cryptography (>= 38)
Recommends: wireguard-tools
Suggests: openssl, tpm2-openssl, tpm2-abrmd
Installed-Size: {size}
Maintainer: the authors of iot-bridge <iot-bridge@localhost>
Description: gives this device its identity at first boot
 The device makes its keys, asks the bridge for a certificate, checks the answer
 against a pinned root, connects to its MQTT broker over mutual TLS and raises
 its WireGuard tunnel. Whatever fails is tried again, by systemd timers, with
 the same keys; the certificate is renewed before it ends.
"""


@dataclass
class Tree:
    """A package's files while they are put together below `root`."""

    root: Path
    size: int = field(default=0)

    def add(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file; its folders are 0755."""
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        self.size += len(content)

    def link(self, name: str, target: str) -> None:
        """Write a symbolic link."""
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)


def version() -> str:
    """Return the project's version, as Debian writes it."""
    with (PROJECT / "pyproject.toml").open("rb") as file:
        text: str = tomllib.load(file)["project"]["version"]
    return re.sub(r"(a|b|rc|\.dev)(?=\d)", r"~\1", text)


def fill(tree: Tree, zipapp: Path, moment: datetime) -> None:
    """Put the package's files into the tree, control files last, for they tell its size."""
    tree.add("/usr/lib/iot-enroll/iot-enroll.pyz", zipapp.read_bytes(), 0o755)
    tree.link("/usr/bin/iot-enroll", "../lib/iot-enroll/iot-enroll.pyz")
    tree.add("/usr/lib/iot-enroll/after-run", (PACKAGING / "systemd" / "after-run").read_bytes(), 0o755)
    for unit in UNITS:
        tree.add(f"/usr/lib/systemd/system/{unit}", (PACKAGING / "systemd" / unit).read_bytes())
    tree.add(CONFFILE, (PACKAGING / "iot-enroll.conf").read_bytes(), 0o600)  # a voucher may come to stand in it
    documents = "/usr/share/doc/iot-enroll"
    tree.add(f"{documents}/copyright", (PACKAGING / "debian" / "copyright").read_bytes())
    tree.add(f"{documents}/device.md", (PROJECT / "docs" / "device.md").read_bytes())
    told = f"{NAME} ({version()}) unstable; urgency=medium\n\n  * See the project's CHANGELOG.md.\n\n"
    told += f" -- the authors of iot-bridge <iot-bridge@localhost>  {moment:%a, %d %b %Y %H:%M:%S} +0000\n"
    tree.add(f"{documents}/changelog.gz", gzip.compress(told.encode(), 9, mtime=0))
    size = tree.size // 1024 + 1
    tree.add("/DEBIAN/control", CONTROL.format(version=version(), size=size).encode())
    tree.add("/DEBIAN/conffiles", f"{CONFFILE}\n".encode())
    for script in ("postinst", "prerm", "postrm"):
        tree.add(f"/DEBIAN/{script}", (PACKAGING / "debian" / script).read_bytes(), 0o755)


def built(zipapp: Path, output: Path) -> Path:
    """Build the package and return it.

    Raises:
        BuildFailed: there is no zipapp or no `dpkg-deb`, or it refused.

    """
    if not zipapp.exists():
        raise BuildFailed(f"{zipapp} is missing; run `make agent`")
    if shutil.which("dpkg-deb") is None:
        raise BuildFailed("dpkg-deb is missing; install the package dpkg")
    with zipfile.ZipFile(zipapp) as archive:
        moment = datetime(*archive.getinfo("__main__.py").date_time, tzinfo=UTC)
    output.mkdir(parents=True, exist_ok=True)
    package = output / f"{NAME}_{version()}_all.deb"
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "root")
        root.mkdir(mode=0o755)
        tree = Tree(root)
        before = os.umask(0o022)
        try:
            fill(tree, zipapp, moment)
        finally:
            os.umask(before)
        command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(package)]
        environment = os.environ | {"SOURCE_DATE_EPOCH": str(int(moment.timestamp()))}
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise BuildFailed(f"dpkg-deb failed:\n{finished.stderr.strip()}")
    return package


def main() -> int:
    """Build; print the size; return the exit code."""
    parser = argparse.ArgumentParser(description="The agent as a Debian package.")
    parser.add_argument("--zipapp", type=Path, default=BUILD / "iot-enroll.pyz")
    parser.add_argument("--output", type=Path, default=BUILD)
    chosen = parser.parse_args()
    try:
        package = built(chosen.zipapp, chosen.output)
    except BuildFailed as e:
        print(e, file=sys.stderr)
        return 1
    print(f"{package}: {package.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
