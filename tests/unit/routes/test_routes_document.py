"""The API document: valid, complete, true to what the doors take and answer, and readable without a network."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from fastapi.openapi.models import OpenAPI
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from bridge.routes.bodies import ActivateFields, EnrollFields
from bridge.routes.documentation import describe
from bridge.routes.documentation.page import render_page
from enroll.wire import Code, EnrollAnswer, EnrollRequest, Problem

DOCUMENT = describe("1.2.3", "/api")
OPERATIONS = [
    (method, address, operation)
    for address, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]


HOME = "urn:the-document"
REGISTRY = Registry().with_resource(HOME, Resource.from_contents(DOCUMENT, default_specification=DRAFT202012))


def validator(schema: Any) -> Any:
    """References of an extract lead into the whole document."""
    extract = json.loads(json.dumps(schema).replace('"#/components', f'"{HOME}#/components'))
    return Draft202012Validator(extract, registry=REGISTRY, format_checker=Draft202012Validator.FORMAT_CHECKER)


def media_types() -> Any:
    for method, address, operation in OPERATIONS:
        yield f"{method} {address} request", operation.get("requestBody", {}).get("content", {})
        for status, answer in operation["responses"].items():
            yield f"{method} {address} {status}", answer.get("content", {})


def test_it_is_an_openapi_document() -> None:
    OpenAPI.model_validate(DOCUMENT)
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(names) == len(set(names))
    for _, address, operation in OPERATIONS:
        assert operation["summary"]
        declared = {parameter["name"] for parameter in operation.get("parameters", ())}
        assert declared == {part.strip("{}") for part in address.split("/") if part.startswith("{")}


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_every_schema_is_one_and_its_examples_fit(name: Any) -> None:
    schema = DOCUMENT["components"]["schemas"][name]
    Draft202012Validator.check_schema(schema)
    for example in schema.get("examples", ()):
        validator(schema).validate(example)


def test_every_example_fits_its_schema() -> None:
    checked = 0
    for where, content in media_types():
        for media in content.values():
            for name, example in media.get("examples", {}).items():
                errors = list(validator(media["schema"]).iter_errors(example["value"]))
                assert not errors, (where, name, errors)
                checked += 1
    assert checked > 100


async def test_every_documented_address_is_served_and_every_served_one_documented(house: Any) -> None:
    served = {
        (method, route.path.replace(":anything", ""))
        for route in house.app.routes
        for method in route.methods - {"HEAD"}
    }
    documented = {(method.upper(), address) for method, address, _ in OPERATIONS}
    assert served - documented == {("GET", "/openapi.json"), ("GET", "/docs")}
    assert documented <= served


def test_every_code_is_explained() -> None:
    problem = DOCUMENT["components"]["schemas"]["Problem"]["properties"]["code"]
    assert set(problem["enum"]) == {str(code) for code in Code}
    for code in Code:
        assert f"`{code}`" in problem["description"]


def test_every_code_has_an_example_at_an_operation_that_can_answer_it() -> None:
    shown = {
        example["value"]["code"]
        for _, content in media_types()
        for example in content.get("application/problem+json", {}).get("examples", {}).values()
    }
    assert shown == {str(code) for code in Code}


def test_problem_examples_are_what_a_device_understands() -> None:
    for where, content in media_types():
        for name, example in content.get("application/problem+json", {}).get("examples", {}).items():
            problem = Problem.from_json(example["value"]["status"], example["value"])
            assert problem is not None
            assert str(problem.status) == where.rsplit(" ", 1)[1]
            assert problem.code == name


def test_the_old_dialect_is_marked_deprecated() -> None:
    by_name = {operation["operationId"]: operation for _, _, operation in OPERATIONS}
    schemas = DOCUMENT["components"]["schemas"]
    assert by_name["enrollById"]["deprecated"]
    assert by_name["enrollUnderPrefix"]["deprecated"]
    assert "deprecated" not in by_name["enroll"]
    for name in ("OldEnrollmentRequest", "OldEnrollmentRequestWithId", "OldEnrollmentAnswer"):
        assert schemas[name]["deprecated"]


def test_request_fields_are_those_of_the_protocol_and_of_the_parser() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert set(schemas["EnrollmentRequest"]["properties"]) == set(EnrollRequest.__slots__)
    assert set(schemas["ActivationRequest"]["properties"]) == set(ActivateFields.model_fields) == {"proof"}
    every = {name for kind in schemas if "EnrollmentRequest" in kind for name in schemas[kind]["properties"]}
    assert every == set(EnrollFields.model_fields)


@pytest.mark.parametrize("path", ["/devices/pump-7/enroll", "/v1/enroll"])
@pytest.mark.parametrize("field", ["csr_pem", "csr"])
@pytest.mark.parametrize("tunnel", [True, False])
async def test_real_answers_fit_the_document(
    open_house: Any, new_csr: Callable[..., str], new_wg_key: Callable[[], str], path: Any, field: str, tunnel: bool
) -> None:
    body = {field: new_csr("pump-7"), "device_id": "pump-7"} | ({"wg_public_key": new_wg_key()} if tunnel else {})
    async with open_house.client() as client:
        answer = await client.post(path, json=body)

    old = field == "csr" or path == "/v1/enroll"
    schema = DOCUMENT["components"]["schemas"]["OldEnrollmentAnswer" if old else "EnrollmentAnswer"]
    validator(schema).validate(answer.json())
    EnrollAnswer.from_json(answer.json())
    known = set(DOCUMENT["components"]["schemas"]["EnrollmentAnswer"]["properties"])
    known |= set(DOCUMENT["components"]["schemas"]["OldEnrollmentAnswer"]["allOf"][1]["properties"]) if old else set()
    assert set(answer.json()) == known


async def test_document_and_page_are_served(house: Any) -> None:
    async with house.client() as client:
        document, page = await client.get("/openapi.json"), await client.get("/docs")

    assert document.json() == DOCUMENT
    assert house.app.openapi() == DOCUMENT
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script" not in page.headers["content-security-policy"]


class Tags(HTMLParser):
    """Notes what is opened and checks that it is closed in order."""

    void = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.links: set[str] = set()
        self.ids: set[str] = set()

    def handle_starttag(self, tag: Any, attrs: Any) -> None:
        self.seen.add(tag)
        found = dict(attrs)
        self.links |= {found[name] for name in ("href", "src") if name in found}
        self.ids |= {found["id"]} if "id" in found else set()
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: Any) -> None:
        assert self.open.pop() == tag


def test_the_page_is_plain_html_that_loads_nothing_and_says_everything() -> None:
    page = render_page(DOCUMENT)
    tags = Tags()
    tags.feed(page)
    tags.close()
    assert tags.open == []
    assert tags.seen.isdisjoint({"script", "link", "img", "iframe"})
    assert tags.links - {"openapi.json"} <= {f"#{name}" for name in tags.ids}
    for _, address, operation in OPERATIONS:
        assert address in page
        assert operation["summary"].split("`")[0] in page
    for code in Code:
        assert f"<code>{code}</code>" in page


def test_the_page_escapes_every_text() -> None:
    evil = describe("<script>alert(1)</script>", "")
    evil["tags"][0] = evil["tags"][0] | {"description": "<img src=x> `<b>`"}
    page = render_page(evil)
    assert "<script>" not in page
    assert "<img" not in page
    assert "<code>&lt;b&gt;</code>" in page
