import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hawkbit.errors import HawkbitBadAnswer, InvalidMetadata, UnaddressableTarget
from hawkbit.models import (
    Target,
    TargetPage,
    TenantConfiguration,
    check_controller_id,
    check_metadata,
    parse_duration,
)

BODY: dict[str, Any] = {
    "controllerId": "dev-1",
    "name": "Device 1",
    "createdBy": "bridge",
    "createdAt": 1795273948063,
    "updateStatus": "registered",
    "lastControllerRequestAt": 1795273949485,
    "securityToken": "secret-token",
}


def test_a_target_is_read_with_aware_times() -> None:
    target = Target.parse(BODY)
    assert target.created_at == datetime(2026, 11, 21, 15, 12, 28, 63000, UTC)
    assert target.last_poll == datetime(2026, 11, 21, 15, 12, 29, 485000, UTC)
    assert (target.description, target.address) == (None, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("controllerId", None),
        ("controllerId", 7),
        ("name", ""),
        ("createdBy", None),
        ("createdAt", "yesterday"),
        ("createdAt", True),
        ("createdAt", 10**30),
        ("updateStatus", None),
        ("description", 7),
        ("lastControllerRequestAt", "now"),
        ("securityToken", []),
    ],
)
def test_nonsense_is_refused_by_the_name_of_its_field(field: str, value: Any) -> None:
    with pytest.raises(HawkbitBadAnswer, match=field):
        Target.parse({**BODY, field: value})


@pytest.mark.parametrize("body", [None, [], "text", {"content": []}, {"content": {}, "total": 1}])
def test_a_page_needs_its_content_and_total(body: Any) -> None:
    with pytest.raises(HawkbitBadAnswer):
        TargetPage.parse(body)


@pytest.mark.parametrize("total", [True, -1, "1", None])
def test_a_total_is_a_count(total: Any) -> None:
    with pytest.raises(HawkbitBadAnswer):
        TargetPage.parse({"content": [], "total": total})


def test_a_security_token_never_shows() -> None:
    assert "secret-token" not in repr(Target.parse(BODY))


@pytest.mark.parametrize("text", ["", "a" * 257, "a/b", "a\\b", "a;b", "a%b", ".", "..", "a b", "a\tb", "a\x00", "<b"])
def test_ids_that_end_badly_are_refused(text: str) -> None:
    with pytest.raises(UnaddressableTarget):
        check_controller_id(text)


@given(st.text(max_size=300))
def test_an_accepted_id_is_returned_as_it_is_and_holds_nothing_forbidden(text: str) -> None:
    try:
        accepted = check_controller_id(text)
    except UnaddressableTarget:
        return
    assert accepted == text
    assert 1 <= len(text) <= 256
    assert not set("/\\;%<") & set(text)
    assert text not in {".", ".."}


@given(st.from_regex(re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?"), fullmatch=True))
def test_every_device_id_of_the_bridge_is_a_controller_id(device_id: str) -> None:
    assert check_controller_id(device_id) == device_id


@pytest.mark.parametrize(("key", "value"), [("", "v"), ("k" * 129, "v"), ("a/b", "v"), ("a b", "v"), ("k", "v" * 4001)])
def test_metadata_that_hawkbit_would_refuse_is_refused(key: str, value: str) -> None:
    with pytest.raises(InvalidMetadata):
        check_metadata(key, value)


@given(st.integers(0, 99 * 3600 + 59 * 60 + 59))
def test_a_duration_is_read_to_the_second(seconds: int) -> None:
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "00:60:00", "00:00:61", "00:00", None, 300, "-1:00:00", "PT5M"])
def test_another_duration_is_refused(text: Any) -> None:
    with pytest.raises(HawkbitBadAnswer):
        parse_duration(text)


@pytest.mark.parametrize(
    ("gateway", "header", "authority", "creates", "anyone"),
    [
        (False, False, "", False, False),
        (True, False, "", True, False),
        (False, True, "aa:bb", True, False),
        (False, True, " ", True, True),
    ],
)
def test_what_a_configuration_lets_happen(
    gateway: bool, header: bool, authority: str, creates: bool, anyone: bool
) -> None:
    configuration = TenantConfiguration(True, gateway, header, authority, timedelta(minutes=5))
    assert (configuration.polls_create_targets, configuration.accepts_any_device) == (creates, anyone)
