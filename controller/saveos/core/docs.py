"""The API's reference at /docs: one page from the OpenAPI document, without script, under the strict CSP."""

import base64
import hashlib
import json
from html import escape
from typing import Any

from fastapi.responses import HTMLResponse

from saveos.core.web import CSP

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
summary { cursor: pointer; padding: .2rem 0; }
summary code { font-weight: 600; }
pre { overflow-x: auto; padding: .5rem; border: 1px solid; font-size: .8rem; }
.m { display: inline-block; min-width: 4rem; font: 600 .8rem monospace; }
"""
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
METHODS = ("get", "post", "put", "patch", "delete", "head")


def page(document: dict[str, Any]) -> HTMLResponse:
    """Render an OpenAPI document as a page."""
    groups: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                tag = (item[method].get("tags") or ["general"])[0]
                groups.setdefault(tag, []).append(_operation(document, path, method, item[method]))
    sections = "".join(f"<h2>{escape(tag)}</h2>{''.join(groups[tag])}" for tag in sorted(groups))
    info = document["info"]
    title = escape(f"{info['title']} API {info['version']}")
    body = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{title}</h1><p>{escape(info.get('description', ''))}</p>"
        f'<p>For programs: <a href="/openapi.json">openapi.json</a>.</p>{_calling(document)}'
        f"{sections}</body></html>"
    )
    policy = f"{CSP}; style-src 'sha256-{STYLE_HASH}'"
    return HTMLResponse(body, headers={"Content-Security-Policy": policy})


def _calling(document: dict[str, Any]) -> str:
    """Say what holds for all routes: who asks, how to ask again, what an error looks like."""
    problem = escape(_shape(document, {"$ref": "#/components/schemas/ProblemDocument"}))
    return (
        "<p>Send <code>Authorization: Bearer TOKEN</code> (<code>saveos tokens create</code>), JSON, and with "
        "a POST that may be repeated an <code>Idempotency-Key</code>. Lists answer with <code>items</code> and "
        "<code>next</code>, the <code>cursor</code> of the page that follows.</p><p>An error of any route, as "
        f"<code>application/problem+json</code>; <code>type</code> is stable:</p><pre>{problem}</pre>"
    )


def _operation(document: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    parts = [f"<p>{escape(operation.get('description', ''))}</p>"]
    if rows := [_parameter(each) for each in operation.get("parameters", ())]:
        parts.append(f"<ul>{''.join(rows)}</ul>")
    for content in operation.get("requestBody", {}).get("content", {}).values():
        parts.append(f"<p>Body:</p><pre>{escape(_shape(document, content.get('schema', {})))}</pre>")
        if example := content.get("example"):
            told = json.dumps(example, indent=2, ensure_ascii=False)
            parts.append(f"<p>Example:</p><pre>{escape(told)}</pre>")
    for status, answer in operation.get("responses", {}).items():
        parts.append(f"<p>{escape(status)}: {escape(answer.get('description', ''))}</p>")
        for kind, content in answer.get("content", {}).items():
            if kind == "application/json":
                parts.append(f"<pre>{escape(_shape(document, content.get('schema', {})))}</pre>")
    head = f'<span class="m">{method.upper()}</span> <code>{escape(path)}</code>'
    return (
        f"<details><summary>{head} {escape(operation.get('summary', ''))}</summary>{''.join(parts)}</details>"
    )


def _parameter(parameter: dict[str, Any]) -> str:
    need = ", required" if parameter.get("required") else ""
    text = parameter.get("description", "")
    return f"<li><code>{escape(parameter['name'])}</code> ({escape(parameter['in'])}{need}) {escape(text)}</li>"


def _shape(document: dict[str, Any], schema: dict[str, Any], indent: int = 0) -> str:
    """Return a schema as an outline; nested to four levels."""
    if "$ref" in schema:
        return _shape(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], indent)
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " | ".join(_shape(document, option, indent) for option in options)
    if "enum" in schema or "const" in schema:
        return " | ".join(repr(each) for each in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"[{_shape(document, schema.get('items', {}), indent)}]"
    properties = schema.get("properties")
    if not properties or indent >= 4:
        return " ".join(filter(None, (schema.get("type", "any"), schema.get("format"))))
    pad = "  " * (indent + 1)
    lines = [f"{pad}{name}: {_shape(document, each, indent + 1)}" for name, each in properties.items()]
    return "{\n" + "\n".join(lines) + "\n" + "  " * indent + "}"
