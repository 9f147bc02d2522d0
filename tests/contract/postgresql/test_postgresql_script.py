"""The PostgreSQL that the store's real tests get: its own, durable, on loopback, gone when it ends."""

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from compose.real.owned_process import ServerFailed
from compose.real.postgresql import RealPostgresql

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def cluster() -> Iterator[RealPostgresql]:
    with RealPostgresql() as running:
        yield running


def scalar(url: str, statement: str) -> object:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            return connection.execute(sa.text(statement)).scalar()
    finally:
        engine.dispose()


def test_databases_are_fresh_and_apart(cluster: RealPostgresql) -> None:
    one, other = cluster.create_database(), cluster.create_database()
    engine = sa.create_engine(one, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE marker (id int)"))
    count = "SELECT count(*) FROM pg_tables WHERE tablename = 'marker'"
    assert (scalar(one, count), scalar(other, count)) == (1, 0)
    cluster.drop_database(one)
    with pytest.raises(sa.exc.OperationalError):
        scalar(one, "SELECT 1")


def test_it_is_durable_and_on_loopback_only(cluster: RealPostgresql) -> None:
    assert scalar(cluster.url(), "SHOW fsync") == "on"
    assert scalar(cluster.url(), "SHOW synchronous_commit") == "on"
    assert scalar(cluster.url(), "SHOW listen_addresses") == "127.0.0.1"


def test_it_does_not_run_as_root_and_wants_its_password(cluster: RealPostgresql) -> None:
    assert Path(f"/proc/{cluster.pid}").stat().st_uid != 0
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(f"postgresql://bridge:wrong@127.0.0.1:{cluster.port}/postgres")


def test_stop_ends_the_process_and_removes_the_folder() -> None:
    cluster = RealPostgresql()
    cluster.start()
    pid, folder = cluster.pid, cluster.folder
    cluster.stop()
    assert folder is not None
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_folder_that_its_user_cannot_enter_is_named(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        with RealPostgresql(tmp_path / "cluster") as cluster:
            assert scalar(cluster.url(), "SELECT 1") == 1
        return
    (tmp_path / "closed").mkdir(mode=0o700)
    with pytest.raises(ServerFailed, match="cannot enter"):
        RealPostgresql(tmp_path / "closed" / "cluster").start()
