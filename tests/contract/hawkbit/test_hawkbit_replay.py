"""Recorded exchanges of both versions against the stand-in (in sequence) and against the client (one by one)."""

import asyncio
import base64
import http.client
import json
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import pytest

from hawkbit.client import HawkbitClient
from hawkbit.errors import (
    HawkbitBusy,
    HawkbitError,
    HawkbitForbidden,
    HawkbitMisconfigured,
    HawkbitRefused,
    HawkbitUnauthorized,
    HawkbitUnreachable,
    QuotaExceeded,
    TargetExists,
    TargetMissing,
)
from hawkbit.models import Generation, ServerInfo, Target
from hawkbit.standin import EmbeddedHawkbit
from hawkbit.standin_access import User
from hawkbit.transport import Limits, Reply, judge

DATA = Path(__file__).parents[2] / "data" / "hawkbit"
VERSIONS = ["0.3.0M7", "1.0.4"]
TARGET_PERMISSIONS = {"CREATE_TARGET", "READ_TARGET", "UPDATE_TARGET", "DELETE_TARGET"}
BRIDGE_PERMISSIONS = {
    "0.3.0M7": TARGET_PERMISSIONS | {"READ_REPOSITORY", "UPDATE_REPOSITORY"},
    "1.0.4": TARGET_PERMISSIONS,
}
NOT_PLAYED = {"group", "targetType", "targetTypeName"}  # features of 1.x that the stand-in does not have
RANDOM = re.compile("[0-9a-f]{32}")
VOLATILE = re.compile(r"createdAt|lastModifiedAt|lastControllerRequestAt|lastRequestAt|nextExpectedRequestAt|timestamp")


def exchanges(version: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / f"{version}.jsonl").read_text("utf-8").splitlines()]


def wire_headers(headers: dict[str, str]) -> dict[str, str]:
    sent = dict(headers)
    scheme, _, rest = sent.get("Authorization", "").partition(" ")
    if scheme == "Basic":
        sent["Authorization"] = "Basic " + base64.b64encode(rest.encode()).decode()
    return sent


def wire_body(body: Any) -> bytes | None:
    if body is None:
        return None
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def send(base: str, request: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
    """Send the raw path, as no polite client would."""
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=10)
    try:
        connection.putrequest(request["method"], request["path"], skip_accept_encoding=True)
        body = wire_body(request["body"])
        for name, value in wire_headers(request["headers"]).items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        text = response.read().decode()
        headers = {name.lower(): value for name, value in response.getheaders()}
        if not text:
            return response.status, headers, None
        return response.status, headers, json.loads(text.replace(base, "http://hawkbit"))
    finally:
        connection.close()


def same_shape(seen: Any, recorded: Any, at: str = "") -> list[str]:
    """Differences; values must be equal but for times and random tokens, which must be of the same kind."""
    if isinstance(recorded, dict) and isinstance(seen, dict):
        wanted = {key: value for key, value in recorded.items() if key not in NOT_PLAYED}
        if set(wanted) != set(seen):
            return [f"{at}: {sorted(set(wanted) ^ set(seen))}"]
        return [text for key in wanted for text in same_shape(seen[key], wanted[key], f"{at}.{key}")]
    if isinstance(recorded, list) and isinstance(seen, list) and len(recorded) == len(seen):
        pairs = enumerate(zip(seen, recorded, strict=True))
        return [text for index, (a, b) in pairs for text in same_shape(a, b, f"{at}[{index}]")]
    if same_kind(seen, recorded, at.rpartition(".")[2]):
        return []
    return [f"{at}: {seen!r}, recorded {recorded!r}"]


def same_kind(seen: Any, recorded: Any, name: str) -> bool:
    if name == "securityToken" and RANDOM.fullmatch(str(recorded)):
        return RANDOM.fullmatch(str(seen)) is not None
    if VOLATILE.fullmatch(name):
        return type(seen) is type(recorded)
    return bool(seen == recorded)


def differences(exchange: dict[str, Any], status: int, headers: dict[str, str], body: Any) -> list[str]:
    recorded = exchange["response"]
    found = [] if status == recorded["status"] else [f"status {status}, recorded {recorded['status']}"]
    if isinstance(recorded["body"], str):
        # Tomcat's own HTML page: what matters is that hawkBit's code did not write it.
        return found + ([] if isinstance(body, dict) and "errorCode" not in body else ["an errorCode"])
    found += [
        f"{name}: {headers.get(name)!r}, recorded {recorded['headers'].get(name)!r}"
        for name in ("content-type", "allow", "accept", "www-authenticate", "connection")
        if headers.get(name) != recorded["headers"].get(name)
    ]
    wanted = recorded["body"]
    if exchange["name"] == "configs-get":  # hawkBit has more keys than the stand-in
        wanted = {key: value for key, value in wanted.items() if key in body}
    return found + same_shape(body, wanted)


async def start(stack: AsyncExitStack, folder: Path, version: str, bridge: set[str]) -> EmbeddedHawkbit:
    users = [
        User("bridge", "bridge", frozenset(bridge)),
        User("reader", "reader", frozenset({"READ_TARGET"})),
    ]
    server = EmbeddedHawkbit(folder, "admin", "admin", dialect=version, users=users, polling_time=timedelta(minutes=5))
    return await stack.enter_async_context(server)


@pytest.mark.parametrize("version", VERSIONS)
async def test_standin_answers_as_recorded(
    version: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    everything = exchanges(version)
    problems: dict[str, list[str]] = {}
    async with AsyncExitStack() as stack:
        server = await start(stack, tmp_path / "main", version, BRIDGE_PERMISSIONS[version])
        narrow = await start(stack, tmp_path / "narrow", version, TARGET_PERMISSIONS | {"READ_REPOSITORY"})
        await asyncio.to_thread(
            send,
            narrow.url,
            {
                "method": "POST",
                "path": "/rest/v1/targets",
                "headers": {"Content-Type": "application/json", "Authorization": "Basic admin:admin"},
                "body": [{"controllerId": "dev-b"}],
            },
        )
        for exchange in everything:
            request = exchange["request"]
            url = narrow.url if exchange["number"] == 902 else server.url
            if exchange["number"] in {900, 901}:
                for _ in range(52 if request["method"] == "POST" else 202):
                    await asyncio.to_thread(send, url, request)
            answer = await asyncio.to_thread(send, url, request)
            if found := differences(exchange, *answer):
                problems[f"{exchange['number']}-{exchange['name']}"] = found
    report = f"hawkBit {version}, stand-in: {len(everything) - len(problems)} of {len(everything)} exchanges"
    record_property("replayed", report)
    assert not problems, "\n".join([report, *(f"{name}: {found}" for name, found in problems.items())])


# --- the client ------------------------------------------------------------------------------------------


async def no_wait(_: float) -> None:
    return None


def expected_error(response: dict[str, Any]) -> type[HawkbitError] | None:
    """What the rules of the facts say of an answer, written apart from the client's own judgement."""
    status = response["status"]
    body = response["body"] if isinstance(response["body"], dict) else {}
    code = body.get("errorCode", "")
    if status < 300:
        return None
    if "quota" in code:
        return QuotaExceeded
    with_code: dict[int, type[HawkbitError]] = {
        400: HawkbitRefused,
        403: HawkbitForbidden,
        404: TargetMissing,
        409: TargetExists,
    }
    without: dict[int, type[HawkbitError]] = {
        400: HawkbitRefused,
        401: HawkbitUnauthorized,
        429: HawkbitBusy,
        500: HawkbitUnreachable,
    }
    return with_code[status] if code else without.get(status, HawkbitMisconfigured)


Call = Callable[[HawkbitClient], Any]
FIELDS = {"name": "name", "description": "description", "address": "address", "securityToken": "security_token"}
ADDRESSABLE = re.compile(r"(?!\.\.$)[^\s<>/\\;%]{1,256}")


def client_call(exchange: dict[str, Any]) -> Call | None:
    """The client's method that sends this very request, None where it has none."""
    request = exchange["request"]
    path = request["path"]
    if request["headers"].get("Accept") != "application/json" or "X-Forwarded-For" in request["headers"]:
        return None
    if one := re.fullmatch(r"/rest/v1/targets/([^/?]+)", path):
        return single_call(request, unquote(one[1]))
    if (metadata := re.fullmatch(r"/rest/v1/targets/([^/]+)/metadata", path)) and request["method"] == "GET":
        return lambda client: client.read_metadata(metadata[1])
    if path == "/rest/v1/targets?limit=1":
        return lambda client: client.check_health()
    if path == "/rest/v1/targets" and request["method"] == "POST":
        return create_call(request["body"])
    return None


def single_call(request: dict[str, Any], controller_id: str) -> Call | None:
    method, body = request["method"], request["body"]
    if not ADDRESSABLE.fullmatch(controller_id):
        return None
    if method == "PUT" and isinstance(body, dict) and set(body) <= set(FIELDS):
        return lambda client: client.update_target(controller_id, **{FIELDS[k]: v for k, v in body.items()})
    calls: dict[str, Call] = {
        "GET": lambda client: client.find_target(controller_id),
        "DELETE": lambda client: client.delete_target(controller_id),
    }
    return calls.get(method)


def create_call(body: Any) -> Call | None:
    if not isinstance(body, list) or len(body) != 1 or "name" not in body[0]:
        return None
    given = dict(body[0])
    controller_id = given.pop("controllerId", "")
    if not ADDRESSABLE.fullmatch(controller_id) or not set(given) <= set(FIELDS):
        return None
    return lambda client: client.create_target(controller_id, **{FIELDS[k]: v for k, v in given.items()})


@pytest.mark.parametrize("version", VERSIONS)
async def test_client_understands_what_was_recorded(
    version: str, record_property: Callable[[str, object], None]
) -> None:
    calls = judged = 0
    problems: list[str] = []
    for exchange in exchanges(version):
        wanted = expected_error(exchange["response"])
        call = client_call(exchange)
        try:
            if call is not None:
                calls += 1
                found = await play(exchange, call, wanted)
            elif exchange["request"]["path"].startswith("/rest/v1/"):
                judged += 1
                found = judge_recorded(exchange, wanted)
            else:
                continue
        except HawkbitError as error:
            found = f"{error!r}, expected {wanted}"
        if found:
            problems.append(f"{exchange['number']}-{exchange['name']}: {found}")
    right = calls + judged - len(problems)
    report = f"hawkBit {version}, client: {right} of {calls + judged} ({calls} calls, {judged} judged)"
    record_property("replayed", report)
    assert not problems, "\n".join([report, *problems])
    assert calls >= 40, report


async def play(exchange: dict[str, Any], call: Callable[[HawkbitClient], Any], wanted: type | None) -> str | None:
    """Answer the client with the recording; its request must be the recorded one."""
    request, recorded = exchange["request"], exchange["response"]
    sent: list[httpx.Request] = []

    def answer(received: httpx.Request) -> httpx.Response:
        sent.append(received)
        body = recorded["body"]
        content = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        return httpx.Response(recorded["status"], content=content, headers=recorded["headers"])

    outcome: Any = None
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        client = HawkbitClient(http, "http://hawkbit", "u", "p", limits=Limits(attempts=1), sleep=no_wait)
        try:
            outcome = await call(client)
        except HawkbitError as error:
            if wanted is None or type(error) is not wanted:
                return f"{error!r}, expected {wanted}"
        else:
            gone = wanted is TargetMissing and not outcome  # None of find, False of delete
            if wanted is not None and not gone:
                return f"{outcome!r}, expected {wanted}"
    asked = sent[0]
    if (
        asked.method != request["method"]
        or asked.url.raw_path.decode().partition("?")[0] != request["path"].partition("?")[0]
    ):
        return f"sent {asked.method} {asked.url.raw_path!r}"
    if request["body"] is not None and json.loads(asked.content) != request["body"]:
        return f"sent {asked.content!r}"
    if isinstance(outcome, Target):
        body = recorded["body"][0] if isinstance(recorded["body"], list) else recorded["body"]
        if (outcome.controller_id, outcome.security_token) != (body["controllerId"], body.get("securityToken")):
            return f"read {outcome!r}"
    return None


def judge_recorded(exchange: dict[str, Any], wanted: type | None) -> str | None:
    recorded = exchange["response"]
    body = recorded["body"]
    raw = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    try:
        judge(Reply(recorded["status"], raw), exchange["name"])
    except HawkbitError as error:
        return None if type(error) is wanted else f"{error!r}, expected {wanted}"
    return None if wanted is None else f"accepted, expected {wanted}"


@pytest.mark.parametrize("version", VERSIONS)
async def test_client_tells_the_versions_apart_by_what_they_answered(version: str) -> None:
    recorded = {exchange["name"]: exchange for exchange in exchanges(version)}

    def answer(request: httpx.Request) -> httpx.Response:
        name = "userinfo" if request.url.path.endswith("/userinfo") else "perm-reader-list"
        response = recorded[name]["response"]
        return httpx.Response(response["status"], json=response["body"])

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        info = await HawkbitClient(http, "http://hawkbit", "u", "p").server_info()
    if version == "0.3.0M7":
        assert info == ServerInfo(Generation.MILESTONE)
    else:
        assert info == ServerInfo(Generation.CURRENT, "DEFAULT", "admin", frozenset({"ROLE_TENANT_ADMIN"}))
