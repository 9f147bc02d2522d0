"""A first boot against everything a hostile or broken bridge can answer: refused in its own words, nothing stored."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from enroll.errors import AnswerRejectedError, RefusedError, TryAgainError
from enroll.names import Fingerprint
from tests.unit.enroll.hostility import (
    A_DAY,
    ANSWERS,
    CONTROLS,
    TEXTS,
    beside,
    changed,
    neighbour,
    own_key,
    picture,
)


@pytest.fixture
def waiting(device: Any, problem: Any) -> Any:
    """A device with keys that was not admitted yet."""
    device.bridge.script = [lambda _: problem(403, "not_admitted")]
    with pytest.raises(RefusedError):
        device.run(budget=1.0)
    assert device.files() == {"device.key", "device.csr", "wg.key"}
    return device


def refused(device: Any, words: str, **settings: Any) -> str:
    """See the run refuse the answer in these words, with the folder as it was; return the text."""
    before = picture(device.folder)
    with pytest.raises(AnswerRejectedError, match=words) as caught:
        device.run(budget=1.0, **settings)
    assert picture(device.folder) == before
    return str(caught.value)


@pytest.mark.parametrize("name", [*ANSWERS, "pending"])
def test_an_answer_that_does_not_hold_is_refused_whole(
    waiting: Any, pki: Any, reply: Any, name: str, count: Callable[[str, int], None]
) -> None:
    count("hostile answers to an enrollment", 1)
    more = {"pending": (changed(state="pending"), "no answer to what was asked")}
    make, words = (ANSWERS | more)[name]
    waiting.bridge.enroll = lambda request: reply(make(waiting.bridge, pki, request), 201)
    refused(waiting, words)
    waiting.bridge.enroll = lambda request: reply(waiting.bridge.answer(request), 201)
    waiting.run()
    assert len({post["csr_pem"] for post in waiting.bridge.posts}) == 1


@pytest.mark.parametrize("field", TEXTS)
def test_no_control_character_comes_through_a_text(waiting: Any, pki: Any, reply: Any, field: str) -> None:
    for bad in CONTROLS:
        make = TEXTS[field](bad)
        waiting.bridge.enroll = lambda request, make=make: reply(make(waiting.bridge, pki, request), 201)
        text = refused(waiting, re.escape(field.partition(",")[0]))
        assert text.isprintable()


OWN_WORDS = (
    *("another key's certificate", "another device's certificate", "wrong order", "self-signed issuer", "serverAuth"),
    *("expired issuer", "expired", "another root", "gap", "issued by a device", "path length", "CA leaf", "no SAN"),
    *("address 127.0.0.1/32", "address 224.0.0.1/32", "address of somebody", "wg: the whole world", "missing field"),
)


def test_each_is_refused_in_words_of_its_own(waiting: Any, pki: Any, reply: Any) -> None:
    texts = {}
    for name in OWN_WORDS:
        make, words = ANSWERS[name]
        waiting.bridge.enroll = lambda request, make=make: reply(make(waiting.bridge, pki, request), 201)
        texts[name] = refused(waiting, words)
    for name, text in texts.items():
        assert [other for other in OWN_WORDS if re.search(ANSWERS[other][1], text)] == [name], text


def test_what_config_texts_say_never_reaches_the_disk(device: Any, reply: Any) -> None:
    evil = "[Interface]\nPostUp = touch /tmp/never\n[Peer]\nPostDown = id\n"
    texts = {"wireguard_config": evil, "config": evil, "wg_config": evil}
    device.bridge.enroll = lambda r: reply(device.bridge.answer(r, wg={"config": evil, "PostUp": "id"}) | texts, 201)
    device.run()
    device.run(renew_now=True)
    assert "renewed" in device.names()
    for content, *_ in picture(device.folder).values():
        assert b"PostUp" not in content
        assert b"PostDown" not in content


# -- the second pin --------------------------------------------------------------------------------------------------


def test_another_tenants_leaf_is_refused_with_the_second_pin(waiting: Any, pki: Any, reply: Any) -> None:
    waiting.bridge.enroll = lambda r: reply(beside(neighbour)(waiting.bridge, pki, r))
    refused(waiting, "pinned issuing CA", issuer_pins=(Fingerprint(pki.digest(pki.sub.certificate)),))
    waiting.run()  # without it, and only then, the provider's root is enough


def test_a_second_pin_that_nobody_serves_is_named(waiting: Any) -> None:
    refused(waiting, "ENROLL_ISSUER_FINGERPRINT", issuer_pins=(Fingerprint("cd" * 32),))


# -- the server's time -----------------------------------------------------------------------------------------------

LIES = {
    "before all": "1970-01-02T00:00:00Z",
    "before the floor": "NOW - 400",
    "before the leaf": "NOW - 1",
    "after the leaf": "NOW + 31",
    "after the server's certificate": "NOW + 500",
    "after the root": "2199-01-01T00:00:00Z",
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_about_the_time_is_no_time(waiting: Any, pki: Any, reply: Any, name: str) -> None:
    lie = LIES[name]
    if lie.startswith("NOW"):
        lie = (pki.now + A_DAY * int(lie.removeprefix("NOW").replace(" ", ""))).isoformat()
    right = waiting.clock.belief
    waiting.bridge.enroll = lambda r: reply(waiting.bridge.answer(r, server_time=lie), 201)
    # A device without a clock has nothing else to go by, and says so.
    waiting.clock.belief = pki.now.replace(year=1970)
    refused(waiting, "the bridge's time .* does not hold against its own certificates", set_clock=True)
    # One with a clock goes by that.
    waiting.clock.belief = right
    waiting.run(set_clock=True)
    assert waiting.event("enrolled")["enrolled_at"] == right.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert "clock" not in waiting.names()


def test_the_time_must_lie_within_the_server_chain_and_not_only_within_the_leaf(
    waiting: Any, pki: Any, reply: Any
) -> None:
    """The leaf is as long as the root, so that only the server's own certificate (400 days) contradicts."""
    long = {"begin": pki.now - A_DAY, "end": pki.now + 1500 * A_DAY}
    waiting.bridge.enroll = lambda r: reply(
        waiting.bridge.answer(
            r,
            leaf=pki.sub.leaf(own_key(r), "dev-1", **long),
            server_time=(pki.now + 500 * A_DAY).isoformat(),
        )
    )
    waiting.clock.belief = pki.now.replace(year=1970)
    refused(waiting, "does not hold against its own certificates")


def test_the_old_files_survive_a_bad_answer(device: Any, reply: Any) -> None:
    device.run()
    (device.folder / "enrolled").unlink()
    device.bridge.enroll = lambda r: reply(device.bridge.answer(r, device_id="dev-2"))
    before = picture(device.folder)
    with pytest.raises(TryAgainError):
        device.run(budget=1.0)
    assert picture(device.folder) == before
