"""One suite, three hawkBits: the stand-in in both dialects, and the real 0.3.0M7."""

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from compose.real.hawkbit_server import ADMIN, BRIDGE, READER, RealHawkbit
from hawkbit.client import HawkbitClient
from hawkbit.models import Generation
from hawkbit.standin import EmbeddedHawkbit
from hawkbit.standin_access import User

TARGETS = {"CREATE_TARGET", "READ_TARGET", "UPDATE_TARGET", "DELETE_TARGET"}


@dataclass(frozen=True)
class Hawkbit:
    """A running hawkBit and who talks to it."""

    url: str
    generation: Generation
    http: httpx.AsyncClient

    def client(self, user: tuple[str, str] = BRIDGE) -> HawkbitClient:
        return HawkbitClient(self.http, self.url, *user)

    async def ask(
        self, method: str, path: str, *, json: object = None, user: tuple[str, str] = ADMIN, **headers: str
    ) -> httpx.Response:
        """A request that the client would never send."""
        wanted = {"Accept": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
        if method in {"POST", "PUT"}:
            wanted.setdefault("Content-Type", "application/json")
        auth = None if "Authorization" in wanted else user
        return await self.http.request(method, self.url + path, json=json, headers=wanted, auth=auth)

    async def configure(self, key: str, value: object) -> None:
        answer = await self.ask("PUT", f"/rest/v1/system/configs/{key}", json={"value": value})
        assert answer.is_success

    async def poll(self, controller_id: str, **headers: str) -> int:
        answer = await self.ask("GET", f"/DEFAULT/controller/v1/{controller_id}", **({"Authorization": ""} | headers))
        return answer.status_code


@pytest.fixture(scope="session")
def real_hawkbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHawkbit]:
    """Started once a worker; its tests use ids of their own."""
    with RealHawkbit(tmp_path_factory.mktemp("hawkbit")) as server:
        yield server


@pytest.fixture(
    params=[
        pytest.param("0.3.0M7", id="standin-M7"),
        pytest.param("1.0.4", id="standin-1.0.4"),
        pytest.param("real", id="real", marks=pytest.mark.real),
    ]
)
async def hawkbit(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Hawkbit]:
    kind = request.param
    # Before the loop runs anything: starting the real one takes seconds.
    server = request.getfixturevalue("real_hawkbit") if kind == "real" else None
    async with httpx.AsyncClient(timeout=10) as http:
        if server is not None:
            yield Hawkbit(server.url, Generation.MILESTONE, http)
            return
        permissions = TARGETS | ({"READ_REPOSITORY", "UPDATE_REPOSITORY"} if kind == "0.3.0M7" else set())
        users = [User(*BRIDGE, frozenset(permissions)), User(*READER, frozenset({"READ_TARGET"}))]
        async with EmbeddedHawkbit(tmp_path / "hawkbit", *ADMIN, dialect=kind, users=users) as standin:
            generation = Generation.MILESTONE if kind == "0.3.0M7" else Generation.CURRENT
            yield Hawkbit(standin.url, generation, http)


@pytest.fixture
def device() -> str:
    """An id that no other test uses."""
    return f"dev-{secrets.token_hex(6)}"


@pytest.fixture
async def closed_doors(hawkbit: Hawkbit) -> AsyncIterator[None]:
    """Whatever the test switches on for devices is off again afterwards."""
    yield
    for way in ("targettoken", "gatewaytoken", "header"):
        await hawkbit.configure(f"authentication.{way}.enabled", False)
    await hawkbit.configure("authentication.header.authority", "")
