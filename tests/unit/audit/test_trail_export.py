"""An export is checked without its registry, and shows every octet that was changed."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from bridge.audit.trail import Against, Unreadable, Verdict, export, verify_lines
from bridge.errors import BadRequest
from bridge.model.signing import Purpose

PLACES = 200


async def exported(archive: Any) -> str:
    out = io.StringIO()
    await export(archive.store, out.write)
    return out.getvalue()


def check(text: str, **against: Any) -> Verdict:
    return verify_lines(io.StringIO(text, newline="\n"), Against(**against))


@pytest.fixture
async def text(archive: Any) -> str:
    await archive.write(23)
    await archive.seal_all()
    await archive.write(2)
    return await exported(archive)


async def test_an_export_is_checked_offline(archive: Any, text: str) -> None:
    lines = [json.loads(line) for line in text.splitlines()]
    assert [next(iter(line)) for line in lines].count("entry") == 23
    assert next(iter(lines[0])) == "trail"
    assert next(iter(lines[-1])) == "end"
    key = archive.signer.public_key
    for against in ({}, {"keys": (key,)}, {"pins": (key.fingerprint,)}):
        verdict = check(text, **against)
        assert (verdict.good, verdict.entries, verdict.heads, verdict.unsealed) == (True, 23, 5, None)
        assert verdict.keys == (key.fingerprint,)


async def test_an_empty_trail_is_exported_too(archive: Any) -> None:
    text = await exported(archive)
    assert text.count("\n") == 2
    assert check(text).good


@pytest.mark.timeout(200)
async def test_every_changed_octet_is_found(archive: Any, text: str, count: Callable[[str, int], None]) -> None:
    dice, key = random.Random(7), archive.signer.public_key
    for _ in range(PLACES):
        place = dice.randrange(len(text))
        act = dice.choice(["change", "delete", "insert", "cut"])
        other = dice.choice([one for one in 'a0 \n"{x' if one != text[place]])
        changed = {
            "change": text[:place] + other + text[place + 1 :],
            "delete": text[:place] + text[place + 1 :],
            "insert": text[:place] + other + text[place:],
            "cut": text[:place],
        }[act]
        try:
            assert not check(changed, keys=(key,)).good, (act, place, text[place - 20 : place + 20])
        except BadRequest:
            assert place <= text.index("\n")
    count("tampering with an export found: places", PLACES)


async def test_lines_that_are_cut_exchanged_or_put_in_are_found(text: str) -> None:
    lines = text.splitlines(keepends=True)
    dice = random.Random(8)
    for _ in range(60):
        one, two = sorted(dice.sample(range(1, len(lines)), 2))
        exchanged = [*lines]
        exchanged[one], exchanged[two] = exchanged[two], exchanged[one]
        twice, without = [*lines[:two], lines[one], *lines[two:]], [*lines[:one], *lines[one + 1 :]]
        for changed in (exchanged, twice, without, [*lines, lines[one]], lines[:two]):
            assert not check("".join(changed)).good


async def test_what_follows_from_a_key_that_is_not_trusted(text: str, another_signer: Any) -> None:
    verdict = check(text, keys=(another_signer.public_key,))
    assert "none of those to check with" in str(verdict.fault)
    assert (verdict.good, verdict.fault.sequence) == (False, 1)


async def test_a_later_head_shows_an_export_of_a_cut_trail(archive: Any, text: str) -> None:
    await archive.seal_all()
    kept = (await archive.check()).last_head
    verdict = check(text, heads=(kept,))
    assert (verdict.good, verdict.fault.sequence) == (False, 24)
    assert check(await exported(archive), heads=(kept,)).good


@pytest.mark.parametrize("head", ["eyJhbGciOiJub25lIn0.e30.", "x", "a.b.c", "eyJraWQiOjF9.e30.e30"])
async def test_a_head_that_is_none_is_a_mistake_of_the_caller(text: str, head: str) -> None:
    with pytest.raises(BadRequest, match="--head"):
        check(text, heads=(head,))


async def test_a_signature_for_something_else_is_no_head(archive: Any, text: str) -> None:
    kept = check(text).last_head
    payload = archive.signer.public_key.check(kept, Purpose.AUDIT_HEAD)
    for jws in (archive.signer.sign(payload, Purpose.RECEIPT), archive.signer.sign(payload + b" ", Purpose.AUDIT_HEAD)):
        with pytest.raises(BadRequest, match="--head"):
            check(text, heads=(jws,))


async def test_entries_of_another_installation_do_not_fit(archive: Any, text: str) -> None:
    moved = text.replace("0123456789abcdef", "fedcba9876543210", 1)
    assert check(moved).fault.sequence == 1  # type: ignore[union-attr] # it has one


@pytest.mark.parametrize("text", ["", "\n", "{}\n", '{"trail":{}}\n', "[]\n", '{"trail":{"format":2}}\n', "\x00"])
def test_what_is_no_export_is_a_mistake_of_the_caller(text: str) -> None:
    with pytest.raises(BadRequest):
        check(text)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_what_no_bridge_wrote_is_not_written_out(archive: Any) -> None:
    await archive.write(3)
    await archive.seal_all()
    with archive.store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE audit SET actor = x'ff00' WHERE sequence = 2")
    with pytest.raises(Unreadable):
        await exported(archive)
