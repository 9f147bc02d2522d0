"""Say what this machine lacks for the real servers, all of it at once; exit 1 if anything does.

.venv/bin/python compose/real/check.py
"""

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LEAST_GO = (1, 21)
LEAST_JAVA = (17,)
PROGRAMS = {
    "mosquitto": "Mosquitto",
    "wireguard-go": "wireguard-go",
    "wg": "wireguard-tools",
    "wg-quick": "wireguard-tools",
    "ip": "iproute2",
    "ping": "iputils-ping",
    "openssl": "OpenSSL",
    "curl": "curl",
    "mvn": "Maven",
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "systemd-analyze": "systemd",
    "nsenter": "util-linux",
    "dpkg-deb": "dpkg",
    "swtpm": "swtpm",
    "tpm2_clear": "tpm2-tools",
    "tpm2-abrmd": "tpm2-abrmd",
    "dbus-daemon": "D-Bus",
    "softhsm2-util": "SoftHSM 2",
}
LIBRARIES = {
    "ossl-modules/tpm2.so": "tpm2-openssl",
    "libtss2-tcti-tabrmd.so.0": "the TPM library's way to tpm2-abrmd",
    "libtss2-tcti-swtpm.so.0": "the TPM library's way to swtpm",
    "dist-packages/cryptography": "cryptography of the system's own Python",
    "dist-packages/jwt": "PyJWT of the system's own Python",
    "libconfig.so.9": "libconfig, which swupdate reads its file with",
    "libglib-2.0.so.0": "GLib, which rauc-hawkbit-updater reads its file with",
}
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def missing() -> Iterator[str]:
    """Yield a line for everything that is missing."""
    if os.geteuid() != 0:
        yield "root (network namespaces, and PostgreSQL as its own user): run it with sudo"
    yield from missing_files()
    go, java = version("go", "version"), version("javac", "-version")
    if go < LEAST_GO:
        yield f"Go 1.21 or newer (step-ca is built with it); found {shown(go)}. Newer toolchains come by themselves"
    if java < LEAST_JAVA:
        yield f"a JDK, Java 17 or newer (hawkBit is built with it); found {shown(java)}"
    if not (shutil.which("initdb") or any(Path("/usr/lib/postgresql").glob("*/bin/initdb"))):
        yield "PostgreSQL's server (initdb)"
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        yield "the system user postgres (PostgreSQL refuses to run as root)"
    if not Path("/dev/net/tun").exists():
        yield "/dev/net/tun (wireguard-go): modprobe tun, or give the container the device"


def missing_files() -> Iterator[str]:
    """Yield a line for every program and library that is missing."""
    for program, name in PROGRAMS.items():
        if shutil.which(program, path=_PATH) is None:
            yield f"{name} ({program})"
    for library, name in LIBRARIES.items():
        if not any(Path("/usr/lib").glob(f"*/{library}")):
            yield f"{name} ({library})"


def version(*command: str) -> tuple[int, ...]:
    """Return the version that a program tells, empty where it is not there."""
    with contextlib.suppress(OSError):
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        if found := re.search(r"(\d+(?:\.\d+)+)", told.stdout + told.stderr):
            return tuple(map(int, found[1].split(".")))
    return ()


def shown(numbers: tuple[int, ...]) -> str:
    """Return a version for people."""
    return ".".join(map(str, numbers)) or "none"


def main() -> int:
    """Print the lines; return the exit code."""
    lines = list(missing())
    for line in lines:
        print(f"missing: {line}", file=sys.stderr)
    if lines:
        print("`bash compose/real/install.sh` as root brings what Debian and Ubuntu carry.", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
