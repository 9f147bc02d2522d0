"""By reflection: whatever a sibling raises, in whatever call, leaves the adapter as an error of the bridge."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import trustme

import ca.errors
import hawkbit.errors
import thingsboard.errors
import wireguard.errors
from bridge.adapters import authority, platform, tunnels, updates
from bridge.adapters.interface import InterfaceSync
from bridge.errors import BridgeError, CaBadAnswer, CaRefused, CaUnreachable, ForeignObject, Misconfigured, SystemFailed
from bridge.model.facts import Csr
from bridge.model.identity import DeviceId, Fingerprint, Pem, Serial
from bridge.ports.authority import SigningOrder
from bridge.ports.platform import PlatformDevice
from wireguard import applied_file, peers_file

ID = DeviceId("dev-1")
SECRETS = {"upstream": "UPSTREAM-BODY", "detail": "DETAIL"}


def family(module: ModuleType) -> list[type[Exception]]:
    return sorted(
        (one for _, one in inspect.getmembers(module, inspect.isclass) if one.__module__ == module.__name__),
        key=lambda kind: kind.__name__,
    )


def made(kind: type[Exception]) -> Exception:
    """Build one, with whatever its constructor wants beside a text."""
    values: dict[Any, Any] = {bool: False, int: 409, str: "what", Path: Path("/folder/file")}
    arguments = {}
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            hint = typing.get_type_hints(kind.__init__, include_extras=False)[name]
            arguments[name] = SECRETS.get(name, values[hint])
    return kind("it went wrong", **arguments)


class Raising:
    """A client that raises in every call."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        async def call(*_: Any, **__: Any) -> None:
            raise self._error

        return call


@pytest.fixture(scope="session")
def leaf() -> Pem:
    return Pem(trustme.CA().issue_cert("dev-1").cert_chain_pems[0].bytes().decode())


async def left(call: Any, error: Exception) -> BridgeError | None:
    """Return what came out of the adapter; nothing else than errors of the bridge may."""
    try:
        await call
    except BridgeError as e:
        told = e
    else:
        return None
    cause: BaseException | None = told
    while cause is not None and cause is not error:
        cause = cause.__cause__
    assert cause is error, "the first error is kept as the cause"
    assert not any(secret in str(told) for secret in SECRETS.values())
    return told


def public_calls(adapter: type) -> Iterator[str]:
    for name, member in inspect.getmembers(adapter, inspect.iscoroutinefunction):
        if not name.startswith("_"):
            assert member
            yield name


# -- ThingsBoard -------------------------------------------------------------------------------------------------
def platform_arguments(name: str, leaf: Pem) -> tuple[Any, ...]:
    device = PlatformDevice("uuid", "hash")
    return {
        "find": (ID,),
        "create": (ID, None, leaf),
        "put_leaf": (device, leaf),
        "lock_out": (device,),
        "delete": (device,),
        "attributes": (device, ("a",)),
        "write_attributes": (device, {"a": 1}),
        "check": (),
    }[name]


@pytest.mark.parametrize("kind", family(thingsboard.errors), ids=lambda kind: kind.__name__)
async def test_thingsboards_errors_become_failures_of_the_system(kind: type[Exception], leaf: Pem) -> None:
    error = made(kind)
    adapter = platform.ThingsBoardPlatform(Raising(error))
    for name in public_calls(platform.ThingsBoardPlatform):
        told = await left(getattr(adapter, name)(*platform_arguments(name, leaf)), error)
        if told is None:
            assert (name, kind) == ("lock_out", thingsboard.errors.DeviceGone)  # what is gone is locked out
            continue
        assert isinstance(told, SystemFailed)
        assert "ThingsBoard" in str(told)
        assert isinstance(told, ForeignObject) == (name == "create" and kind is thingsboard.errors.DeviceExists)


async def test_leaf_that_cannot_be_read_is_told(leaf: Pem) -> None:
    adapter = platform.ThingsBoardPlatform(Raising(AssertionError("not asked")))
    with pytest.raises(SystemFailed, match="damaged"):
        await adapter.create(ID, None, Pem("no leaf"))
    with pytest.raises(SystemFailed, match="damaged"):
        adapter.credential_of(Pem("no leaf"))


# -- hawkBit -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", family(hawkbit.errors), ids=lambda kind: kind.__name__)
async def test_hawkbits_errors_become_failures_of_the_system(kind: type[Exception]) -> None:
    error = made(kind)
    adapter = updates.HawkbitServer(Raising(error))
    arguments = {"find": (ID,), "create": (ID, "n", "d"), "delete": (ID,), "check": ()}
    for name in public_calls(updates.HawkbitServer):
        told = await left(getattr(adapter, name)(*arguments[name]), error)
        assert isinstance(told, SystemFailed)
        assert "hawkBit" in str(told)
        assert isinstance(told, ForeignObject) == (name == "create" and kind is hawkbit.errors.TargetExists)


# -- step-ca -----------------------------------------------------------------------------------------------------
ORDER = SigningOrder(
    ID, Csr(Pem("csr"), Fingerprint.of(b"csr"), Fingerprint.of(b"k"), b"csr", b"k"), Serial(7), timedelta(days=1)
)
SIGNER: Any = SimpleNamespace(for_sign=lambda *_: "token", for_revoke=lambda *_: "token")
ANCHOR: Any = SimpleNamespace(issuing_ca=None)
CLOCK: Any = SimpleNamespace(now=lambda: None)


@pytest.mark.parametrize("kind", family(ca.errors), ids=lambda kind: kind.__name__)
async def test_the_cas_errors_become_those_of_signing_or_failures_of_the_system(kind: type[Exception]) -> None:
    error = made(kind)
    adapter = authority.StepCaAuthority(Raising(error), SIGNER, ANCHOR, CLOCK)
    wanted = {ca.errors.CaUnreachable: CaUnreachable, ca.errors.CaRefused: CaRefused}
    assert type(await left(adapter.sign(ORDER), error)) is wanted.get(kind, CaBadAnswer)
    arguments = {"revoke": (Serial(7), "r"), "revoked": (), "check": ()}
    for name in set(public_calls(authority.StepCaAuthority)) - {"sign"}:
        told = await left(getattr(adapter, name)(*arguments[name]), error)
        assert isinstance(told, SystemFailed)
        assert "step-ca" in str(told)


@pytest.mark.parametrize("surely", [True, False])
async def test_what_surely_was_not_sent_stays_so(surely: bool) -> None:
    error = ca.errors.CaUnreachable("no", surely_not_sent=surely, check="look")
    told = await left(authority.StepCaAuthority(Raising(error), SIGNER, ANCHOR, CLOCK).sign(ORDER), error)
    assert isinstance(told, CaUnreachable)
    assert told.surely_not_sent is surely


async def test_serials_on_the_crl_that_none_of_ours_can_have_break_nothing() -> None:
    numbers = frozenset({0, 7, (1 << 159) - 1, 1 << 159})

    async def crl(_: Any) -> Any:
        return SimpleNamespace(serials=numbers, is_fresh=lambda _: True)

    adapter = authority.StepCaAuthority(SimpleNamespace(crl=crl), SIGNER, ANCHOR, CLOCK)
    assert await adapter.revoked() == {Serial(7), Serial((1 << 159) - 1)}


async def test_stale_crl_verifies_nothing() -> None:
    async def crl(_: Any) -> Any:
        return SimpleNamespace(serials=frozenset({7}), is_fresh=lambda _: False)

    with pytest.raises(SystemFailed, match="stale"):
        await authority.StepCaAuthority(SimpleNamespace(crl=crl), SIGNER, ANCHOR, CLOCK).revoked()


# -- WireGuard ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", family(wireguard.errors), ids=lambda kind: kind.__name__)
async def test_wireguards_errors_become_failures_of_the_system(
    kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = made(kind)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(peers_file, "write_peers", fail)
    monkeypatch.setattr(applied_file, "read_applied", fail)
    monkeypatch.setattr("bridge.adapters.interface.sync_once", fail)
    (tmp_path / applied_file.APPLIED_FILE).write_text("{}")
    folder = tunnels.SharedFolder(tmp_path)

    told = await left(folder.publish(1, ()), error)
    # Only a newer set of the same registry is no trouble: it holds these peers too.
    assert (told is None) == (kind is wireguard.errors.StaleRevisionError)
    told = await left(folder.applied(), error)
    assert (told is None) == (kind is wireguard.errors.FileMissingError)
    assert isinstance(await left(InterfaceSync(tmp_path, "wg0", None).once(), error), SystemFailed)


def test_interface_and_terms_that_cannot_be_are_the_operators_to_mend(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="--interface"):
        InterfaceSync(tmp_path, "no such/name", None)
