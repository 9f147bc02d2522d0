"""The recorded exchanges of a ThingsBoard 4.2.1 against the client.

For each exchange that the client makes, the client must send exactly the recorded request, and make of the
recorded answer what it stands for. Those it never makes are named, with the reason.
"""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from thingsboard import answers, errors
from thingsboard.client import ThingsBoardClient
from thingsboard.models import Credentials, CredentialsType, Leaf, PlatformDevice

DATA = Path(__file__).parents[2] / "data" / "thingsboard"
DEVICE = "e0158320-e5ba-11f1-9d06-e99a25b22322"
NOBODY = "13814000-1dd2-11b2-8080-808080808080"
PROFILE = "105b6960-e5ba-11f1-a031-d57e890d6e61"


def recorded(name: str) -> dict[str, Any]:
    return json.loads((DATA / f"{name}.json").read_text())


def leaf_of(name: str) -> Leaf:
    body = recorded(name)["request"]["body"]
    return Leaf.from_pem(body.get("credentials", body)["credentialsValue"])


def stored_before(name: str) -> Credentials:
    """The credential as it was read before the recorded write."""
    body = recorded(name)["request"]["body"]
    before = recorded("device_credentials_get")["response"]["body"]
    kept = {key: body[key] for key in ("id", "createdTime", "deviceId", "version")}
    return answers.credentials({**before, **kept})


class Recording:
    """A transport that knows one exchange and answers log-ins and what else the case needs beside it."""

    def __init__(self, name: str, beside: tuple[str, ...] = ()) -> None:
        self.told = recorded(name)
        self.beside = [recorded(other) for other in beside]
        self.asked: list[httpx.Request] = []
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path.startswith("/api/auth/") and not self.told["request"]["path"].startswith("/api/auth/"):
            return httpx.Response(200, json={"token": "abc", "refreshToken": "def"})
        for other in self.beside:
            if self._same(request, other["request"]) and not self._same(request, self.told["request"]):
                return self._answer(other)
        self.asked.append(request)
        return self._answer(self.told)

    @staticmethod
    def _same(request: httpx.Request, told: dict[str, Any]) -> bool:
        return (request.method, request.url.path) == (told["method"], urlsplit(told["path"]).path)

    @staticmethod
    def _answer(told: dict[str, Any]) -> httpx.Response:
        response = told["response"]
        body = response["body"]
        kept = {"content-type"} & response.get("headers", {}).keys()
        headers = {key: response["headers"][key] for key in kept}
        content = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        return httpx.Response(response["status"], content=content, headers=headers)

    def check(self, but_for: frozenset[str]) -> None:
        """Require that the recorded request, and it alone, was sent."""
        told = self.told["request"]
        for request in self.asked:
            assert request.method == told["method"]
            parts = urlsplit(told["path"])
            assert request.url.path == parts.path
            assert sorted(request.url.params.multi_items()) == sorted(parse_qsl(parts.query))
            sent = json.loads(request.content) if request.content else None
            expected = told["body"]
            if isinstance(sent, dict) and isinstance(expected, dict):
                sent, expected = ({k: v for k, v in x.items() if k not in but_for} for x in (sent, expected))
            assert sent == expected
            if "/api/auth/" not in told["path"]:
                assert request.headers["x-authorization"] == "Bearer abc"


Act = Callable[[ThingsBoardClient], Awaitable[Any]]
Case = tuple[str, Act, Any]
TOKEN = "tttttttttttttttttttt"
CREATE = ("device_profile_info_default", "device_credentials_get")


def create(name: str) -> Act:
    body = recorded(name)["request"]["body"]
    device = body["device"]
    return lambda client: client.create_device(device["name"], leaf_of(name), label=device.get("label"))


def is_device(found: Any) -> bool:
    return isinstance(found, PlatformDevice) and (found.id, found.name, found.version) == (DEVICE, "dev-0001", 1)


CASES: list[Case] = [
    ("auth_login_wrong_password", lambda c: c.check(), errors.PlatformRefused),
    ("auth_login_unknown_user", lambda c: c.check(), errors.PlatformRefused),
    ("device_profile_info_default", lambda c: c.default_profile(), lambda x: x == PROFILE),
    ("device_with_credentials_create", create("device_with_credentials_create"), is_device),
    *(
        (f"device_with_credentials_{name}", create(f"device_with_credentials_{name}"), error)
        for name, error in {
            "duplicate_name": errors.DeviceExists,
            "duplicate_name_other_cert": errors.DeviceExists,
            "duplicate_certificate": errors.CertificateTaken,
            "empty_name": errors.PlatformRejected,
        }.items()
    ),
    ("tenant_devices_by_name_found", lambda c: c.find_device("dev-0001"), is_device),
    ("tenant_devices_by_name_not_found", lambda c: c.find_device("nope"), lambda x: x is None),
    ("device_auto_created_by_chain", lambda c: c.find_device("c-0001"), lambda x: x.name == "c-0001"),
    ("device_get", lambda c: c.get_device(DEVICE), is_device),
    ("device_get_not_found", lambda c: c.get_device(NOBODY), lambda x: x is None),
    ("device_credentials_get", lambda c: c.credentials(DEVICE), lambda x: x.version == 1 and not x.is_tombstone),
    (
        "device_credentials_replace_x509",
        lambda c: c.replace_by_leaf(
            stored_before("device_credentials_replace_x509"), leaf_of("device_credentials_replace_x509")
        ),
        lambda x: x.version == 2 and x.is_leaf(leaf_of("device_credentials_replace_x509")),
    ),
    (
        "device_credentials_renew",
        lambda c: c.replace_by_leaf(stored_before("device_credentials_renew"), leaf_of("device_credentials_renew")),
        lambda x: x.version == 2 and x.is_leaf(leaf_of("device_credentials_renew")),
    ),
    (
        "device_credentials_replace_stale_version",
        lambda c: c.replace_by_leaf(
            stored_before("device_credentials_replace_stale_version"),
            leaf_of("device_credentials_replace_stale_version"),
        ),
        errors.StaleVersion,
    ),
    (
        "device_credentials_replace_access_token",
        lambda c: c.replace_by_tombstone(stored_before("device_credentials_replace_access_token")),
        lambda x: x.type is CredentialsType.ACCESS_TOKEN and x.is_tombstone and x.version == 4,
    ),
    (
        "attributes_server_scope_post",
        lambda c: c.write_attributes(DEVICE, recorded("attributes_server_scope_post")["request"]["body"]),
        lambda x: x is None,
    ),
    ("attributes_unknown_device", lambda c: c.write_attributes(NOBODY, {"a": 1}), errors.DeviceGone),
    (
        "attributes_server_scope_get",
        lambda c: c.attributes(DEVICE, "enrollState", "certSerial", "notAfter", "nested", "flag", "missing"),
        lambda x: x.values["nested"] == {"a": 1} and "missing" not in x.values,
    ),
    (
        "attributes_server_scope_after_connect",
        lambda c: c.attributes("a35b49f0-e5bb-11f1-9d06-e99a25b22322"),
        lambda x: x.active and x.last_connect.timestamp() == 1795272950.866 and x.last_disconnect is None,
    ),
    ("attributes_get_unknown_device", lambda c: c.attributes(NOBODY), errors.DeviceGone),
    ("device_delete", lambda c: c.delete_device(DEVICE), lambda x: x is True),
    ("device_delete_not_found", lambda c: c.delete_device(DEVICE), lambda x: x is False),
    (
        "rulechain_create",
        lambda c: c.request("POST", "/api/ruleChain", recorded("rulechain_create")["request"]["body"]),
        lambda x: x["name"] == "Enrollment bridge",
    ),
    *(
        (name, lambda c, n=name: c.request("GET", recorded(n)["request"]["path"]), lambda x: x["nodes"])
        for name in ("rulechain_metadata_get", "root_rulechain_metadata_get", "root_rulechain_metadata_get_after")
    ),
    *(
        (
            name,
            lambda c, n=name: c.request("POST", "/api/ruleChain/metadata", recorded(n)["request"]["body"]),
            expected,
        )
        for name, expected in {
            "rulechain_metadata_post": lambda x: x["version"] == 2,
            "rulechain_metadata_post_highpriority": lambda x: x["version"] == 6,
            "rulechain_metadata_post_checkpoint_highpriority": lambda x: x["version"] == 15,
            "root_rulechain_metadata_post_attach": lambda x: x["version"] == 3,
            "root_rulechain_metadata_post_stale": errors.StaleVersion,
        }.items()
    ),
]
ELSEWHERE = {
    "auth_login_ok": "test_expired_token_is_refreshed_and_the_call_repeated (the recording hides the tokens)",
    "auth_token_refresh": "test_expired_token_is_refreshed_and_the_call_repeated (the recording hides the tokens)",
    "auth_expired_token_401": "test_any_401_means_log_in_again_once",
    "auth_bad_signature_401": "test_any_401_means_log_in_again_once",
    "auth_garbage_token_401": "test_any_401_means_log_in_again_once",
    "auth_no_token_401": "test_any_401_means_log_in_again_once",
    "auth_refresh_garbage_401": "test_refused_refresh_falls_back_to_the_password",
    "device_with_credentials_garbage_cert": "test_garbage_and_chains_never_leave",
    "device_with_credentials_pem_chain": "test_garbage_and_chains_never_leave",
    "device_get_malformed_id": "test_an_id_that_is_no_uuid_never_leaves",
    "attributes_server_scope_post_empty": "test_no_attributes_are_no_request",
}
NEVER_SENT = {
    "device_with_credentials_malformed_json": "the client writes JSON",
    "device_with_credentials_unknown_profile": "the client names the default profile it was told",
    "device_with_credentials_no_profile": "the client always names the profile",
    "device_credentials_replace_without_id": "the client sends back the object that it read",
    "attributes_client_scope_rejected": "the client writes server scope only",
    "attributes_server_scope_post_short_route": "an older spelling of the same route",
    "attributes_server_scope_delete": "no phase deletes attributes",
    "device_auto_created_attributes": "the client reads one scope",
    "tenant_devices_list": "the bridge asks for one name, never for the fleet",
    "device_update": "no phase changes a device's label",
    "device_update_stale_version_409": "no phase changes a device's label",
    "device_profile_create_x509_chain": "the bridge makes no profiles",
    "device_profile_duplicate_ca": "the bridge makes no profiles",
    "queues_list": "the chain names the queue HighPriority, which every installation has",
}
BUT_FOR = {"device_credentials_renew": frozenset({"credentialsId"})}
"""Fields that the recording sends otherwise: there the old hash, which ThingsBoard overwrites as it does null."""


def board(recording: Recording) -> ThingsBoardClient:
    http = httpx.AsyncClient(transport=httpx.MockTransport(recording))
    body = recording.told["request"]["body"]
    wrong = "/api/auth/" in recording.told["request"]["path"]
    user = (body["username"], body["password"]) if wrong else ("somebody", "something")
    return ThingsBoardClient(http, "http://127.0.0.1:8080", *user, random_token=lambda: TOKEN)


@pytest.mark.parametrize(("name", "act", "expected"), CASES, ids=[case[0] for case in CASES])
async def test_client_sends_and_understands_the_recorded_exchange(name: str, act: Act, expected: Any) -> None:
    recording = Recording(name, beside=CREATE if name.startswith("device_with") else ())
    client = board(recording)
    if isinstance(expected, type):
        with pytest.raises(expected) as caught:
            await act(client)
        assert type(caught.value) is expected
    else:
        assert expected(await act(client))
    assert recording.asked, "the recorded request was never made"
    recording.check(BUT_FOR.get(name, frozenset()))


@pytest.mark.parametrize(
    "name",
    ["auth_expired_token_401", "auth_bad_signature_401", "auth_garbage_token_401", "auth_no_token_401"],
)
async def test_any_401_means_log_in_again_once(name: str) -> None:
    recording = Recording(name)
    with pytest.raises(errors.PlatformRefused):
        await board(recording).find_device("x")
    paths = [request.url.path for request in recording.requests]
    assert paths == ["/api/auth/login", "/api/tenant/devices", "/api/auth/token", "/api/tenant/devices"]


@pytest.mark.parametrize("name", ["device_with_credentials_garbage_cert", "device_with_credentials_pem_chain"])
def test_garbage_and_chains_never_leave(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        leaf_of(name)


async def test_an_id_that_is_no_uuid_never_leaves() -> None:
    recording = Recording("device_get_malformed_id")
    with pytest.raises(ValueError, match="not a UUID"):
        await board(recording).get_device("not-a-uuid")
    assert not recording.requests


async def test_no_attributes_are_no_request() -> None:
    recording = Recording("attributes_server_scope_post_empty")
    await board(recording).write_attributes(DEVICE, {})
    assert not recording.requests


def test_every_recording_has_its_place(record_property: Any) -> None:
    exchanges = {path.stem for path in DATA.glob("*.json") if "response" in json.loads(path.read_text())}
    made = {case[0] for case in CASES}
    assert made | ELSEWHERE.keys() | NEVER_SENT.keys() == exchanges
    assert len(made) + len(ELSEWHERE) + len(NEVER_SENT) == len(exchanges)
    summary = (
        f"{len(made) + len(ELSEWHERE)} of {len(exchanges)} recorded exchanges replayed against the client; "
        f"{len(NEVER_SENT)} that it never makes: {NEVER_SENT}"
    )
    record_property("replayed_by_client", summary)
    print(summary)  # noqa: T201 - the count is the report
