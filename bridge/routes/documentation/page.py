"""The API document as one page of plain HTML: no script, nothing loaded from elsewhere, readable without a network."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
code,pre{font:14px/1.4 ui-monospace,monospace;background:#f3f5f7;border-radius:4px}code{padding:.1em .3em}
pre{padding:.8em;overflow-x:auto;white-space:pre-wrap;word-break:break-all}pre code{padding:0}
h2{margin-top:3rem;border-bottom:1px solid #d8dee4}h3{margin-top:2rem}dt{font-weight:600;margin-top:.6em}
.deprecated{color:#9a6700;font-weight:600}details{margin:.3em 0}summary{cursor:pointer}
"""
_CODE: Final = re.compile(r"`([^`]+)`")


def render_page(document: Mapping[str, Any]) -> str:
    """Return the page. Every text of the document is escaped."""
    return "\n".join(_page(document))


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    info = document["info"]
    title = f"{html.escape(info['title'])} {html.escape(info['version'])}"
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body><h1>{title}</h1>'
    yield _prose(info["description"])
    yield '<p>The same for tools: <a href="openapi.json">openapi.json</a>.</p>'
    for tag in document["tags"]:
        yield f"<h2>{html.escape(tag['name'])}</h2>{_prose(tag['description'])}"
        for address, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"]:
                    yield from _operation(address, method, operation)
    yield "<h2>Shapes</h2>"
    for name, schema in document["components"]["schemas"].items():
        yield f'<h3 id="{html.escape(name)}">{html.escape(name)}</h3>{_prose(schema.get("description", ""))}'
        yield from _fields(schema)
    yield "</body></html>"


def _operation(address: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h3><code>{method.upper()} {html.escape(address)}</code> {_inline(operation['summary'])}</h3>"
    if operation.get("deprecated"):
        yield '<p class="deprecated">Deprecated: for older clients.</p>'
    yield _prose(operation.get("description", ""))
    if parameters := operation.get("parameters"):
        yield "<dl>"
        for parameter in parameters:
            yield f"<dt><code>{html.escape(parameter['name'])}</code></dt><dd>{_inline(parameter['description'])}</dd>"
        yield "</dl>"
    if "requestBody" in operation:
        yield "<p><strong>Request</strong></p>"
        yield from _content(operation["requestBody"]["content"])
    yield "<p><strong>Answers</strong></p>"
    for status, answer in operation["responses"].items():
        yield f"<p><code>{status}</code> {_inline(answer['description'])}</p>"
        yield from _content(answer.get("content", {}))


def _content(content: Mapping[str, Any]) -> Iterator[str]:
    for kind, media in content.items():
        for name, example in media.get("examples", {}).items():
            text = html.escape(json.dumps(example["value"], indent=2, ensure_ascii=False))
            label = f"<code>{html.escape(name)}</code> {html.escape(example.get('summary', kind))}"
            yield f"<details><summary>{label}</summary><pre><code>{text}</code></pre></details>"


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    for part in schema.get("allOf", ()):
        if "$ref" in part:
            name = html.escape(part["$ref"].rsplit("/", 1)[1])
            yield f'<p>Everything of <a href="#{name}">{name}</a>, and:</p>'
        yield from _fields(part)
    if properties := schema.get("properties"):
        needed = schema.get("required", ())
        yield "<dl>"
        for name, field in properties.items():
            mark = "" if name in needed else " (optional)"
            yield f"<dt><code>{html.escape(name)}</code>{mark}</dt><dd>{_prose(field.get('description', ''))}"
            yield from _fields(field)
            yield "</dd>"
        yield "</dl>"


def _prose(text: str) -> str:
    parts = []
    for block in text.strip().split("\n\n"):
        lines = block.split("\n")
        if all(line.startswith("- ") for line in lines):
            parts.append("<ul>" + "".join(f"<li>{_inline(line[2:])}</li>" for line in lines) + "</ul>")
        elif block:
            parts.append(f"<p>{_inline(block)}</p>")
    return "".join(parts)


def _inline(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", html.escape(text, quote=False))
