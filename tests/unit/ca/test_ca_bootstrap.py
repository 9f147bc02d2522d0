"""First trust: attacks by whoever answers the one unverified connection."""

import asyncio
import ssl
from datetime import datetime
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from ca.bootstrap import context_for, context_for_root, fetch_trust
from ca.errors import CaBadAnswer, CaMisconfigured, CaUnreachable
from ca.models import Fingerprint
from ca.path import anchor_of
from ca.standin.hierarchy import Hierarchy, make_authority, make_hierarchy


def connect(tls: ssl.SSLContext) -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=tls)


def pem(*certificates: Any) -> str:
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in certificates)


async def fail(server: Any, fingerprint: Fingerprint) -> Exception:
    with pytest.raises((CaBadAnswer, CaMisconfigured, CaUnreachable)) as caught:
        await fetch_trust(server.url, fingerprint, connect, seconds=2)
    return caught.value


async def test_attack_another_root_for_our_fingerprint(
    hostile: Any, answer_with: Any, now: datetime, hierarchy: Any
) -> None:
    evil = make_hierarchy(now)
    async with hostile(lambda _m, _p: answer_with(200, {"ca": pem(evil.root.certificate)}), pki=evil) as server:
        error = await fail(server, hierarchy.anchor.root_fingerprint)
        assert server.asked == [f"GET /root/{hierarchy.anchor.root_fingerprint}"]
    assert isinstance(error, CaBadAnswer)
    assert error.failed == "root"


async def test_attack_two_certificates_in_one_answer(
    hostile: Any, answer_with: Any, hierarchy: Any, now: datetime
) -> None:
    both = pem(hierarchy.root.certificate, make_hierarchy(now).root.certificate)
    async with hostile(lambda _m, _p: answer_with(200, {"ca": both})) as server:
        error = await fail(server, hierarchy.anchor.root_fingerprint)
    assert isinstance(error, CaBadAnswer)
    assert error.failed == "pem"


async def test_attack_redirect_is_not_followed(hostile: Any, answer_with: Any, hierarchy: Any) -> None:
    async with hostile(lambda _m, _p: answer_with(200, {"ca": pem(hierarchy.root.certificate)})) as elsewhere:
        where = f"{elsewhere.url}/root/{hierarchy.anchor.root_fingerprint}"
        for status in (301, 302, 307, 308):
            async with hostile(lambda _m, _p, s=status: answer_with(s, "", location=where)) as server:
                error = await fail(server, hierarchy.anchor.root_fingerprint)
            assert isinstance(error, CaBadAnswer)
            assert error.failed == "status"
        assert elsewhere.asked == []


async def test_attack_a_leaf_pinned_as_root(hostile: Any, answer_with: Any, forge: Any) -> None:
    leaf = forge.leaf()
    async with hostile(lambda _m, _p: answer_with(200, {"ca": pem(leaf)})) as server:
        error = await fail(server, Fingerprint.of(leaf))
    assert isinstance(error, CaBadAnswer)


@pytest.mark.parametrize("body", ["<html>", {"ca": 5}, {"ca": ""}, {}, [], {"ca": "garbage"}])
async def test_attack_nonsense_for_a_root(hostile: Any, answer_with: Any, hierarchy: Any, body: Any) -> None:
    async with hostile(lambda _m, _p: answer_with(200, body)) as server:
        assert isinstance(await fail(server, hierarchy.anchor.root_fingerprint), CaBadAnswer)


async def test_attack_right_root_but_a_server_of_another_one(
    hostile: Any, answer_with: Any, now: datetime, hierarchy: Any
) -> None:
    """The man in the middle passes our root on, which is public, and is stopped at the second connection."""
    answer = answer_with(200, {"ca": pem(hierarchy.root.certificate)})
    async with hostile(lambda _m, _p: answer, pki=make_hierarchy(now)) as server:
        error = await fail(server, hierarchy.anchor.root_fingerprint)
        assert server.asked == [f"GET /root/{hierarchy.anchor.root_fingerprint}"]
    assert isinstance(error, CaUnreachable)


async def test_attack_silence(hostile: Any, hierarchy: Any) -> None:
    async def never() -> bytes:
        await asyncio.Event().wait()
        return b""

    async with hostile(lambda _m, _p: asyncio.ensure_future(never())) as server:
        with pytest.raises(CaUnreachable, match="within"):
            await fetch_trust(server.url, hierarchy.anchor.root_fingerprint, connect, seconds=0.2)


def _ca(answer_with: Any, root: Any, roots: list[Any], intermediates: list[Any]) -> Any:
    def answer(_method: str, path: str) -> bytes:
        if path.startswith("/root/"):
            found = root is not None and path.endswith(Fingerprint.of(root).value)
            return answer_with(200, {"ca": pem(root)}) if found else answer_with(404, {"status": 404, "message": "x"})
        listed = roots if path == "/roots" else intermediates
        return answer_with(201, {"crts": [pem(one) for one in listed]})

    return answer


async def test_sub_ca_pin_takes_the_root_that_issued_the_chain(
    hostile: Any, answer_with: Any, hierarchy: Any, now: datetime
) -> None:
    stranger = make_hierarchy(now).root.certificate
    anchor = hierarchy.anchor
    answering = _ca(answer_with, anchor.root, [stranger, anchor.root], list(anchor.chain))
    async with hostile(answering) as server:
        assert await fetch_trust(server.url, anchor.issuing_fingerprint, connect) == anchor


async def test_attack_sub_ca_pin_with_a_root_that_issued_nothing(
    hostile: Any, answer_with: Any, hierarchy: Any, now: datetime
) -> None:
    stranger, anchor = make_hierarchy(now).root.certificate, hierarchy.anchor
    async with hostile(_ca(answer_with, None, [stranger], list(anchor.chain))) as server:
        error = await fail(server, anchor.issuing_fingerprint)
    assert isinstance(error, CaBadAnswer)
    assert error.failed == "chain"


async def test_attack_sub_ca_pin_and_a_server_of_another_tenant(
    hostile: Any, answer_with: Any, forge: Any, hierarchy: Any
) -> None:
    theirs = Hierarchy(hierarchy.root, hierarchy.intermediate, forge.other_tenant())
    anchor = hierarchy.anchor
    async with hostile(_ca(answer_with, anchor.root, [anchor.root], list(anchor.chain)), pki=theirs) as server:
        assert isinstance(await fail(server, anchor.issuing_fingerprint), CaUnreachable)


async def test_partial_chain_tells_tenants_under_one_root_apart(
    hostile: Any, answer_with: Any, forge: Any, hierarchy: Any
) -> None:
    theirs = Hierarchy(hierarchy.root, hierarchy.intermediate, forge.other_tenant())
    async with hostile(lambda _m, _p: answer_with(200, {}), pki=theirs) as server:
        async with connect(context_for_root(hierarchy.anchor)) as http:
            assert (await http.get(server.url)).status_code == 200
        async with connect(context_for(hierarchy.anchor)) as http:
            with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                await http.get(server.url)


async def test_host_names_are_checked(hostile: Any, answer_with: Any, hierarchy: Any) -> None:
    answering = hostile(lambda _m, _p: answer_with(200, {}), names=("bridge.example.com",))
    async with answering as server, connect(context_for(hierarchy.anchor)) as http:
        with pytest.raises(httpx.ConnectError, match="Hostname mismatch"):
            await http.get(server.url)


def test_a_path_needs_every_step(hierarchy: Any, now: datetime) -> None:
    root, middle, issuing = (a.certificate for a in (hierarchy.root, hierarchy.intermediate, hierarchy.issuing))
    assert anchor_of(root, issuing, [middle, issuing]) == hierarchy.anchor
    with pytest.raises(CaBadAnswer) as caught:
        anchor_of(root, issuing, [])
    assert caught.value.failed == "chain"
    with pytest.raises(CaBadAnswer) as caught:
        anchor_of(middle, issuing, [])
    assert caught.value.failed == "root"
    direct = make_authority("Direct", hierarchy.root, 0, now, 1).certificate
    assert anchor_of(root, direct, [middle]).intermediates == ()
