"""The values: what they compute is what ThingsBoard was recorded to compute, and they hold no nonsense."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from thingsboard import answers
from thingsboard.errors import PlatformBadAnswer
from thingsboard.models import CredentialsType, Leaf, PlatformDevice, ServerAttributes, credentials_id
from thingsboard.standin_records import certificate_hash, leaf_hash, normalized

DATA = Path(__file__).parents[2] / "data" / "thingsboard"
ID = "e0158320-e5ba-11f1-9d06-e99a25b22322"


def recorded(name: str) -> dict[str, Any]:
    return json.loads((DATA / f"{name}.json").read_text())


STORED = [
    recorded(name)["response"]["body"]
    for name in ("device_credentials_get", "device_credentials_replace_x509", "device_credentials_renew")
]


@pytest.mark.parametrize("body", STORED)
def test_credentials_id_is_the_recorded_one(body: dict[str, Any]) -> None:
    der = base64.b64decode(body["credentialsValue"])
    assert credentials_id(der) == body["credentialsId"] == Leaf(der).credentials_id == leaf_hash(der)


@pytest.mark.parametrize("name", ["device_credentials_replace_x509", "device_credentials_renew"])
def test_the_pem_that_was_sent_becomes_what_was_stored(name: str) -> None:
    told = recorded(name)
    pem = told["request"]["body"]["credentialsValue"]
    stored = told["response"]["body"]
    assert Leaf.from_pem(pem).pem == pem
    assert normalized(pem) == normalized(pem.replace("\n", "\r\n")) == stored["credentialsValue"]
    assert certificate_hash(normalized(pem)) == stored["credentialsId"]


def test_a_chain_never_has_a_leafs_hash() -> None:
    chain = recorded("device_with_credentials_pem_chain")["request"]["body"]["credentials"]["credentialsValue"]
    first = chain.split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"
    assert certificate_hash(normalized(chain)) != Leaf.from_pem(first).credentials_id
    with pytest.raises(ValueError, match="found 2"):
        Leaf.from_pem(chain)


@pytest.mark.parametrize("junk", ["garbage", "", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_leaf_is_a_certificate(junk: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Leaf.from_pem(junk)
    with pytest.raises(ValueError, match=r"."):
        Leaf(junk.encode())


@pytest.mark.parametrize("junk", ["", "../x", ID.upper(), ID + "/", "{" + ID + "}", ID.replace("-", "")])
def test_an_id_is_a_canonical_uuid(junk: str) -> None:
    with pytest.raises(ValueError, match="UUID"):
        PlatformDevice(junk, "gw-1")


def test_a_token_is_not_shown() -> None:
    stored = answers.credentials(recorded("device_credentials_replace_access_token")["response"]["body"])
    assert stored.is_tombstone
    assert "tttttttt" not in repr(stored)


@pytest.mark.parametrize("kind", ["MQTT_BASIC", "LWM2M_CREDENTIALS", "SOMETHING_NEW"])
def test_unknown_credentials_are_other(kind: str) -> None:
    stored = answers.credentials({**STORED[0], "credentialsType": kind})
    assert stored.type is CredentialsType.OTHER
    assert not stored.is_tombstone
    assert not stored.is_leaf(Leaf(base64.b64decode(STORED[0]["credentialsValue"])))


def test_devices_of_older_and_newer_versions_are_read() -> None:
    body = recorded("device_get")["response"]["body"]
    without = {key: value for key, value in body.items() if key not in {"version", "label", "externalId"}}
    old = answers.device(without)
    assert (old.version, old.label, old.name) == (None, None, "dev-0001")
    assert answers.device({**body, "somethingNew": {"a": []}}).version == 1


@pytest.mark.parametrize(
    "junk",
    [
        None,
        [],
        "device",
        {},
        {"id": "x", "name": "gw-1"},
        {"id": {"id": "x"}, "name": "gw-1"},
        {"id": {"id": ID}},
        {"id": {"id": ID}, "name": ""},
    ],
)
def test_a_device_that_is_none_is_a_bad_answer(junk: object) -> None:
    with pytest.raises(PlatformBadAnswer):
        answers.device(junk)


@pytest.mark.parametrize("junk", [None, {}, [7], [{"value": 1}]])
def test_attributes_that_are_none_are_a_bad_answer(junk: object) -> None:
    with pytest.raises(PlatformBadAnswer):
        answers.attributes(junk)


@pytest.mark.parametrize("junk", [None, {}, {"data": 7}, {"data": [7]}])
def test_a_page_that_is_none_is_a_bad_answer(junk: object) -> None:
    with pytest.raises(PlatformBadAnswer):
        answers.chain_profiles(junk)


def test_a_chain_profile_that_does_not_say_is_warned_about() -> None:
    entry = {"id": {"id": ID}, "name": "p", "provisionType": "X509_CERTIFICATE_CHAIN"}
    [found], more = answers.chain_profiles({"data": [entry, {"id": {"id": ID}, "name": "q"}], "hasNext": True})
    assert (found.name, found.creates_devices, more) == ("p", True, True)


@pytest.mark.parametrize("value", ["true", 1, None, []])
def test_active_is_exactly_true(value: Any) -> None:
    assert not ServerAttributes({"active": value}).active


@pytest.mark.parametrize("value", [7, None, ["x"]])
def test_an_owner_that_is_no_text_is_none(value: Any) -> None:
    assert ServerAttributes({"iot_bridge": value}).installation is None
