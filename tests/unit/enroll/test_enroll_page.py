"""The status page over real sockets: what it tells, to whom, and what it survives."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from enroll.errors import BrokerError, ConfigurationError
from enroll.status import lastrun, page
from enroll.status.page import conversation
from enroll.tunnel import Completed, LinuxMachine

VOUCHER = "PROV-ABCD-EFGH"


class TunnelMachine(LinuxMachine):
    """A machine whose wg0 shook hands a minute ago."""

    def has_interface(self, name: str) -> bool:
        return name == "wg0"

    def run(self, arguments: Sequence[str], stdin: str = "") -> Completed:
        assert list(arguments) == ["wg", "show", "wg0", "dump"]
        peer = "\t".join(["P", "(none)", "192.0.2.1:1", "10.8.0.0/24", str(int(time.time()) - 60), "1", "1", "25"])
        return Completed(0, f"SECRETSECRET\tK\t1\toff\n{peer}\n", "")


class Server:
    def __init__(self, address: str, folder: Path, run_dir: Path | None) -> None:
        self.path = address.removeprefix("unix:")
        self._stop = threading.Event()
        arguments = (address, folder, run_dir)
        changes = {"machine": TunnelMachine(), "stop": self._stop}
        self._thread = threading.Thread(target=page.serve, args=arguments, kwargs=changes)
        self._thread.start()
        until(self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), self.connect():
            return True
        return False

    def close(self) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        try:
            connection.connect(self.path)
        except OSError:
            connection.close()
            raise
        return connection

    def say(self, request: bytes) -> bytes:
        with self.connect() as connection:
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(request)
            return received(connection)

    def get(self, *headers: str, target: str = "/") -> tuple[int, str, bytes]:
        head, _, body = self.say("\r\n".join([f"GET {target} HTTP/1.1", *headers, "", ""]).encode()).partition(
            b"\r\n\r\n"
        )
        kind = next(line for line in head.decode().split("\r\n") if line.startswith("Content-Type"))
        return int(head.split()[1]), kind.partition(": ")[2], body


def received(connection: socket.socket) -> bytes:
    content = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            content += piece
    return content


def until(there: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not there():
        assert time.monotonic() < ends
        threading.Event().wait(0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "certs").mkdir()
    (tmp_path / "run").mkdir()
    return tmp_path / "certs"


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[[], Server]]:
    servers: list[Server] = []

    def begin() -> Server:
        servers.append(Server(f"unix:{folder.parent}/s", folder, folder.parent / "run"))
        return servers[-1]

    yield begin
    for server in servers:
        server.close()
        assert not Path(server.path).exists()


def test_an_empty_folder_is_told_as_text_and_as_json(start: Any, folder: Path) -> None:
    server = start()
    assert stat.S_IMODE(Path(server.path).stat().st_mode) == 0o660
    status, kind, body = server.get()
    assert (status, kind) == (200, "text/plain; charset=utf-8")
    assert b"not enrolled" in body
    assert b"tunnel wg0: last handshake 6" in body
    lastrun.write(folder.parent / "run", datetime(2026, 1, 1, tzinfo=UTC), BrokerError("mq: no"))
    until(lambda: b"mq: no" in server.get()[2])  # the page is made anew once a second
    status, kind, body = server.get("Accept: application/json")
    told = json.loads(body)
    assert (status, kind, told["enrolled"]) == (200, "application/json", False)
    assert told["last_run"] == {"at": "2026-01-01T00:00:00Z", "exit_code": 75, "code": "broker", "why": "mq: no"}
    assert told["tunnel"]["up"] is True
    assert 60 <= told["tunnel"]["handshake_age"] < 120


def test_an_enrolled_device_tells_its_dates_and_no_secret(device: Any, tmp_path: Path) -> None:
    device.run(voucher=VOUCHER)
    lastrun.write(tmp_path, datetime(2026, 1, 1, tzinfo=UTC), None)
    server = Server(f"unix:{tmp_path}/s", device.folder, tmp_path)
    try:
        texts = [server.get()[2], server.get("Accept: application/json")[2], server.get(target="/device.key")[2]]
        told = json.loads(texts[1])
    finally:
        server.close()
    assert told["enrolled"] is True
    assert {"not_before", "not_after", "renew_after", "renewal", "last_run", "tunnel"} <= set(told)
    secrets = [VOUCHER.encode(), b"SECRETSECRET", b"PRIVATE KEY", (device.folder / "wg.key").read_bytes().strip()]
    for name in ("device.key",):
        lines = (device.folder / name).read_bytes().split(b"\n")
        secrets += [line for line in lines if len(line) > 20 and not line.startswith(b"-----")]
        secrets.append(
            base64.b64decode(b"".join(line for line in lines if not line.startswith(b"-----"))).hex().encode()
        )
    for text in texts:
        assert not [secret for secret in secrets if secret in text]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"DELETE / HTTP/1.1\r\n\r\n", 405),
        (b"GET /etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"GET http://x/ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 9000, 431),
        (b"x" * 100_000, 431),
        (b"GET /?a=b HTTP/1.1\r\n\r\n", 200),
        (b"HEAD / HTTP/1.0\r\n\r\n", 200),
    ],
)
def test_requests(start: Any, request_: bytes, status: int) -> None:
    server = start()
    answer = server.say(request_)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert (b"\r\n\r\n" in answer) is True
    assert not request_.startswith(b"HEAD") or answer.endswith(b"\r\n\r\n")
    assert server.get()[0] == 200


def test_what_says_nothing_or_too_slowly_is_left(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "_SECONDS", 0.5)
    server = start()
    with server.connect() as silent, server.connect() as slow, server.connect() as gone:
        slow.sendall(b"G")
        gone.sendall(b"GET / HTTP/1.1\r\n\r\n")
        gone.close()
        assert server.get()[0] == 200
        assert received(silent) == received(slow) == b""


def test_many_at_once_are_served_one_after_the_other(start: Any) -> None:
    server = start()
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.append(server.get()[0])) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == [200] * 20


def test_rubbish_in_the_folder_is_told_and_survived(start: Any, folder: Path) -> None:
    for name in ("enrolled", "device.crt", "device.key", "root.crt", "ca-chain.crt"):
        (folder / name).write_bytes(os.urandom(2000))
    (folder.parent / "run" / lastrun.NAME).write_bytes(os.urandom(100))
    server = start()
    assert b"not enrolled" in server.get()[2]


def test_a_folder_in_the_flags_place_is_told_and_survived(start: Any, folder: Path) -> None:
    (folder / "enrolled").mkdir()
    server = start()
    assert server.get()[0] == 200


def test_an_error_of_our_own_is_an_answer(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_run_dir: Path | None) -> None:
        raise RuntimeError("never shown")

    server = start()
    monkeypatch.setattr(lastrun, "read", fail)
    status, _, body = server.get()
    assert (status, body) == (500, b"Internal Server Error\n")
    monkeypatch.undo()
    assert server.get()[0] == 200


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:8081", "192.0.2.1:80", "[::]:80", "example.com:80", "127.0.0.1", ":8081", "", "unix:", "unix:relative",
     "unix:/" + "x" * 200, "unix:/nonexistent/folder/s", "tcp:127.0.0.1:80"],
)  # fmt: skip
def test_other_addresses_are_refused(address: str, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="--serve"):
        page.serve(address, folder, None, stop=threading.Event())


def test_a_stale_socket_is_replaced_and_a_live_one_or_a_file_is_not(start: Any, folder: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder.parent / "s"))
    server = start()
    with pytest.raises(ConfigurationError, match="another process answers"):
        page.serve(f"unix:{server.path}", folder, None, stop=threading.Event())
    assert server.get()[0] == 200
    precious = tmp_path / "precious"
    precious.write_text("x")
    with pytest.raises(ConfigurationError, match="is no socket"):
        page.serve(f"unix:{precious}", folder, None, stop=threading.Event())
    assert precious.read_text() == "x"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_over_tcp_only_this_machine_by_its_own_name(folder: Path, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match="cannot be had"):
            page.serve(f"{host}:{port}", folder, None, stop=threading.Event())
    stop = threading.Event()
    thread = threading.Thread(
        target=page.serve, args=(f"{host}:{port}", folder, None), kwargs={"stop": stop, "machine": TunnelMachine()}
    )
    thread.start()
    try:

        def ask(named: str) -> bytes:
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                connection.sendall(f"GET / HTTP/1.1\r\nHost: {named}\r\n\r\n".encode())
                return received(connection).split(b"\r\n")[0]

        def up() -> bool:
            with contextlib.suppress(OSError):
                return ask("localhost") == b"HTTP/1.1 200 OK"
            return False

        until(up)
        for named in (f"127.0.0.1:{port}", "localhost", f"[::1]:{port}", "[::1]", "LOCALHOST"):
            assert ask(named) == b"HTTP/1.1 200 OK"
        for named in ("evil.example", f"evil.example:{port}", "", "127.0.0.1.evil.example", "a b"):
            assert ask(named) == b"HTTP/1.1 421 Misdirected Request"
    finally:
        stop.set()
        thread.join(20)


def test_a_process_that_is_told_to_end_takes_its_socket_away(folder: Path) -> None:
    path = folder.parent / "s"
    served = f"'unix:{path}', pathlib.Path({str(folder)!r}), None"
    code = f"import pathlib; from enroll.status import page; page.serve({served})"
    process = subprocess.Popen([sys.executable, "-c", code])

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return connection.recv(4) == b"HTTP"
        return False

    try:
        until(answers)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not path.exists()


def test_nothing_slow_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys, enroll.status.page;"
        "print(sorted({'asyncio', 'httpx', 'cryptography', 'subprocess', 'ssl', 'http.server'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == "[]"


@given(st.lists(st.one_of(st.binary(max_size=60), st.just(b"\r\n"), st.just(b"GET / HTTP/1.1\r\n")), max_size=8))
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_get_an_answer_or_none_and_the_server_lives(start: Any, pieces: list[bytes]) -> None:
    if not hasattr(start, "server"):
        start.server = start()
    with start.server.connect() as connection:
        connection.sendall(b"".join(pieces))
        connection.shutdown(socket.SHUT_WR)
        answer = received(connection)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
