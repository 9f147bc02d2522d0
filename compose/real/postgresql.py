"""A real PostgreSQL of our own, for tests and for ``make real``: a fresh cluster on loopback, ended by its pid.

    .venv/bin/python compose/real/postgresql.py run

Durable as in production (fsync stays on). PostgreSQL refuses to run as root, so as root it runs as the system user
``postgres``, with its files in a folder that this user can reach.
"""

import argparse
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psycopg
from psycopg import sql

from compose.real.owned_process import (
    OwnedProcess,
    ServerFailed,
    end_in_order_when_terminated,
    free_port,
    stay_until_interrupted,
)

DEBIAN = Path("/usr/lib/postgresql")
SUPERUSER = "bridge"

_SYSTEM_USER = "postgres"
_START_SECONDS = 30.0
_ATTEMPTS = 3


def binaries() -> Path:
    """The folder with ``initdb`` and ``postgres``: on PATH, or the newest of Debian's."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not versions:
        raise ServerFailed("PostgreSQL is missing: run `compose/real/install.sh`")
    return versions[-1].parent


@dataclass
class RealPostgresql:
    """One cluster; a context manager. ``folder`` None: a temporary one, removed by ``stop()``.

    A given folder is kept: the next start with it finds the same databases. ``max_connections`` bounds all clients.
    """

    folder: Path | None = None
    port: int = 0
    max_connections: int = 100
    _password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    _process: OwnedProcess | None = field(default=None, repr=False)
    _temporary: bool = field(default=False, repr=False)

    def start(self) -> str:
        """Make the cluster where it is missing, start it, wait until it answers; return ``url()``."""
        bin_folder = binaries()
        if self.folder is None:
            self.folder, self._temporary = Path(tempfile.mkdtemp(prefix="iot-bridge-postgresql-")), True
        try:
            self._prepare_folder(self.folder)
            self._make_cluster(bin_folder, self.folder)
            self._start(bin_folder, self.folder)
        except BaseException:
            self.stop()
            raise
        return self.url()

    def stop(self) -> None:
        """End the server (open sessions are cut), and remove a temporary folder."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()
        if self._temporary and self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder, self._temporary = None, False

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy's URL of a database of this cluster. Holds the cluster's own random password."""
        return f"postgresql+psycopg://{SUPERUSER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str | None = None) -> str:
        """Make an empty database (a random name by default) and return its URL."""
        name = name or f"test_{secrets.token_hex(8)}"
        with self._connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database that ``create_database`` made, cutting its sessions."""
        name = url.rpartition("/")[2]
        with self._connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._process is None:
            raise ServerFailed("PostgreSQL is not started")
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        conninfo = self.url().replace("+psycopg", "", 1)
        return psycopg.connect(conninfo, autocommit=True, connect_timeout=5)

    def _prepare_folder(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        user = _system_user()
        if user is None:
            return
        for above in folder.resolve().parents:
            if not above.stat().st_mode & stat.S_IXOTH:
                raise ServerFailed(
                    f"PostgreSQL runs as the user {user}, who cannot enter {above}: choose another folder, or none"
                )
        shutil.chown(folder, user, user)

    def _make_cluster(self, bin_folder: Path, folder: Path) -> None:
        """initdb, once; the password is kept beside the cluster, readable to its owner only."""
        secret, data = folder / "password", folder / "data"
        if (data / "PG_VERSION").exists():
            self._password = secret.read_text().strip()
            return
        user = _system_user()
        descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(self._password)
        if user is not None:
            shutil.chown(secret, user, user)
        command: list[str | Path] = [
            bin_folder / "initdb",
            "-D",
            data,
            "-U",
            SUPERUSER,
            f"--pwfile={secret}",
            "-A",
            "scram-sha-256",
        ]
        finished = subprocess.run(
            [*command, "-E", "UTF8", "--locale=C"],
            cwd=folder,
            user=user,
            group=user,
            extra_groups=None if user is None else (),
            capture_output=True,
            text=True,
            check=False,
        )
        if finished.returncode != 0:
            raise ServerFailed(f"initdb failed:\n{finished.stderr}")

    def _start(self, bin_folder: Path, folder: Path) -> None:
        fixed = self.port
        for attempt in range(1, _ATTEMPTS + 1):
            self.port = fixed or free_port()
            settings = {
                "listen_addresses": "127.0.0.1",
                "port": self.port,
                "unix_socket_directories": "",
                "max_connections": self.max_connections,
                "fsync": "on",
            }
            options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
            process = OwnedProcess(
                "PostgreSQL",
                [bin_folder / "postgres", "-D", folder / "data", *options],
                folder / "postgresql.log",
                folder,
                user=_system_user(),
                stop_signal=signal.SIGINT,  # PostgreSQL's fast shutdown; SIGTERM waits for clients
            )
            process.start()
            self._process = process
            try:
                process.wait_until(self._ready, _START_SECONDS)
            except ServerFailed:
                process.stop()
                if fixed or attempt == _ATTEMPTS or "Address already in use" not in process.output:
                    raise
            else:
                return

    def _ready(self) -> bool:
        try:
            with self._connect() as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


def _system_user() -> str | None:
    """Whom the server runs as: None for ourselves, ``postgres`` where we are root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(_SYSTEM_USER).pw_name
    except KeyError as error:
        raise ServerFailed("PostgreSQL's system user is missing: run `compose/real/install.sh`") from error


def main() -> int:
    """``run [FOLDER]`` until interrupted."""
    parser = argparse.ArgumentParser(description="A real PostgreSQL for tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run in the foreground until interrupted")
    run.add_argument("folder", type=Path, nargs="?", help="kept; a temporary one without it")
    run.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    try:
        with RealPostgresql(given.folder, given.port) as cluster:
            stay_until_interrupted(f"PostgreSQL: BRIDGE_DATABASE_URL={cluster.create_database()}")
    except ServerFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    end_in_order_when_terminated()
    sys.exit(main())
