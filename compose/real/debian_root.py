"""A minimal Debian with systemd, Python and python3-cryptography, as a folder: what an image for a device is made of.

    .venv/bin/python compose/real/debian_root.py build

Responsible for one pristine root in `.real/debian-root`, made once by debootstrap (about a minute, 200 MB), from the
mirror that this machine's own apt uses and of the release that this machine runs. Needs root.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from compose.real.owned_process import ServerFailed

PROJECT = Path(__file__).resolve().parents[2]
OUTPUT = PROJECT / ".real" / "debian-root"
PACKAGES = ("systemd-sysv", "python3", "python3-cryptography", "wireguard-tools", "wireguard-go", "iproute2")

_SCRIPT = """
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
apt-get install -y -qq --no-install-recommends "$@"
apt-get clean
rm -rf /var/lib/apt/lists/* /usr/share/doc/* /usr/share/man/* /usr/share/locale/* /var/cache/debconf/*-old
"""


def build() -> Path:
    """Return the root, making it where it is missing or holds other packages than wanted. Safe beside other builders.

    Raises:
        ServerFailed: a program is missing or refused.

    """
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    release = codename()
    stamp, wanted = OUTPUT / ".built-of", f"{release} {' '.join(PACKAGES)}\n"
    with (OUTPUT.parent / "debian-root.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return OUTPUT
        if shutil.which("debootstrap", path=_path()) is None:
            raise ServerFailed("debootstrap is missing: run `compose/real/install.sh`")
        new = OUTPUT.with_name("debian-root.new")
        shutil.rmtree(new, ignore_errors=True)
        _run(["debootstrap", "--variant=minbase", release, str(new), mirror(release)])
        _run(["chroot", str(new), "sh", "-c", _SCRIPT, "sh", *PACKAGES])
        (new / ".built-of").write_text(wanted)
        shutil.rmtree(OUTPUT, ignore_errors=True)
        new.rename(OUTPUT)
    return OUTPUT


def codename() -> str:
    """Return this machine's release, as `bookworm`."""
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    named = dict(line.split("=", 1) for line in lines if "=" in line)
    return named.get("VERSION_CODENAME", "").strip('"')


def mirror(release: str) -> str:
    """Return where apt of this machine gets the release from.

    Raises:
        ServerFailed: apt is not there, or knows no such source.

    """
    told = _run(["apt-get", "indextargets", "--format", "$(CREATED_BY) $(COMPONENT) $(CODENAME) $(REPO_URI)"])
    for line in told.splitlines():
        kind, component, name, uri = line.split(maxsplit=3)
        if (kind, component, name) == ("Packages", "main", release):
            return uri
    raise ServerFailed(f"apt of this machine has no source of {release!r}; run `apt-get update`")


def _run(command: Sequence[str]) -> str:
    environment = os.environ | {"PATH": _path()}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except OSError as e:
        raise ServerFailed(f"cannot run {command[0]}: {e}; run `compose/real/install.sh`") from e
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ServerFailed(f"`{command[0]}` failed; are we root?\n{tail}")
    return done.stdout


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def main() -> int:
    """Build; return the exit code."""
    if sys.argv[1:] != ["build"]:
        print("usage: debian_root.py build", file=sys.stderr)
        return 2
    try:
        print(build())
    except ServerFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
