"""The stand-in's own promises: its folder, its life cycle, its queries. What it answers is in the contract suite."""

import asyncio
import errno
import json
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hawkbit.client import HawkbitClient
from hawkbit.errors import HawkbitForbidden, HawkbitMisconfigured, HawkbitUnreachable
from hawkbit.standin import EmbeddedHawkbit
from hawkbit.standin_access import User
from hawkbit.standin_dialect import M7, V1
from hawkbit.standin_query import BadQuery, parse_query
from hawkbit.standin_state import State, StateFolderUnusable, StoredTarget

TARGET = StoredTarget(1, "dev-1", "Pump", "first", "http://192.0.2.7", "t", "admin", 1000, "admin", 2000)


@asynccontextmanager
async def running(folder: Path, **options: Any) -> AsyncIterator[tuple[EmbeddedHawkbit, HawkbitClient]]:
    async with EmbeddedHawkbit(folder, "admin", "secret", **options) as server, httpx.AsyncClient() as http:
        yield server, HawkbitClient(http, server.url, "admin", "secret")


async def test_a_restart_with_the_same_folder_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as (_, client):
        made = await client.create_target("dev-1", description="d")
        await client.set_metadata("dev-1", "key", "value")
        await client.create_target("dev-2")
        await client.delete_target("dev-2")
    async with running(tmp_path / "state", dialect="0.3.0M7") as (_, client):
        assert await client.find_target("dev-1") == made
        assert await client.read_metadata("dev-1") == {"key": "value"}
        assert await client.find_target("dev-2") is None


async def test_folder_and_file_are_for_their_owner_only(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as (_, client):
        await client.create_target("dev-1")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state" / "hawkbit.jsonl").stat().st_mode) == 0o600


async def test_it_listens_on_loopback_and_can_be_started_and_stopped_again(tmp_path: Path) -> None:
    server = EmbeddedHawkbit(tmp_path, "admin", "secret")
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.url
    await server.stop()
    for _ in range(2):
        await server.start()
        await server.start()
        assert server.url.startswith("http://127.0.0.1:")
        await server.stop()
        await server.stop()


async def test_a_taken_port_is_said_at_start_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with running(tmp_path / "one") as (server, client):
        other = EmbeddedHawkbit(tmp_path / "two", "admin", "secret", port=int(server.url.rpartition(":")[2]))
        with pytest.raises(OSError, match="in use") as taken:
            await other.start()
        assert taken.value.errno == errno.EADDRINUSE
        await client.check_health()


async def test_after_stop_nobody_answers(tmp_path: Path) -> None:
    async with httpx.AsyncClient() as http:
        async with EmbeddedHawkbit(tmp_path, "admin", "secret") as server:
            client = HawkbitClient(http, server.url, "admin", "secret", sleep=lambda _: asyncio.sleep(0))
            await client.check_health()
        with pytest.raises(HawkbitUnreachable):
            await client.check_health()


def test_what_it_cannot_be_made_of(tmp_path: Path) -> None:
    with pytest.raises(HawkbitMisconfigured, match=r"0\.3\.0M7 and 1\.0\.4"):
        EmbeddedHawkbit(tmp_path, "admin", "secret", dialect="2.0")
    for username, password in (("", "p"), ("a:b", "p"), ("a", "")):
        with pytest.raises(HawkbitMisconfigured):
            EmbeddedHawkbit(tmp_path, username, password)


async def test_all_permissions_mean_nothing_since_1_0(tmp_path: Path) -> None:
    for dialect in ("0.3.0M7", "1.0.4"):
        users = [User("all", "p", frozenset({"ALL"}))]
        standin = running(tmp_path / dialect, dialect=dialect, users=users)
        async with standin as (server, _), httpx.AsyncClient() as http:
            client = HawkbitClient(http, server.url, "all", "p")
            if dialect == "0.3.0M7":
                await client.create_target("dev-1")
            else:
                with pytest.raises(HawkbitForbidden):
                    await client.create_target("dev-1")


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b'{"a":1}', b"[7]", b'[{"controllerId":[]}]'])
async def test_bodies_that_are_not_targets_are_400_and_leave_it_alive(tmp_path: Path, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    async with running(tmp_path) as (server, client):
        async with httpx.AsyncClient(auth=("admin", "secret")) as http:
            answer = await http.post(f"{server.url}/rest/v1/targets", content=body, headers=headers)
        assert answer.status_code == 400
        assert answer.json()["errorCode"].startswith("hawkbit.server.error.")
        await client.check_health()


async def test_a_body_beyond_the_limit_is_413(tmp_path: Path) -> None:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    async with running(tmp_path) as (server, _), httpx.AsyncClient(auth=("admin", "secret")) as http:
        body = b"[" + b" " * (5 * 1024 * 1024)
        answer = await http.post(f"{server.url}/rest/v1/targets", content=body, headers=headers)
        assert answer.status_code == 413


# --- state -----------------------------------------------------------------------------------------------


def test_a_torn_last_line_was_never_answered_and_is_dropped(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.put(TARGET)
    state.close()
    journal = tmp_path / "hawkbit.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"deleted":"de')
    again = State(tmp_path)
    assert again.target("dev-1") == TARGET
    again.close()


@pytest.mark.parametrize("content", [b"hello\n", b"{}\n", b'{"targets":[{}]}\n', b"\xff\n", b"[]\n"])
def test_a_file_of_somebody_elses_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    journal = tmp_path / "hawkbit.jsonl"
    journal.write_bytes(content)
    with pytest.raises(StateFolderUnusable, match="move it away"):
        State(tmp_path)
    assert journal.read_bytes() == content


def test_the_journal_does_not_grow_without_end(tmp_path: Path) -> None:
    state = State(tmp_path)
    for number in range(5000):
        state.put(replace(TARGET, last_request_at=number))
    lines = (tmp_path / "hawkbit.jsonl").read_bytes().count(b"\n")
    assert lines < 2000
    state.close()
    again = State(tmp_path)
    found = again.target("dev-1")
    assert found is not None
    assert found.last_request_at == 4999
    again.close()


def test_a_full_disk_changes_nothing_and_half_a_line_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(tmp_path)
    state.put(TARGET)
    before = (tmp_path / "hawkbit.jsonl").read_bytes()
    write = os.write
    calls = iter([lambda fd, data: write(fd, bytes(data)[:10])])

    def full(descriptor: int, data: bytes) -> int:
        for answer in calls:
            return answer(descriptor, data)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StateFolderUnusable):
        state.put(replace(TARGET, controller_id="dev-2"))
    monkeypatch.undo()
    assert state.target("dev-2") is None
    assert (tmp_path / "hawkbit.jsonl").read_bytes() == before
    state.close()


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.sampled_from("abc"), st.text(max_size=5)),
            st.tuples(st.just("delete"), st.sampled_from("abc"), st.just("")),
            st.tuples(st.just("configure"), st.just("pollingTime"), st.text(max_size=5)),
            st.tuples(st.just("unconfigure"), st.just("pollingTime"), st.just("")),
        ),
        max_size=30,
    )
)
def test_whatever_was_done_is_there_after_a_restart(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("state")
    state = State(folder)
    for action, name, text in steps:
        if action == "put":
            state.put(replace(TARGET, controller_id=name, description=text))
        elif action == "delete" and state.target(name) is not None:
            state.delete(name)
        elif action == "configure":
            state.configure(name, text, "admin", 1)
        elif action == "unconfigure":
            state.unconfigure(name)
    state.close()
    again = State(folder)
    assert {target.controller_id: target for target in again.targets()} == {
        target.controller_id: target for target in state.targets()
    }
    assert again.own_value("pollingTime") == state.own_value("pollingTime")
    again.close()


def test_numbers_are_never_used_again(tmp_path: Path) -> None:
    state = State(tmp_path)
    (number,) = state.next_numbers(1)
    state.put(replace(TARGET, number=number))
    state.delete("dev-1")
    state.close()
    again = State(tmp_path)
    assert again.next_numbers(1)[0] > number
    again.close()


# --- queries ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("controllerid==DEV-1", True),
        ("controllerId==dev-*", True),
        ("id==*-1;name==pump", True),
        ("name==x,description==FIRST", True),
        ("name==x and description==first", False),
        ("(name==x or name==pump) and id!=dev-2", True),
        ("name=in=(x,pump)", True),
        ("name=out=(x,pump)", False),
        ("createdat=gt=999", True),
        ("createdat<1000", False),
        ("lastmodifiedat=le=2000", True),
        ("lastcontrollerrequestat=ge=0", False),
        ("name>a", True),
        ("description=='fir*'", True),
        ('description=="it\\"s"', False),
        ("metadata.key==v*", True),
        ("metadata.other==*", False),
        ("attribute.hw!=rev2", True),
        ("tag==x", False),
        ("createdat==1000", True),
    ],
)
def test_a_query_finds_what_it_says(query: str, found: bool) -> None:
    target = replace(TARGET, metadata={"key": "value"}, attributes={"hw": "rev1"})
    for dialect in (M7, V1):
        assert parse_query(query, dialect)(target) is found


@pytest.mark.parametrize(
    "query",
    ["", "(((", "name", "name==", "name==a;", "name=xx=a", "name==a)", "name=in=a", "name=in=(a", "'a'==b", "(" * 5000],
)
def test_a_broken_query_is_refused(query: str) -> None:
    with pytest.raises(BadQuery) as broken:
        parse_query(query, M7)
    assert broken.value.problem is None


def test_fields_differ_by_version() -> None:
    assert parse_query("createdby==admin", V1)(TARGET)
    assert parse_query("metadata.a.b==v", V1)(replace(TARGET, metadata={"a.b": "v"}))
    for query in ("createdby==admin", "metadata.a.b==v", "metadata==v", "bogus==1"):
        with pytest.raises(BadQuery) as unknown:
            parse_query(query, M7)
        assert unknown.value.problem is not None


@given(st.text(max_size=40))
def test_any_text_is_a_query_or_refused(text: str) -> None:
    try:
        matches = parse_query(text, V1)
    except BadQuery:
        return
    assert matches(TARGET) in {True, False}


@given(st.text("abc \"\\';,()=", min_size=1, max_size=20))
def test_a_value_in_quotes_is_found_again(text: str) -> None:
    target = replace(TARGET, name=text)
    assert parse_query(f"name=={json.dumps(text)}", V1)(target)
    assert not parse_query(f"name=={json.dumps(text + 'x')}", V1)(target)
