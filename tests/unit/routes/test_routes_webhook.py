"""The webhook: answered at once and with 202 whatever it says; believed in nothing but a name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.adapters.platform import device_names
from bridge.routes.parts import WebhookTerms

HOOK = "/webhooks/thingsboard"
RECORDED = Path(__file__).parents[2] / "data" / "thingsboard"


def event(name: object) -> bytes:
    return json.dumps({"event": "CONNECT_EVENT", "deviceName": name}).encode()


@pytest.fixture
def signed(secrets_of_webhook: tuple[str, str]) -> Any:
    return {"X-Bridge-Webhook-Secret": secrets_of_webhook[0]}


async def test_a_connect_event_becomes_a_hint(house: Any, signed: dict[str, str]) -> None:
    async with house.client() as client:
        answer = await client.post(HOOK, content=event("pump-7"), headers=signed)

    assert (answer.status_code, answer.content) == (202, b"{}")
    assert [device.value for device in house.hinted] == ["pump-7"]
    assert house.counted("iot_bridge_webhooks_total", outcome="accepted") == 1


async def test_both_secrets_are_good_while_they_are_rotated(house: Any, secrets_of_webhook: tuple[str, str]) -> None:
    async with house.client() as client:
        answers = [
            await client.post(HOOK, content=event("pump-7"), headers={"X-Bridge-Webhook-Secret": secret})
            for secret in secrets_of_webhook
        ]

    assert [answer.status_code for answer in answers] == [202, 202]


@pytest.mark.parametrize(
    "shown", [None, "", "wrong", "first-secret-of-the-webhook ", "FIRST-SECRET-OF-THE-WEBHOOK", "é"]
)
async def test_a_wrong_secret_is_401_and_the_body_is_not_looked_at(house: Any, shown: Any) -> None:
    headers = [] if shown is None else [(b"X-Bridge-Webhook-Secret", shown.encode() or b"x")]
    async with house.client() as client:
        answer = await client.post(HOOK, content=b"x" * 100_000, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert "BRIDGE_WEBHOOK_SECRET" in answer.json()["detail"]
    assert "www-authenticate" in answer.headers
    assert house.hinted == []
    assert house.counted("iot_bridge_webhooks_total", outcome="unauthorized") == 1


async def test_every_secret_is_compared_in_full_and_in_constant_time(
    house: Any, secrets_of_webhook: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def compare(shown: Any, secret: Any) -> Any:
        compared.append(secret)
        return shown == secret

    monkeypatch.setattr("bridge.routes.webhook.hmac.compare_digest", compare)
    async with house.client() as client:
        await client.post(HOOK, content=b"{}", headers={"X-Bridge-Webhook-Secret": secrets_of_webhook[0]})

    assert compared == [secret.encode() for secret in secrets_of_webhook]


async def test_without_a_secret_the_door_is_shut(house: Any) -> None:
    shut = replace(house.parts.webhook, secrets=())
    async with house.client(webhook=shut) as client:
        answer = await client.post(HOOK, content=event("pump-7"), headers={"X-Bridge-Webhook-Secret": ""})

    assert answer.status_code == 401


@pytest.mark.parametrize("secrets", [("",), ("a", ""), ("a", "b", "c")])
def test_secrets_that_make_no_sense_are_refused_at_start(secrets: Any) -> None:
    with pytest.raises(ValueError, match="secrets"):
        WebhookTerms(secrets, lambda *_: (), lambda _: True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"junk",
        b"\xff\xfe",
        b"[" * 30_000,
        b'{"event":"ENTITY_UPDATED","deviceName":"pump-7"}',
        b'{"event":"CONNECT_EVENT"}',
        event(None),
        event(["pump-7"]),
    ],
)
async def test_junk_and_events_that_are_not_ours_are_202(house: Any, signed: dict[str, str], body: Any) -> None:
    async with house.client() as client:
        answer = await client.post(HOOK, content=body, headers=signed)

    assert answer.status_code == 202
    assert house.hinted == []


@pytest.mark.parametrize("name", ["", "a/b", "..", "bridge.test", "10.0.0.1", "x" * 500, "a\nb"])
async def test_a_name_that_cannot_be_a_device_is_202_and_counted(house: Any, signed: dict[str, str], name: Any) -> None:
    async with house.client() as client:
        answer = await client.post(HOOK, content=event(name), headers=signed)

    assert answer.status_code == 202
    assert house.hinted == []
    assert house.counted("iot_bridge_webhook_unknown_devices_total") == 1
    assert house.counted("iot_bridge_webhooks_total", outcome="ignored") == 1


async def test_no_room_for_the_hint_is_202_and_counted(house: Any, signed: dict[str, str]) -> None:
    house.room_for_hints = False
    async with house.client() as client:
        answer = await client.post(HOOK, content=event("pump-7"), headers=signed)

    assert answer.status_code == 202
    assert house.counted("iot_bridge_webhooks_total", outcome="dropped") == 1


@pytest.mark.parametrize("broken", ["event_names", "look_at"])
async def test_a_fault_of_ours_is_202_too_and_in_the_log(house: Any, signed: dict[str, str], broken: str) -> None:
    def fail(*_args: Any) -> None:
        raise RuntimeError("a fault")

    async with house.client(webhook=replace(house.parts.webhook, **{broken: fail})) as client:
        with capture_logs() as logs:
            answer = await client.post(HOOK, content=event("pump-7"), headers=signed)

    assert answer.status_code == 202
    assert [line["log_level"] for line in logs] == ["error", "info"]
    assert house.counted("iot_bridge_webhooks_total", outcome="unreadable") == 1


async def test_over_the_limit_is_413(house: Any, signed: dict[str, str]) -> None:
    async with house.client() as client:
        answer = await client.post(HOOK, content=b"x" * (32 * 1024 + 1), headers=signed)

    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_the_same_event_a_thousand_times(house: Any, signed: dict[str, str]) -> None:
    async with house.client() as client:
        statuses = {(await client.post(HOOK, content=event("pump-7"), headers=signed)).status_code for _ in range(1000)}

    assert statuses == {202}
    assert len(house.hinted) == 1000


async def test_the_secret_is_nowhere_in_logs_or_answers(house: Any, secrets_of_webhook: tuple[str, str]) -> None:
    with capture_logs() as logs:
        async with house.client() as client:
            bad = await client.post(HOOK, content=b"{}", headers={"X-Bridge-Webhook-Secret": "shown-but-wrong"})
            good = await client.post(HOOK, content=b"{}", headers={"X-Bridge-Webhook-Secret": secrets_of_webhook[0]})

    for secret in (*secrets_of_webhook, "shown-but-wrong"):
        assert secret not in str(logs) + bad.text + good.text + repr(house.parts.webhook)


EXCHANGES = {path.stem: json.loads(path.read_text())["request"] for path in sorted(RECORDED.glob("webhook_*.json"))}


@pytest.mark.parametrize("name", EXCHANGES)
async def test_every_recorded_request_of_a_real_platform(house: Any, signed: dict[str, str], name: str) -> None:
    recorded = EXCHANGES[name]
    headers = [tuple(header) for header in recorded["headers"] if header[0].lower() != "host"]
    async with house.client(webhook=replace(house.parts.webhook, event_names=device_names)) as client:
        answer = await client.post(HOOK, content=recorded["bodyRaw"].encode(), headers=[*headers, *signed.items()])

    assert answer.status_code == 202
    named = {"webhook_connect_envelope", "webhook_connect_envelope_with_id"}
    assert bool(house.hinted) == (name in named or name.startswith("webhook_failure"))
