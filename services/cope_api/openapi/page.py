"""The document as one HTML page without scripts: endpoints by tag, folded; schemas by name below."""

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

Json = Mapping[str, Any]
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { background: #8881; padding: .6rem; overflow-x: auto; border-radius: 4px; }
details { border: 1px solid #8884; border-radius: 4px; margin: .3rem 0; padding: .3rem .7rem; }
summary { cursor: pointer; }
summary b { display: inline-block; min-width: 4rem; }
table { border-collapse: collapse; } td, th { text-align: left; vertical-align: top; padding: .15rem .8rem .15rem 0; }
small { opacity: .75; }
"""
_WHO = {"project_key": "a project's key", "admin_key": "the admin key"}


def page(document: Json) -> str:
    """The whole page."""
    return "".join(_page(document))


def _page(document: Json) -> Iterator[str]:
    info = document["info"]
    yield '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    yield f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style><h1>{escape(info['title'])} API</h1>"
    yield "".join(f"<p>{_text(part)}</p>" for part in info["description"].split("\n\n"))
    yield '<p>For programs: <a href="openapi.json">openapi.json</a> (OpenAPI 3.1).</p>'
    for tag in (tag["name"] for tag in document["tags"]):
        yield f"<h2>{escape(tag)}</h2>"
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if operation["tags"] == [tag]:
                    yield from _operation(method, path, operation)
    yield "<h2>Schemas</h2>"
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>{_schema(schema)}</details>'


def _operation(method: str, path: str, operation: Json) -> Iterator[str]:
    yield f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code> "
    yield f"<small>{_text(operation['summary'])}</small></summary>"
    if "description" in operation:
        yield f"<p>{_text(operation['description'])}</p>"
    who = [_WHO[name] for option in operation["security"] for name in option]
    yield f"<p><small>Key: {' or '.join(who) or 'none'}.</small></p>"
    if operation["parameters"]:
        yield "<table>" + "".join(map(_parameter, operation["parameters"])) + "</table>"
    if "requestBody" in operation:
        yield "<h4>Body</h4>" + _contents(operation["requestBody"]["content"])
    for status, answer in operation["responses"].items():
        if status == "200":
            yield "<h4>Answer</h4>" + _contents(answer["content"])
    failing = "".join(
        f"<tr><td>{status}</td><td>{_text(answer['description'])}</td></tr>"
        for status, answer in operation["responses"].items()
        if status != "200"
    )
    if failing:
        yield f"<h4>Errors</h4><table>{failing}</table>"
    yield "</details>"


def _parameter(parameter: Json) -> str:
    needed = "" if parameter["required"] else " <small>optional</small>"
    about = _text(parameter.get("description", ""))
    kind = escape(json.dumps(parameter["schema"], ensure_ascii=False))
    name = escape(parameter["name"])
    return f"<tr><td><code>{name}</code>{needed}<td>{parameter['in']}<td>{about}<td><code>{kind}</code></tr>"


def _contents(content: Json) -> str:
    shown = []
    for media, found in content.items():
        shown.append(f"<p><code>{escape(media)}</code></p>{_schema(found['schema'])}")
        if "example" in found:
            shown.append(f"<p><small>Example</small></p>{_pre(found['example'])}")
    return "".join(shown)


def _schema(schema: Json) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<p>See <a href="#{name}"><code>{name}</code></a>.</p>'
    return _pre(schema)


def _pre(value: object) -> str:
    shown = value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False)
    return f"<pre>{escape(shown)}</pre>"


def _text(text: str) -> str:
    """Escaped, with what stands between backticks as code."""
    parts = escape(text).split("`")
    return "".join(part if place % 2 == 0 else f"<code>{part}</code>" for place, part in enumerate(parts))
