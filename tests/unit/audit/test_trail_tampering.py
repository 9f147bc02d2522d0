"""Somebody writes to the database past the bridge: at two hundred random places, and then where nothing can show it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Table, delete, func, select, update
from sqlalchemy.exc import IntegrityError

from bridge.audit.trail import Verdict
from bridge.model.trail import digest, link
from bridge.store.schema import AUDIT, AUDIT_HEAD, AUDIT_SEQUENCER, SIGNING_KEY

PLACES = 200
SEALED, UNSEALED, BATCH = 41, 3, 5
TABLES = (AUDIT, AUDIT_HEAD, AUDIT_SEQUENCER, SIGNING_KEY)
EVIDENCE = {AUDIT: list(AUDIT.c), AUDIT_HEAD: list(AUDIT_HEAD.c), AUDIT_SEQUENCER: [AUDIT_SEQUENCER.c.sequence]}
EVIDENCE[AUDIT_SEQUENCER].append(AUDIT_SEQUENCER.c.hash)
CONTENT = [column.name for column in AUDIT.c if column.name not in {"id", "sequence", "hash"}]

Count = Callable[[str, int], None]


class Intruder:
    """Writes at random places, by the rules of the database at most."""

    def __init__(self, connection: Connection, dice: random.Random) -> None:
        self.sql = connection
        self.dice = dice

    def sealed(self) -> list[Any]:
        query = select(AUDIT).where(AUDIT.c.sequence.is_not(None)).order_by(AUDIT.c.sequence)
        return list(self.sql.execute(query).mappings())

    def other(self, value: Any) -> Any:
        if value is None:
            return "x"
        if isinstance(value, int):
            return value + self.dice.choice((-1, 1, 10**6))
        if not value:
            return "x"
        place = self.dice.randrange(len(value))
        changed = value[:place] + self.dice.choice("xy0=\u00e9") + value[place + 1 :]
        return changed if changed != value else value + self.dice.choice(" x")

    def change(self) -> str:
        table = self.dice.choices([AUDIT, AUDIT_HEAD, AUDIT_SEQUENCER], (8, 3, 1))[0]
        column = self.dice.choice(EVIDENCE[table])
        rows = self.sealed() if table is AUDIT else list(self.sql.execute(select(table)).mappings())
        row = self.dice.choice(rows)
        values = {column.name: self.other(row[column.name])}
        if column.name in {"device", "request_id"} and self.dice.random() < 0.3:
            values = {column.name: None if row[column.name] is not None else "x"}
        self.sql.execute(update(table).where(*self._is(table, row)).values(**values))
        return f"changed {table.name}.{column.name}"

    def delete(self) -> str:
        table = self.dice.choices([AUDIT, AUDIT_HEAD, AUDIT_SEQUENCER], (6, 3, 1))[0]
        rows = self.sealed() if table is AUDIT else list(self.sql.execute(select(table)).mappings())
        self.sql.execute(delete(table).where(*self._is(table, self.dice.choice(rows))))
        return f"deleted from {table.name}"

    def delete_and_close_up(self) -> str:
        row = self.dice.choice(self.sealed()[:-1])
        self.sql.execute(delete(AUDIT).where(AUDIT.c.id == row["id"]))
        self._shift(row["sequence"], -1)
        return "deleted an entry and renumbered"

    def swap(self) -> str:
        one, two = self.dice.sample(self.sealed(), 2)
        what = self.dice.choice([CONTENT, ["sequence"], ["hash"], ["sequence", "hash"]])
        if "sequence" in what:  # the database refuses two of a number, also for a moment
            self.sql.execute(update(AUDIT).where(AUDIT.c.id == one["id"]).values(sequence=-1))
        self.sql.execute(update(AUDIT).where(AUDIT.c.id == two["id"]).values({name: one[name] for name in what}))
        self.sql.execute(update(AUDIT).where(AUDIT.c.id == one["id"]).values({name: two[name] for name in what}))
        return f"exchanged {what[0] if len(what) == 1 else 'content' if what is CONTENT else 'places'} of two entries"

    def swap_heads(self) -> str:
        one, two = self.dice.sample(list(self.sql.execute(select(AUDIT_HEAD)).mappings()), 2)
        for number, jws in ((one["sequence"], two["jws"]), (two["sequence"], one["jws"])):
            self.sql.execute(update(AUDIT_HEAD).where(AUDIT_HEAD.c.sequence == number).values(jws=jws))
        return "exchanged two heads"

    def insert(self) -> str:
        rows = self.sealed()
        model, place = self.dice.choice(rows), self.dice.randint(1, len(rows))
        self._shift(place, 1)
        before = rows[place - 2]["hash"] if place > 1 else rows[0]["hash"]
        content = {name: model[name] for name in CONTENT} | {"id": 10_000}
        # With the chain value that it would have had there.
        self.sql.execute(AUDIT.insert().values(**content, sequence=place, hash=link(before, digest(content))))
        return "put an entry in and renumbered"

    def append(self) -> str:
        last = self.sealed()[-1]
        content = {name: last[name] for name in CONTENT} | {"id": 10_000}
        chain = link(last["hash"], digest(content))
        self.sql.execute(AUDIT.insert().values(**content, sequence=last["sequence"] + 1, hash=chain))
        if self.dice.random() < 0.5:
            self.sql.execute(update(AUDIT_SEQUENCER).values(sequence=last["sequence"] + 1, hash=chain))
        return "put an entry behind the end"

    def insert_head(self) -> str:
        heads = [row["sequence"] for row in self.sql.execute(select(AUDIT_HEAD)).mappings()]
        place = self.dice.choice([n for n in range(-2, SEALED + 3) if n not in heads])
        jws = self.sql.scalar(select(AUDIT_HEAD.c.jws).where(AUDIT_HEAD.c.sequence == self.dice.choice(heads)))
        self.sql.execute(AUDIT_HEAD.insert().values(sequence=place, jws=jws))
        return "put a head in"

    def unseal(self) -> str:
        row = self.dice.choice(self.sealed())
        self.sql.execute(update(AUDIT).where(AUDIT.c.id == row["id"]).values(sequence=None, hash=None))
        return "made a sealed entry an unsealed one"

    def cut_carelessly(self) -> str:
        keep = self.dice.choice(list(range(SEALED)))
        parts = self.dice.choice([{"entries"}, {"heads"}, {"entries", "heads"}, {"entries", "mark"}, {"heads", "mark"}])
        self.cut(keep, parts)
        return f"cut off {' and '.join(sorted(parts))}"

    def cut(self, keep: int, parts: set[str]) -> None:
        if "mark" in parts:
            chain = self.sql.scalar(select(AUDIT.c.hash).where(AUDIT.c.sequence == keep))
            self.sql.execute(update(AUDIT_SEQUENCER).values(sequence=keep, hash=chain or "0" * 64))
        if "entries" in parts:
            self.sql.execute(delete(AUDIT).where(AUDIT.c.sequence > keep))
        if "heads" in parts:
            self.sql.execute(delete(AUDIT_HEAD).where(AUDIT_HEAD.c.sequence > keep))

    def change_key(self) -> str:
        key = ("\u0041" if self.dice.random() < 0.5 else "-----BEGIN PUBLIC KEY-----\n") + "AAAA"
        if self.dice.random() < 0.5:
            self.sql.execute(delete(SIGNING_KEY))
            return "deleted the key"
        self.sql.execute(update(SIGNING_KEY).values(public_key=key))
        return "changed the key"

    def _shift(self, first: int, by: int) -> None:
        rows = update(AUDIT).where(AUDIT.c.sequence >= first)
        self.sql.execute(rows.values(sequence=AUDIT.c.sequence + 10_000))
        self.sql.execute(
            update(AUDIT).where(AUDIT.c.sequence >= 10_000).values(sequence=AUDIT.c.sequence - 10_000 + by)
        )

    @staticmethod
    def _is(table: Table, row: Any) -> list[Any]:
        return [column == row[column.name] for column in table.primary_key]


ACTS = [
    (Intruder.change, 8),
    (Intruder.delete, 4),
    (Intruder.delete_and_close_up, 2),
    (Intruder.swap, 4),
    (Intruder.swap_heads, 1),
    (Intruder.insert, 3),
    (Intruder.append, 2),
    (Intruder.insert_head, 2),
    (Intruder.unseal, 2),
    (Intruder.cut_carelessly, 4),
    (Intruder.change_key, 1),
]


class Vault:
    """The trail's tables as they were, to be brought back."""

    def __init__(self, connection: Connection) -> None:
        self._rows = {table: list(map(dict, connection.execute(select(table)).mappings())) for table in TABLES}

    def bring_back(self, connection: Connection) -> None:
        for table, rows in self._rows.items():
            connection.execute(delete(table))
            connection.execute(table.insert(), rows)

    def same(self, connection: Connection) -> bool:
        return all(
            sorted(map(repr, map(dict, connection.execute(select(table)).mappings()))) == sorted(map(repr, rows))
            for table, rows in self._rows.items()
        )


@pytest.fixture
async def full(archive: Any) -> Any:
    """A trail of nine heads and three entries that wait."""
    await archive.write(SEALED)
    assert await archive.seal_all() == SEALED
    await archive.write(UNSEALED)
    return archive


async def test_the_untouched_trail_is_good(full: Any) -> None:
    verdict: Verdict = await full.check(own=full.signer.public_key)
    assert (verdict.good, verdict.entries, verdict.heads, verdict.unsealed) == (True, SEALED, 9, UNSEALED)


@pytest.mark.timeout(300)
async def test_two_hundred_random_places_are_found(full: Any, count: Count) -> None:
    dice, found = random.Random(20260301), Counter[str]()
    with full.store.engine.connect() as connection:
        vault = Vault(connection)
        connection.rollback()
    refused = 0
    while found.total() < PLACES:
        (act,) = dice.choices([act for act, _ in ACTS], [weight for _, weight in ACTS])
        try:
            with full.store.engine.begin() as connection:
                what = act(Intruder(connection, dice))
                untouched = vault.same(connection)
        except IntegrityError:
            refused += 1  # the database itself does not take it: two of a number, a number without chain value
            continue
        verdict = await full.check()
        assert verdict.good is untouched, what
        assert untouched or str(verdict.fault), what
        found[what] += not untouched
        with full.store.engine.begin() as connection:
            vault.bring_back(connection)
    assert (await full.check()).good
    assert len(found) >= 20
    for what, number in found.items():
        count(f"tampering found: {what}", number)
    count("tampering: places in all", found.total())
    count("tampering: refused by the database", refused)


@pytest.mark.parametrize("sequence", [1, 17, SEALED])
async def test_the_first_bad_entry_is_named(full: Any, sequence: int) -> None:
    with full.store.engine.begin() as connection:
        connection.execute(update(AUDIT).where(AUDIT.c.sequence >= sequence).values(actor="nobody"))
    verdict = await full.check()
    assert verdict.fault.sequence == sequence
    assert f"entry {sequence} (" in str(verdict.fault)
    assert verdict.entries == sequence - 1


async def test_a_missing_entry_is_named(full: Any) -> None:
    with full.store.engine.begin() as connection:
        connection.execute(delete(AUDIT).where(AUDIT.c.sequence == 8))
    verdict = await full.check()
    assert (verdict.fault.sequence, verdict.entries) == (8, 7)
    assert "entry 8 is missing" in str(verdict.fault)


# -- what the trail alone cannot show, and what can --------------------------------------------------------------
async def last_head(archive: Any) -> str:
    verdict = await archive.check()
    assert verdict.last_head is not None
    return str(verdict.last_head)


@pytest.mark.parametrize("heads_back", [1, 3, 8])
async def test_a_clean_cut_shows_only_against_a_later_head(full: Any, heads_back: int, count: Count) -> None:
    kept = await last_head(full)
    with full.store.engine.begin() as connection:
        ends = sorted(connection.scalars(select(AUDIT_HEAD.c.sequence)))
        Intruder(connection, random.Random(1)).cut(ends[-1 - heads_back], {"entries", "heads", "mark"})
    alone = await full.check()
    assert (alone.good, alone.entries) == (True, ends[-1 - heads_back])
    against = await full.check(heads=(kept,))
    assert not against.good
    assert f"a signed head ends at {SEALED}" in str(against.fault)
    assert against.fault.sequence == ends[-1 - heads_back] + 1
    count("not detectable: clean cut without a later head (with it: found)", 1)


async def test_a_tail_that_was_sealed_anew_shows_only_against_an_earlier_head_of_it(full: Any, count: Count) -> None:
    kept = await last_head(full)
    with full.store.engine.begin() as connection:
        ends = sorted(connection.scalars(select(AUDIT_HEAD.c.sequence)))
        intruder = Intruder(connection, random.Random(1))
        intruder.cut(ends[-2], {"heads", "mark"})
        tail = update(AUDIT).where(AUDIT.c.sequence > ends[-2])
        connection.execute(tail.values(sequence=None, hash=None, actor="nobody"))
    await full.seal_all()
    assert (await full.check()).good
    against = await full.check(heads=(kept,))
    assert "the trail was rewritten" in str(against.fault)
    count("not detectable: tail sealed anew, without a head of the former one (with it: found)", 1)


@pytest.mark.parametrize("act", ["change", "delete", "insert"])
async def test_what_is_not_sealed_yet_is_counted_and_not_judged(full: Any, act: str, count: Count) -> None:
    waiting = AUDIT.c.sequence.is_(None)
    with full.store.engine.begin() as connection:
        first = connection.scalar(select(func.min(AUDIT.c.id)).where(waiting))
        if act == "change":
            connection.execute(update(AUDIT).where(AUDIT.c.id == first).values(actor="nobody"))
        elif act == "delete":
            connection.execute(delete(AUDIT).where(AUDIT.c.id == first))
        else:
            connection.execute(AUDIT.insert().values(at=1, actor="nobody", action="a", detail="{}"))
    verdict = await full.check()
    assert verdict.good
    assert verdict.unsealed == UNSEALED + {"change": 0, "delete": -1, "insert": 1}[act]
    count("not detectable: entries that are not sealed yet", 1)


async def test_a_thief_of_the_key_can_rewrite_all_but_heads_kept_elsewhere(full: Any, count: Count) -> None:
    kept = await last_head(full)
    with full.store.engine.begin() as connection:
        connection.execute(update(AUDIT).values(sequence=None, hash=None))
        connection.execute(update(AUDIT).values(actor="nobody"))
        connection.execute(delete(AUDIT_HEAD))
        connection.execute(delete(AUDIT_SEQUENCER))
    await full.seal_all()
    assert (await full.check(own=full.signer.public_key)).good
    assert not (await full.check(heads=(kept,))).good
    count("not detectable: thief of the key, without a head kept elsewhere (with it: found)", 1)


async def test_without_the_key_a_trail_signed_by_another_is_found(full: Any, another_signer: Any) -> None:
    with full.store.engine.begin() as connection:
        connection.execute(update(AUDIT).values(sequence=None, hash=None))
        connection.execute(delete(AUDIT_HEAD))
        connection.execute(delete(AUDIT_SEQUENCER))
        connection.execute(update(SIGNING_KEY).values(public_key=another_signer.public_key.pem))
    await full.seal_all(full.sequencer(signer=another_signer))
    assert (await full.check()).good  # by the key that the registry names, and that was exchanged with the rest
    assert "the key file holds" in str((await full.check(own=full.signer.public_key)).fault)
    assert not (await full.check(keys=(full.signer.public_key,))).good
    assert not (await full.check(pins=(full.signer.public_key.fingerprint,))).good


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET at = 'noon' WHERE sequence = 9",
        "UPDATE audit SET actor = x'ff00' WHERE sequence = 9",
        "UPDATE audit SET detail = 5.5 WHERE sequence = 9",
        "UPDATE audit SET sequence = 'nine' WHERE sequence = 9",
        "UPDATE audit SET sequence = 9.5 WHERE sequence = 9",
        "UPDATE audit SET hash = x'00' WHERE sequence = 9",
        "UPDATE audit_head SET jws = x'00' WHERE sequence = 10",
        "UPDATE audit_sequencer SET sequence = 'x'",
    ],
)
async def test_values_of_types_that_no_entry_has_are_found(full: Any, statement: str) -> None:
    """SQLite keeps anything in any column."""
    with full.store.engine.begin() as connection:
        connection.exec_driver_sql(statement)
    verdict = await full.check()
    assert not verdict.good
    assert verdict.entries in {5, 8, SEALED, 10}
