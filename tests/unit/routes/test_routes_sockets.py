"""Over real sockets, as devices come: octets that no well-behaved client would send, and clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import uvicorn


class Announced(uvicorn.Server):
    """Says when it listens, and leaves the process's signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


@pytest.fixture
async def port(open_house: Any) -> AsyncIterator[int]:
    """The application under uvicorn on a free port of loopback."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(open_house.app, log_level="critical", lifespan="off", access_log=False)
        server = Announced(config)
        running = asyncio.create_task(server.serve(sockets=[listening]))
        await server.listens.wait()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await running


async def exchange(port: int, octets: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send raw octets, return status, headers and body of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(octets)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, body
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def request(target: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {target} HTTP/1.1", "Host: bridge.test", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def test_a_device_enrolls_and_asks_again_over_one_connection(
    port: int, new_csr: Callable[..., str], new_wg_key: Callable[[], str]
) -> None:
    body = {"csr_pem": new_csr("pump-7"), "wg_public_key": new_wg_key()}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        first = await client.post("/devices/pump-7/enroll", json=body)
        again = await client.post("/devices/pump-7/enroll", json=body)

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["cert"] == again.json()["cert"]


async def test_the_c_client_over_a_socket(port: int, new_csr: Callable[..., str]) -> None:
    csr = new_csr("freertos-1").replace("\n", "\\n")
    body = f'{{"device_id":"freertos-1","device_type":"freertos-posix","csr":"{csr}"}}'.encode()
    status, headers, answer = await exchange(port, request("/api/v1/enroll", body, "Content-Type: application/json"))

    assert status == 200
    assert headers["content-type"] == "application/json"
    assert b'"certificate":"-----BEGIN CERTIFICATE-----\\n' in answer


@pytest.mark.parametrize(
    "target",
    [
        "/devices/../enroll",
        "/devices/./enroll",
        "/devices/../../etc/passwd/enroll",
        "/devices//enroll",
        "/devices/a/b/enroll",
        "/devices/a%2Fb/enroll",
        "/devices/a%2fb/enroll",
        "/devices/%2e%2e/enroll",
        "/devices/a%00b/enroll",
        "/devices/a%0d%0ab/enroll",
        "/devices/%ff%fe/enroll",
        "/devices/a%20b/enroll",
        "/devices/a%zzb/enroll",
        "/devices/%C3%A4/enroll",
        "/devices/" + "a" * 65 + "/enroll",
        "/api/devices/../enroll",
    ],
)
async def test_targets_that_no_client_would_send(port: int, target: str) -> None:
    status, headers, body = await exchange(port, request(target, b"{}"))

    assert (status, json.loads(body)["code"]) == (422, "bad_device_id")
    assert headers["content-type"] == "application/problem+json"


async def test_an_endless_body_is_answered_and_cut_off(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /devices/pump-7/enroll HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    writer.write((b"1000\r\n" + b"x" * 4096 + b"\r\n") * 9)
    answer = await asyncio.wait_for(reader.read(), 10)  # to the end: the server closes
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()


async def test_a_length_over_the_limit_is_refused_before_the_body_is_sent(port: int) -> None:
    head = b"POST /v1/enroll HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
    status, _, body = await exchange(port, head)

    assert (status, json.loads(body)["code"]) == (413, "too_large")


async def test_a_client_that_hangs_up_in_the_middle_of_its_body_harms_nobody(
    port: int, open_house: Any, new_csr: Callable[..., str]
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /devices/pump-7/enroll HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    await writer.drain()
    while open_house.counted("iot_bridge_enrollments_total", outcome="client_gone") == 0:
        writer.close()
        await asyncio.sleep(0.01)

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        answer = await client.post("/devices/pump-7/enroll", json={"csr_pem": new_csr("pump-7")})
    assert answer.status_code == 201


async def test_two_keys_race_for_one_id(port: int, new_csr: Callable[..., str]) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        bodies = [{"csr_pem": new_csr("pump-7")} for _ in range(8)]
        answers = await asyncio.gather(*(client.post("/devices/pump-7/enroll", json=body) for body in bodies))

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {
        "in_progress",
        "identity_exists",
    }


async def test_one_key_eight_times_at_once_is_one_certificate(
    port: int, open_house: Any, new_csr: Callable[..., str]
) -> None:
    body = {"csr_pem": new_csr("pump-7")}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        answers = await asyncio.gather(*(client.post("/devices/pump-7/enroll", json=body) for _ in range(8)))

    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["cert"] for answer in answers}) == 1
    assert open_house.ca.signed == 1
