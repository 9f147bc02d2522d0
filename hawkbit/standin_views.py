"""How the embedded hawkBit shows and checks a target: JSON shapes, links, and the rules of its fields.

Not here: routes and state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from hawkbit.models import DESCRIPTION_MAX, ID_MAX, NAME_MAX, parse_duration
from hawkbit.standin_access import User
from hawkbit.standin_answers import Answers
from hawkbit.standin_dialect import Dialect
from hawkbit.standin_state import State, StoredTarget

_WHITESPACE = re.compile(r"\s")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]+|[^\s<>\"{}|\\^`:]*")
_TOKEN_MAX = 128
_ADDRESS_MAX = 512


@dataclass(frozen=True, slots=True)
class TargetFields:
    """The fields of a create or update request that were there and are well formed; None is absent."""

    controller_id: str | None
    name: str | None
    description: str | None
    address: str | None
    security_token: str | None
    request_attributes: bool | None


def read_fields(entry: Any, answers: Answers) -> TargetFields:
    """Check one target of a request as hawkBit does. Raises Refusal (400)."""
    if not isinstance(entry, dict):
        raise answers.unreadable()
    fields = TargetFields(
        controller_id=_text(entry, "controllerId", answers),
        name=_text(entry, "name", answers),
        description=_text(entry, "description", answers),
        address=_text(entry, "address", answers),
        security_token=_text(entry, "securityToken", answers),
        request_attributes=entry.get("requestAttributes"),
    )
    if fields.request_attributes not in {None, True, False}:
        raise answers.unreadable()
    _check_size(fields.name, "name", 1, NAME_MAX, answers)
    _check_size(fields.description, "description", 0, DESCRIPTION_MAX, answers)
    _check_size(fields.address, "address", 0, _ADDRESS_MAX, answers)
    _check_size(fields.security_token, "securityToken", 1, _TOKEN_MAX, answers)
    if fields.address and answers.dialect.checks_address and not _URI.fullmatch(fields.address):
        raise answers.bad_address(fields.address)
    return fields


def check_new_id(controller_id: str | None, answers: Answers) -> str:
    """Check a controllerId as hawkBit does at a create; it lets unaddressable ones pass. Raises Refusal."""
    if controller_id is None:
        raise answers.violation("controllerId must not be null.")
    _check_size(controller_id, "controllerId", 1, ID_MAX, answers)
    if _WHITESPACE.search(controller_id):
        raise answers.violation("controllerId has whitespaces which are not allowed.", prefix=False)
    if "<" in controller_id:
        raise answers.violation(answers.dialect.html_violation, prefix=False)
    return controller_id


def show_target(
    target: StoredTarget, base: str, user: User, state: State, dialect: Dialect, *, listed: bool
) -> dict[str, Any]:
    """Return a target's JSON: `listed` as an entry of a list, otherwise whole with all links."""
    shown: dict[str, Any] = {
        "createdBy": target.created_by,
        "createdAt": target.created_at,
        "lastModifiedBy": target.modified_by,
        "lastModifiedAt": target.modified_at,
        "name": target.name,
        "description": target.description,
        "controllerId": target.controller_id,
        "updateStatus": target.update_status,
        "lastControllerRequestAt": target.last_request_at,
        "ipAddress": _host(target.address),
        "address": target.address,
    }
    if target.last_request_at is not None and (dialect.list_has_poll_status or not listed):
        shown["pollStatus"] = _poll_status(target.last_request_at, state)
    if user.may("READ_TARGET_SECURITY_TOKEN", dialect):
        shown["securityToken"] = target.security_token
    shown["requestAttributes"] = target.request_attributes
    shown["_links"] = _links(f"{base}/rest/v1/targets/{_segment(target.controller_id, dialect)}", listed, dialect)
    return {name: value for name, value in shown.items() if value is not None}


def _links(href: str, listed: bool, dialect: Dialect) -> Mapping[str, Any]:
    if listed:
        return {"self": {"href": href}}
    colon = ":" if dialect.metadata_answers_body else "%3A"
    links: dict[str, Any] = {
        "self": {"href": href},
        "assignedDS": {"href": f"{href}/assignedDS"},
        "installedDS": {"href": f"{href}/installedDS"},
        "attributes": {"href": f"{href}/attributes"},
        "actions": {"href": f"{href}/actions?offset=0&limit=50&sort=id{colon}DESC"},
        "metadata": {"href": f"{href}/metadata"},
    }
    if dialect.metadata_answers_body:
        template = f"{href}/metadata?offset=0&limit=50{{&sort,q}}"
        links["metadata"] = {"href": template, "templated": True}
    return links


def _segment(text: str, dialect: Dialect) -> str:
    return quote(text, safe=dialect.href_safe)


def _poll_status(last: int, state: State) -> Mapping[str, Any]:
    interval = parse_duration(state.value("pollingTime"))
    due = last + round(interval.total_seconds() * 1000)
    return {"lastRequestAt": last, "nextExpectedRequestAt": due, "overdue": False}


def _host(address: str | None) -> str | None:
    try:
        return urlsplit(address).hostname if address else None
    except ValueError:
        return None


def _text(entry: Mapping[str, Any], name: str, answers: Answers) -> str | None:
    value = entry.get(name)
    if isinstance(value, bool | int | float):
        return str(value)  # hawkBit's JSON reader turns numbers into text
    if value is not None and not isinstance(value, str):
        raise answers.unreadable()
    return value


def _check_size(value: str | None, name: str, low: int, high: int, answers: Answers) -> None:
    if value is not None and not low <= len(value) <= high:
        raise answers.violation(f"{name} size must be between {low} and {high}.")
