"""The API's OpenAPI 3.1 document, and the same as a page for people."""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, create_model
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from castmate import __version__
from castmate.defaults import Defaults
from castmate.storyboard import StoryboardRequest
from castmate_mcp.http.gateway import gateway
from castmate_mcp.rest.models import ErrorOut, Submission, with_defaults
from castmate_mcp.rest.operation import Operation
from castmate_mcp.rest.operations import OPERATIONS

_REFERENCES: Final = "#/components/schemas/{model}"
_ERRORS: Final = {
    400: "The body cannot be read.",
    401: "The API key is missing, wrong or revoked.",
    403: "The API key has not the scope that is needed.",
    404: "There is no such thing, or it belongs to another key.",
    409: "It is not in a state for that, or the idempotency key stands for another request.",
    413: "The body is too large.",
    422: "A parameter is wrong: which, and what is allowed.",
    429: "Too much: of this key, or of all. Try again after Retry-After seconds.",
    503: "The ledger or the storage cannot be reached, or the server ends.",
}

# What can be done with the prediction that a submit gives.
_LINKS: Final = {
    name: {"operationId": operation, "parameters": {"id": "$response.body#/data/id"}}
    for name, operation in (
        ("result", "get_v3_predictions_id_result"),
        ("prediction", "get_v3_predictions_id"),
        ("older", "get_v2_predictions_id_result"),
        ("events", "get_v3_predictions_id_events"),
        ("cancel", "post_v3_predictions_id_cancel"),
        ("delete", "delete_v3_predictions_id"),
    )
}


_LAST_EVENT_ID: Final = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last event that came: what came before it is not sent again.",
    "schema": {"type": "string"},
}


@functools.cache
def document(model_names: tuple[str, ...], defaults: Defaults | None = None) -> dict[str, Any]:
    """The document; the address of the server is left out.

    Args:
        model_names: What the one model is called, owner/model.
        defaults: What the model gives a request for what that leaves out, if it is known.
    """
    answers = {id(one): _success_model(one) for one in OPERATIONS if not one.files}
    models: list[type[BaseModel]] = [ErrorOut, *answers.values()]
    models += [operation.body for operation in OPERATIONS if operation.body]
    models += [model for operation in OPERATIONS for model in (operation.events or {}).values()]
    _, schemas = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(models)], ref_template=_REFERENCES
    )
    parts = schemas["$defs"]
    for model in (Submission, StoryboardRequest):
        parts[model.__name__] = with_defaults(parts[model.__name__], defaults)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        path = re.sub(r":\w+}", "}", operation.path)
        described = _described(operation, answers.get(id(operation)), model_names)
        paths.setdefault(path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Castmate",
            "version": __version__,
            "description": "The same character in every picture, over the API of WaveSpeed's "
            "wavespeed-ai/instant-character.",
        },
        "paths": paths,
        "components": {
            "schemas": parts,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key of `castmate keys create NAME`; none where there are no "
                    "keys and the server answers its own machine alone.",
                }
            },
        },
        "security": [{"key": []}],
    }


def _success_model(operation: Operation) -> type[BaseModel]:
    name = getattr(operation.answer, "__name__", "")
    if name == "list":
        (inner,) = operation.answer.__args__
        name = f"{inner.__name__}List"
    return _envelope(name, operation.answer)


@functools.cache
def _envelope(name: str, answer: Any) -> type[BaseModel]:
    return create_model(
        f"{name}Answer",
        code=(int, 200),
        message=(str, "success"),
        data=(answer, ...),
        __doc__="A success.",
    )


def _described(
    operation: Operation, answer: type[BaseModel] | None, model_names: tuple[str, ...]
) -> dict[str, Any]:
    statuses = {401, 403, *operation.statuses, 503}
    if operation.limited or operation.body:
        statuses.add(429)
    if operation.body:
        statuses |= {400, 413, 422}
    if operation.query:
        statuses |= {400, 422}
    names = re.findall(r"{(\w+)(?::\w+)?}", operation.path)
    parts = [name.partition("/") for name in model_names]
    known = {"owner": {part[0] for part in parts}, "model": {part[2] for part in parts}}
    numbers = re.findall(r"{(\w+):int}", operation.path)
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "integer", "minimum": 1}
            if name in numbers
            else {"type": "string"}
            | ({"enum": sorted(known[name])} if name in known else {"minLength": 1}),
        }
        for name in names
    ]
    parameters += _query_parameters(operation.query or {})
    responses: dict[str, Any] = {
        "200": _response("Success.", answer) if answer else _file(operation.files)
    }
    if operation.events:
        responses |= _stream_responses(operation.events)
        parameters.append(_LAST_EVENT_ID)
    if operation.body is Submission:
        responses["200"]["links"] = _LINKS
    for status in sorted(statuses):
        responses[str(status)] = _response(_ERRORS[status], ErrorOut)
        if status in (429, 503):
            responses[str(status)]["headers"] = {
                "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}
            }
    described: dict[str, Any] = {
        "operationId": _identifier(operation),
        "summary": operation.summary,
        "description": (operation.handler.__doc__ or "").strip().partition("\n")[0],
        "parameters": parameters,
        "responses": responses,
        "x-scope": operation.scope.value if operation.scope else "",
    }
    if not operation.needs_key:
        described["security"] = []
    if operation.alias_of:
        described["description"] = f"The same as {operation.alias_of}."
    if operation.body:
        described["requestBody"] = {
            "required": True,
            "content": {operation.media: {"schema": _reference(operation.body)}},
        }
    return described


def _query_parameters(query: Mapping[str, str] | type[BaseModel]) -> list[dict[str, Any]]:
    if isinstance(query, Mapping):
        specs: dict[str, Any] = {
            name: {"description": description, "type": "string"}
            for name, description in query.items()
        }
    else:
        specs = query.model_json_schema()["properties"]
    parameters = []
    for name, spec in specs.items():
        kinds = [one for one in spec.get("anyOf", ()) if one["type"] != "null"]
        kind = kinds[0] if kinds else spec
        schema = {key: value for key, value in kind.items() if key not in ("title", "description")}
        parameters.append(
            {"name": name, "in": "query", "description": spec["description"], "schema": schema}
        )
    return parameters


def _file(kinds: Sequence[str]) -> dict[str, Any]:
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    return {"description": "The file.", "content": content}


def _stream_responses(events: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """Answers of an operation that streams; the schema is that of one event, as an object."""
    schemas = [
        {
            "type": "object",
            "title": name,
            "properties": {
                "event": {"const": name},
                "id": {"type": "string"},
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": _reference(model),
                },
            },
            "required": ["event", "data"],
        }
        for name, model in events.items()
    ]
    return {
        "200": {
            "description": "Server-sent events. A stream that ends without the last one asks to "
            "come back.",
            "content": {"text/event-stream": {"schema": {"oneOf": schemas}}},
        },
        "204": {"description": "There is nothing more to come."},
    }


def _identifier(operation: Operation) -> str:
    words = re.findall(r"\w+", re.sub(r":\w+}", "}", operation.path))
    return "_".join([operation.method.lower(), *words[1:]])


def _response(description: str, model: type[BaseModel]) -> dict[str, Any]:
    schema = _reference(model)
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCES.format(model=model.__name__)}


async def openapi(request: Request) -> Response:
    """`GET /openapi.json`: needs no key."""
    here = gateway(request)
    described = document(here.models, here.castmate.router.defaults)
    return JSONResponse(described | {"servers": [{"url": here.base_url(request)}]})


async def docs(request: Request) -> Response:
    """`GET /docs`: the document as one page, without scripts."""
    here = gateway(request)
    page = _page(here.base_url(request), here.models, here.castmate.router.defaults)
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return HTMLResponse(page, headers={"content-security-policy": policy})


_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff }
code, pre { font: 0.9em ui-monospace, monospace; background: #f2f2f2; border-radius: 4px }
code { padding: 0 0.2em } pre { padding: 0.8em; overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: 0.3em 0.6em;
  border-bottom: 1px solid #ddd }
@media (prefers-color-scheme: dark) { body { color: #e8e8e8; background: #161616 }
  code, pre { background: #262626 } th, td { border-color: #444 } }
"""


def _page(base_url: str, models: tuple[str, ...], defaults: Defaults | None) -> str:
    spec = document(models, defaults)
    schemas = spec["components"]["schemas"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>Castmate API</title><style>{_STYLE}</style>",
        f"<h1>Castmate API {html.escape(spec['info']['version'])}</h1>",
        f"<p>{html.escape(spec['info']['description'])} For programs: "
        "<a href=/openapi.json>openapi.json</a>.</p>",
        f"<pre>{html.escape(_example(base_url, models[0]))}</pre>",
    ]
    for path, methods in spec["paths"].items():
        for method, described in methods.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(
                f"<p>{html.escape(described['summary'])}. {_marked(described['description'])} "
                f"{_scope(described['x-scope'])}</p>"
            )
            if body := described.get("requestBody"):
                (content,) = body["content"].values()
                parts.append(_table(schemas[content["schema"]["$ref"].rpartition("/")[2]]))
            codes = ", ".join(f"<code>{code}</code>" for code in described["responses"])
            parts.append(f"<p>Answers: {codes}</p>")
    return "\n".join(parts)


def _scope(name: str) -> str:
    return f"Scope <code>{name}</code>." if name else "No scope."


def _table(schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    rows = []
    for name, spec in schema["properties"].items():
        default = "required" if name in required else html.escape(str(spec.get("default", "")))
        description = html.escape(spec.get("description", ""))
        rows.append(f"<tr><td><code>{html.escape(name)}</code><td>{default}<td>{description}")
    return f"<table><tr><th>field<th>default<th>meaning{''.join(rows)}</table>"


def _marked(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _example(base_url: str, model: str) -> str:
    return f"""curl --request POST {base_url}/api/v3/{model} \\
  --header 'Content-Type: application/json' \\
  --header "Authorization: Bearer $CASTMATE_KEY" \\
  --data-raw '{{"prompt": "waving on a beach", "image": "https://.../fox.png"}}'"""


ROUTES: Final = (Route("/openapi.json", openapi), Route("/docs", docs))
