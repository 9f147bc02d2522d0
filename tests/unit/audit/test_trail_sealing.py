"""One chain, whoever seals, however often, and whenever it ends."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from bridge.audit.sequencer import Sequencer
from bridge.audit.trail import in_order, pages
from bridge.errors import StoreUnavailable
from bridge.model.trail import genesis
from bridge.ports.trail import Seal, Wanted
from bridge.store import statements, trail
from bridge.store.schema import AUDIT, AUDIT_HEAD
from bridge.store.statement import Statement
from tests.unit.audit.conftest import INSTALLATION, NOW


async def test_entries_are_sealed_in_batches_under_one_head_each(archive: Any) -> None:
    await archive.write(12)
    one = archive.sequencer(batch=5)
    assert [await one.step() for _ in range(4)] == [5, 5, 2, 0]
    verdict = await archive.check()
    assert (verdict.good, verdict.entries, verdict.heads, verdict.unsealed) == (True, 12, 3, 0)


async def test_an_empty_trail_is_good(archive: Any) -> None:
    verdict = await archive.check()
    assert (verdict.good, verdict.entries, verdict.heads, verdict.last_head) == (True, 0, 0, None)
    assert await archive.sequencer().step() == 0


async def test_sealing_goes_on_where_an_earlier_server_ended(archive: Any) -> None:
    for _ in range(3):
        await archive.write(4)
        assert await archive.seal_all() == 4
    assert (await archive.check()).entries == 12


async def test_only_one_has_the_turn_until_it_ends_or_is_given_back(archive: Any) -> None:
    first, second = archive.sequencer(), archive.sequencer(await archive.again())
    await archive.write(6)
    assert (await first.step(), await second.step()) == (5, 0)
    archive.clock.advance(31)  # the first died
    await archive.write(1)
    assert await second.step() == 2
    assert (await first.step(), (await archive.check()).good) == (0, True)
    await second.finish()
    await archive.write(1)
    assert await first.step() == 1
    assert (await archive.check()).entries == 8


async def test_a_turn_is_prolonged_while_there_is_work(archive: Any) -> None:
    first, second = archive.sequencer(), archive.sequencer(await archive.again())
    for _ in range(6):
        await archive.write(1)
        assert (await first.step(), await second.step()) == (1, 0)
        archive.clock.advance(10)
    assert (await archive.check()).heads == 6


async def test_two_servers_write_and_seal_at_once_and_make_one_chain(archive: Any) -> None:
    other = await archive.again()
    sealers = [archive.sequencer(archive.store, batch=3), archive.sequencer(other, batch=3)]
    running = [asyncio.create_task(one.run()) for one in sealers]
    await asyncio.gather(archive.write(60), archive.write(60, other))
    for task in running:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await archive.seal_all()
    verdict = await archive.check()
    assert (verdict.good, verdict.entries, verdict.unsealed) == (True, 120, 0)


async def test_a_seal_after_the_turn_writes_nothing(archive: Any) -> None:
    """Its clock stood still, or it was suspended: the compare-and-swap does not let it through."""
    await archive.write(2)
    until = NOW + timedelta(seconds=30)
    start = genesis(INSTALLATION)
    late = await archive.store.write(lambda t: t.take_turn("late", start, NOW, until))
    archive.clock.advance(31)
    assert await archive.seal_all() == 2
    seal = Seal(((1, 1, "0" * 64),), "head")
    assert not await archive.store.write(lambda t: t.seal(late, seal, NOW))
    # The same holder again, who remembers the end of the trail as it was.
    now = archive.clock.now()
    again = await archive.store.write(lambda t: t.take_turn("late", start, now, now + timedelta(seconds=30)))
    assert again.sequence == 2
    stale = replace(again, sequence=0, chain=start)
    assert not await archive.store.write(lambda t: t.seal(stale, seal, now))
    assert (await archive.check()).good


async def test_a_sealed_entry_cannot_be_sealed_or_changed_again(archive: Any) -> None:
    await archive.write(3)
    await archive.seal_all()
    now = archive.clock.now()
    turn = await archive.store.write(lambda t: t.take_turn("me", "", now, now + timedelta(seconds=30)))
    entry = (await archive.store.read(lambda t: t.entries(Wanted(), 1)))[0]["id"]
    forged = Seal(((entry, turn.sequence + 1, "0" * 64),), "head")
    with pytest.raises(StoreUnavailable, match="changed while they were being sealed"):
        await archive.store.write(lambda t: t.seal(turn, forged, now))
    verdict = await archive.check()
    assert (verdict.good, verdict.entries) == (True, 3)


async def test_the_store_has_one_statement_that_changes_an_entry_and_none_that_deletes_one() -> None:
    """The seal's, of entries without number."""
    texts = [one.sqlite.lower() for one in vars(statements).values() if isinstance(one, Statement)]
    assert [text for text in texts if "update audit " in text or "delete from audit" in text] == []
    folder = Path(statements.__file__).parent
    changing = {path.name for path in folder.glob("*.py") if re.search(r"(update|delete)\(AUDIT\)", path.read_text())}
    assert changing == {"trail.py"}
    assert (folder / "trail.py").read_text().count("(AUDIT)\n    .where(") == 1
    assert "audit.sequence IS NULL" in str(trail._NUMBER)


async def test_an_entry_that_somebody_spoiled_before_its_seal_holds_up_no_other(archive: Any) -> None:
    await archive.write(3)
    if archive.store.engine.dialect.name == "sqlite":
        with archive.store.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE audit SET at = 'noon' WHERE id = 2")
        assert await archive.seal_all() == 2
        verdict = await archive.check()
        assert (verdict.good, verdict.entries, verdict.unsealed) == (True, 2, 1)
    else:
        assert await archive.seal_all() == 3  # its columns hold nothing of another type


async def test_the_end_of_a_server_seals_what_is_left_and_gives_the_turn_back(archive: Any) -> None:
    await archive.write(1)
    one = archive.sequencer()
    task = asyncio.create_task(one.run())
    await archive.until_sealed(1)
    await archive.write(8)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await archive.check()).unsealed == 0
    await archive.write(1)
    assert await archive.sequencer().step() == 1


class Failing:
    """A registry whose writes fail as often as the test wants."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry
        self.failures = 0

    async def read(self, unit: Any) -> Any:
        return await self._registry.read(unit)

    async def write(self, unit: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("the disk is full")
        return await self._registry.write(unit)


async def test_a_store_that_fails_is_asked_again(archive: Any) -> None:
    await archive.write(7)
    registry = Failing(archive.store)
    registry.failures = 3
    one: Sequencer = archive.sequencer(registry)
    task = asyncio.create_task(one.run())
    await archive.until_sealed(7)
    registry.failures = 1  # the giving back
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await archive.check()).good


async def test_what_is_wanted_is_shown_newest_first(archive: Any) -> None:
    await archive.write(20)
    await archive.seal_all()

    async def shown(limit: int = 100, **wanted: Any) -> list[int]:
        lines = await archive.store.read(lambda t: t.entries(Wanted(**wanted), limit))
        return [line["sequence"] for line in lines]

    assert await shown(limit=3) == [20, 19, 18]
    assert await shown(action="act.1") == [18, 14, 10, 6, 2]
    assert len(await shown(action="act.")) == 20
    assert await shown(action="act") == []
    middle = NOW + timedelta(milliseconds=10)
    assert await shown(since=middle) == list(range(20, 10, -1))
    assert await shown(until=middle) == list(range(10, 0, -1))


async def test_pages_of_every_size_hold_the_same(archive: Any) -> None:
    await archive.write(23)
    await archive.seal_all(archive.sequencer(batch=2))
    whole: list[Any] = []
    for size in (1, 2, 3, 7, 100):
        seen = [(kind, line["sequence"]) async for page in pages(archive.store, size) for kind, line in in_order(page)]
        whole = whole or seen
        assert seen == whole
    assert len(whole) == 23 + 12
    with archive.store.engine.connect() as connection:
        assert len(connection.execute(select(AUDIT_HEAD)).all()) == 12


async def test_more_heads_than_entries_fit_into_pages_too(archive: Any) -> None:
    """As no bridge writes them, and somebody may."""
    await archive.write(2)
    await archive.seal_all()
    with archive.store.engine.begin() as connection:
        for number in range(50, 60):
            connection.execute(AUDIT_HEAD.insert().values(sequence=number, jws="x"))
        connection.execute(update(AUDIT).values(actor="operator:é"))
    seen = [line["sequence"] async for page in pages(archive.store, 3) for line in page.heads]
    assert seen == [2, *range(50, 60)]
    assert not (await archive.check()).good
