"""Every error of the bridge is mapped, by reflection: a code of the protocol, a status, a title, words for people."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import bridge
from bridge.errors import BridgeError, Conflict, Refused, Unavailable
from bridge.routes.documentation.operations import ACTIVATE_ERRORS, ENROLL_ERRORS
from bridge.routes.problems import TITLES, document, internal, problem, status_of
from enroll.wire import PROBLEM_TYPE_PREFIX, Code, Problem


def import_all_of(package: str, *left_out: str) -> None:
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, f"{package}."):
        if not module.name.startswith(left_out):
            importlib.import_module(module.name)


# Importing entry points would run them, migrations belong to Alembic.
import_all_of(bridge.__name__, "bridge.__main__", "bridge.store.migrations")


def family(kind: type[BridgeError]) -> Iterator[type[BridgeError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from family(child)


KINDS = sorted(set(family(BridgeError)), key=lambda kind: kind.__qualname__)
STATUSES = {
    Code.BAD_CSR: {422},
    Code.BAD_WG_KEY: {422},
    Code.BAD_DEVICE_ID: {422},
    Code.BAD_REQUEST: {422},
    Code.VOUCHER_REQUIRED: {401},
    Code.NOT_ADMITTED: {403},
    Code.RETIRED: {403},
    Code.ID_SPELLING: {409},
    Code.KEY_IN_USE: {409},
    Code.WG_KEY_IN_USE: {409},
    Code.WG_KEY_DIFFERS: {409},
    Code.IDENTITY_EXISTS: {409},
    Code.IN_PROGRESS: {409, 503},
    Code.EXPIRED: {409},
    Code.SUPERSEDED: {409},
    Code.TOO_LARGE: {413},
    Code.TOO_MANY: {429},
    Code.CA_UNREACHABLE: {503},
    Code.CA_REFUSED: {503},
    Code.CA_BAD_ANSWER: {503},
    Code.POOL_EMPTY: {503},
    Code.STORE_UNAVAILABLE: {503},
    Code.UNAUTHORIZED: {401},
    Code.NOT_FOUND: {404},
    Code.INTERNAL: {500},
}
"""As the protocol's page has them."""


def made(kind: type[BridgeError]) -> BridgeError:
    """Build one, with the arguments that some kinds want."""
    try:
        return kind("what is wrong")
    except TypeError:
        return kind("what is wrong", retry_after=7.2)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__qualname__)
def test_every_error_has_a_code_a_title_a_status_and_words_for_people(kind: type[BridgeError]) -> None:
    code = Code(kind.code)
    assert status_of(kind) in range(400, 600)
    assert TITLES[code][0].isupper()
    assert not TITLES[code].endswith(".")
    assert kind.advice.endswith(".")
    assert kind.__doc__
    if code is not Code.INTERNAL:
        assert status_of(kind) in STATUSES[code]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__qualname__)
def test_every_error_becomes_a_problem_document_that_a_device_understands(kind: type[BridgeError]) -> None:
    error = made(kind)
    answer = problem(error, "r-1")
    members = document(kind, str(error), "r-1")

    assert answer.media_type == "application/problem+json"
    assert answer.status_code == members["status"] == status_of(kind)
    assert members["type"] == PROBLEM_TYPE_PREFIX + members["code"]
    assert Problem.from_json(answer.status_code, members).code == kind.code
    if kind.code == Code.INTERNAL:
        assert answer.body == internal("r-1").body  # nothing of it reaches the caller
    else:
        assert members["detail"] == f"What is wrong. {kind.advice}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__qualname__)
def test_retry_after_stands_where_waiting_helps_and_only_there(kind: type[BridgeError]) -> None:
    error = made(kind)
    wait = getattr(error, "retry_after", None)
    header = problem(error, "r-1").headers.get("retry-after")

    assert (header is not None) == (wait is not None)
    if wait is not None:
        assert issubclass(kind, Unavailable | Conflict)
        assert int(header) >= max(wait, 1)
        assert int(header) < wait + 1


def test_every_code_of_the_protocol_has_an_error_and_a_title() -> None:
    assert {kind.code for kind in KINDS} == {str(code) for code in Code}
    assert set(TITLES) == set(Code) == set(STATUSES)


def test_every_code_has_each_of_its_statuses() -> None:
    for code, statuses in STATUSES.items():
        assert {status_of(kind) for kind in KINDS if kind.code == code} == statuses


def test_every_refusal_with_a_code_is_documented_at_a_devices_door_or_is_another_doors() -> None:
    documented = {*ENROLL_ERRORS, *ACTIVATE_ERRORS}
    concrete = {kind for kind in KINDS if kind.code != Code.INTERNAL and issubclass(kind, Refused | Unavailable)}
    assert {kind.code for kind in concrete - documented} == {"unauthorized", "not_found"}
