"""The whole embedded server in this process: ready file, the same again, locks, a clean end."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import ssl
from pathlib import Path

import httpx
import pytest

from bridge.app.server import HttpServer, listen
from bridge.app.serving import Serving, running, serve
from bridge.config import load
from bridge.errors import Misconfigured

KEYS = {"url", "root_sha256", "mqtt_host", "mqtt_port", "thingsboard_url", "hawkbit_url", "data"}


async def test_server_is_ready_when_its_file_says_so_ends_on_sigterm_and_is_the_same_again(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    roots = []
    for _ in range(2):
        ready.write_text("of a server that was killed")
        task = asyncio.create_task(serve(load({}, bridge_data=tmp_path / "data"), Serving(port=0, ready_file=ready)))
        async with asyncio.timeout(60):
            while not ready.exists() or not ready.read_text().startswith("{"):
                assert not task.done(), task
                await asyncio.sleep(0.02)
        said = json.loads(ready.read_text())
        assert set(said) == KEYS
        assert said == json.loads((tmp_path / "data" / "run.json").read_text())
        assert ready.stat().st_mode & 0o777 == 0o600
        roots.append(said["root_sha256"])
        await _asked_over_tls(said)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, 30)
        assert not ready.exists()
        assert not (tmp_path / "data" / "run.json").exists()
    assert roots[0] == roots[1]
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


async def _asked_over_tls(said: dict[str, str]) -> None:
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.load_verify_locations(Path(said["data"], "embedded", "ca", "pki", "root.pem"))
    async with httpx.AsyncClient(verify=trust) as client:
        assert (await client.get(f"{said['url']}/readyz")).status_code == 200
        root = (await client.get(f"{said['url']}/root/{said['root_sha256']}")).json()["ca"]
    assert hashlib.sha256(ssl.PEM_cert_to_DER_cert(root)).hexdigest() == said["root_sha256"]


async def test_second_server_on_the_same_folder_is_refused_and_leaves_the_first_alone(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    settings = load({}, bridge_data=tmp_path / "data")
    async with running(settings, Serving(port=0, ready_file=ready)):
        with pytest.raises(Misconfigured, match="another process"):
            async with running(settings, Serving(port=0, ready_file=ready)):
                pass
        assert ready.exists()


@pytest.mark.parametrize("ready", ["missing/ready.json", "."])
async def test_ready_file_that_cannot_be_written_is_told(tmp_path: Path, ready: str) -> None:
    with pytest.raises(Misconfigured, match="--ready-file"):
        async with running(load({}, bridge_data=tmp_path / "data"), Serving(port=0, ready_file=tmp_path / ready)):
            pass


def test_port_that_is_taken_is_told() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(Misconfigured, match=f"127.0.0.1:{port}"):
            listen("127.0.0.1", port)


def test_connections_inherit_no_delay() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert client


async def test_server_ends_without_waiting_for_idle_connections() -> None:
    async def app(scope, receive, send):  # noqa: ANN001, ANN202 - ASGI's own shapes
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    server = HttpServer(app, None)
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await server.listening.wait()
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 204
            _, idle = await asyncio.open_connection("127.0.0.1", port)
            server.end()
            await asyncio.wait_for(task, 3)
            idle.close()
