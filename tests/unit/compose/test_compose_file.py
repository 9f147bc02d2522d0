"""compose.yaml against what the Compose specification says of the parts it uses, and against the bridge's settings.

The schema is our own: the keys this file uses, with the types the specification gives them (compose-spec, spec.md);
a key that is not in it is an error, so that a slip of the pen is found without Docker.
"""

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from bridge.config import Mode, load, mode_of
from bridge.config.settings import SECRETS, variables
from bridge.config.values import with_files

FILE = Path(__file__).resolve().parents[3] / "compose" / "compose.yaml"

NAME = {"type": "string", "pattern": "^[a-zA-Z0-9._-]+$"}
TEXT = {"type": "string", "minLength": 1}
DURATION = {"type": "string", "pattern": r"^([0-9]+(us|ms|s|m|h))+$"}


def an_object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def a_list(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of, "uniqueItems": True, "minItems": 1}


SERVICE = an_object(
    ["image", "restart"],
    image={"type": "string", "pattern": r"^[a-z0-9./-]+(:[A-Za-z0-9_.-]+)?$"},
    build=an_object(["context"], context=TEXT, dockerfile=TEXT),
    command=a_list(TEXT) | {"uniqueItems": False},
    user={"type": "string"},
    environment={"type": "object", "patternProperties": {"^[A-Z][A-Z0-9_]*$": TEXT}, "additionalProperties": False},
    secrets=a_list(NAME),
    volumes=a_list({"type": "string", "pattern": r"^(\./|[a-z])[\w./-]*:/[\w./-]*(:ro)?$"}),
    ports=a_list({"type": "string", "pattern": r"^(127\.0\.0\.1:)?\d{2,5}:\d{2,5}(/(tcp|udp))?$"}),
    networks=a_list(NAME),
    network_mode={"type": "string", "pattern": "^(none|host|service:[a-z-]+)$"},
    cap_add=a_list({"enum": ["NET_ADMIN"]}),
    sysctls={"type": "object", "additionalProperties": {"type": ["string", "number"]}},
    depends_on={
        "type": "object",
        "additionalProperties": an_object(
            ["condition"],
            condition={"enum": ["service_started", "service_healthy", "service_completed_successfully"]},
        ),
    },
    healthcheck=an_object(
        ["test"],
        test=a_list(TEXT) | {"uniqueItems": False},
        interval=DURATION,
        timeout=DURATION,
        retries={"type": "integer"},
    ),
    restart={"enum": ["no", "always", "on-failure", "unless-stopped"]},
)
SCHEMA = an_object(
    ["name", "services"],
    name={"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
    services={"type": "object", "patternProperties": {"^[a-z0-9-]+$": SERVICE}, "additionalProperties": False},
    networks={"type": "object", "additionalProperties": {"type": ["object", "null"], "maxProperties": 0}},
    volumes={"type": "object", "additionalProperties": {"type": ["object", "null"], "maxProperties": 0}},
    secrets={"type": "object", "additionalProperties": an_object(["file"], file=TEXT)},
)


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return loaded


def test_the_file_says_only_what_compose_understands(stack: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(stack, SCHEMA)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("image", {"image": "UPPER case"}),
        ("ports", {"ports": ["8443"]}),
        ("healthcheck", {"healthcheck": {"test": ["CMD", "x"], "interval": "ten"}}),
        ("enviroment", {"enviroment": {}}),
        ("environment", {"environment": {"BRIDGE_DATA": 1}}),
        ("depends_on", {"depends_on": {"step-ca": {"condition": "healthy"}}}),
    ],
)
def test_the_schema_finds_slips(stack: dict[str, Any], part: str, change: dict[str, Any]) -> None:
    spoilt = stack | {"services": stack["services"] | {"iot-bridge": stack["services"]["iot-bridge"] | change}}
    with pytest.raises(jsonschema.ValidationError) as caught:
        jsonschema.validate(spoilt, SCHEMA)
    assert part in (*caught.value.absolute_path, *re.findall(r"'(\w+)' was unexpected", caught.value.message))


def test_everything_that_is_named_is_defined(stack: dict[str, Any]) -> None:
    for name, service in stack["services"].items():
        assert set(service.get("secrets", ())) <= stack["secrets"].keys(), name
        assert set(service.get("networks", ())) <= stack["networks"].keys(), name
        assert service.get("depends_on", {}).keys() <= stack["services"].keys(), name
        named = {one.partition(":")[0] for one in service.get("volumes", ())}
        assert {one for one in named if not one.startswith(".")} <= stack["volumes"].keys(), name
        for one in (one for one in named if one.startswith("./") and not one.startswith("./tenant/")):
            assert (FILE.parent / one).exists(), one
        if (mode := service.get("network_mode", "")).startswith("service:"):
            assert mode.removeprefix("service:") in stack["services"]
            assert "networks" not in service
    waited = {
        other
        for service in stack["services"].values()
        for other, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_healthy"
    }
    assert all("healthcheck" in stack["services"][other] for other in waited)


def test_images_are_pinned_and_nothing_is_privileged(stack: dict[str, Any]) -> None:
    for name, service in stack["services"].items():
        if "build" in service or service["image"] == "iot-bridge":
            continue
        tag = service["image"].rpartition(":")[2]
        assert re.search(r"\d", tag), name
        assert "latest" not in tag, name


def test_only_what_devices_need_is_open_to_the_world(stack: dict[str, Any]) -> None:
    world = {
        (name, port)
        for name, service in stack["services"].items()
        for port in service.get("ports", ())
        if not port.startswith("127.0.0.1:")
    }
    assert world == {("iot-bridge", "8443:8443"), ("thingsboard", "8883:8883"), ("wireguard", "51820:51820/udp")}


def test_the_bridge_starts_with_this_configuration(stack: dict[str, Any]) -> None:
    given = stack["services"]["iot-bridge"]["environment"]
    known = {*variables(), *(f"{name}_FILE" for name in SECRETS)}
    assert given.keys() <= known
    files = {name: value for name, value in given.items() if name.endswith("_FILE") and name not in variables()}
    assert {value.removeprefix("/run/secrets/") for value in files.values()} == set(
        stack["services"]["iot-bridge"]["secrets"]
    )
    plain = {name: filled(value) for name, value in given.items() if name not in files}
    plain |= {name.removesuffix("_FILE"): "postgresql+psycopg://u:p@h/d" for name in files}
    assert mode_of(load(with_files(plain, SECRETS))) is Mode.REAL


def test_no_secret_is_written_in_the_file(stack: dict[str, Any]) -> None:
    for name, service in stack["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET", variable) and not variable.endswith("_FILE"):
                assert value.startswith("${"), (name, variable)


def filled(value: str) -> str:
    """Fill in variables as Compose does, with something plausible."""
    value = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
    value = re.sub(r"\$\{WG_SERVER_PUBLIC_KEY:\?[^}]*\}", "K9VMxoNS+deVX99jL94uX++XaMt6W2YXI6p+CJm15hw=", value)
    value = re.sub(r"\$\{STEP_CA_FINGERPRINT:\?[^}]*\}", "ab" * 32, value)
    return re.sub(r"\$\{\w+:\?[^}]*\}", "bridge.example.com", value)
