"""Laws of the stand-in's state: one device a name, one device a credential, and the disk says the same."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from thingsboard.standin_platform import PlatformRecord
from thingsboard.standin_refusals import Refusal
from thingsboard.standin_state import TenantState

NAMES = st.sampled_from(["a", "A", "b", "c"])
CERTIFICATES = st.sampled_from(["one", "two", "three"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("create"), NAMES, CERTIFICATES),
        st.tuples(st.just("rename"), NAMES, NAMES),
        st.tuples(st.just("replace"), NAMES, CERTIFICATES),
        st.tuples(st.just("bury"), NAMES, CERTIFICATES),
        st.tuples(st.just("delete"), NAMES, NAMES),
    ),
    max_size=25,
)


def clock() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


def x509(value: str) -> dict[str, Any]:
    return {"credentialsType": "X509_CERTIFICATE", "credentialsValue": value}


def act(state: TenantState, step: tuple[str, str, str], model: dict[str, str]) -> None:
    """Do one step and keep the model, a map from name to credential, that it should have."""
    kind, name, other = step
    record = state.by_name(name)
    if kind == "create":
        state.create({"name": name}, x509(other))
        model[name] = other
    elif record is None:
        return
    elif kind == "rename":
        state.update({**record.device, "name": other})
        model[other] = model.pop(name)
    elif kind == "replace":
        state.replace_credentials({**record.credentials, **x509(other)})
        model[name] = other
    elif kind == "bury":
        token = {"credentialsType": "ACCESS_TOKEN", "credentialsId": f"token of {name}", "credentialsValue": None}
        state.replace_credentials({**record.credentials, **token})
        model[name] = f"token of {name}"
    else:
        state.delete(record.id)
        del model[name]


def shown(state: TenantState) -> dict[str, str]:
    found = {}
    for device in state.search(""):
        credentials = state.get(device["id"]["id"]).credentials
        found[device["name"]] = credentials["credentialsValue"] or credentials["credentialsId"]
    return found


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_names_and_credentials_stay_unique_and_survive_a_restart(steps: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        platform = PlatformRecord(Path(folder), clock=clock)
        state = TenantState(Path(folder), platform, clock=clock)
        model: dict[str, str] = {}
        for step in steps:
            before, code = dict(model), None
            try:
                act(state, step, model)
            except Refusal as refusal:
                model, code = before, refusal.code
            assert code in {None, 31}, "nothing but a taken name or credential is refused here"
            assert shown(state) == model
            assert len(set(model.values())) == len(model)
            for name in model:
                record = state.by_name(name)
                assert record is not None
                assert record.name == name
        again = TenantState(Path(folder), PlatformRecord(Path(folder), clock=clock), clock=clock)
        assert shown(again) == model
