"""
Which requests are there, and what do they take and give?

One table: the router and `/openapi.json` are made from the same rows, so that neither can
say what the other does not do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """
    One method on one path.

    Attributes:
        body: What the request's body is, if it has one.
        answers: By status: what the answer is (None: it has no body; several: one of them).
        query: Parameters of the query, with what they mean.
        is_write: Whether it changes something, and so honours `Idempotency-Key`.
        media_type: Of the answer, where it is not JSON.
    """

    method: str
    path: str
    summary: str
    handler: Handler
    body: type[Any] | None = None
    answers: dict[int, Any] | None = None
    query: dict[str, str] | None = None
    is_write: bool = False
    media_type: str = "application/json"


_REFUSALS = {
    400: "not JSON, or not what a cursor looks like",
    401: "sign in first",
    403: "a page of another site, or not allowed",
    404: "there is no such thing",
    409: "the thing is not in the state that the request assumes",
    413: "the body is too large",
    422: "a field is wrong; the message names it",
    429: "too many",
    503: "not now; see Retry-After",
}


def openapi(operations: Sequence[Operation], *, title: str, version: str, description: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these operations."""
    types = [o.body for o in operations if o.body]
    types += [type for o in operations for answer in (o.answers or {}).values() for type in _alternatives(answer)]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = {repr(type): schema for type, schema in zip(types, schemas, strict=True)}
    components["Refusal"] = {
        "type": "object",
        "properties": {"error": {"type": "string", "description": "what is wrong, in words; it names the field"}},
        "required": ["error"],
    }
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "cookie": {"type": "apiKey", "in": "cookie", "name": "session"},
                "bearer": {"type": "http", "scheme": "bearer"},
                "query": {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
        "security": [{}, {"cookie": []}, {"bearer": []}, {"query": []}],
    }


def _alternatives(answer: Any) -> tuple[Any, ...]:
    if answer is None:
        return ()
    return answer if isinstance(answer, tuple) else (answer,)


def _describe(operation: Operation, by_type: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
        for part in operation.path.split("/")
        if part.startswith("{")
    ]
    for name, meaning in (operation.query or {}).items():
        parameters.append({"name": name, "in": "query", "schema": {"type": "string"}, "description": meaning})
    if operation.is_write:
        meaning = "The same key has its effect once, and the same answer for 24 hours."
        parameters.append(
            {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}, "description": meaning}
        )
    responses: dict[str, Any] = {}
    for status, type in (operation.answers or {200: None}).items():
        responses[str(status)] = {"description": "done"}
        if type is not None:
            schemas = [by_type[repr(one)] for one in _alternatives(type)]
            schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
            responses[str(status)]["content"] = {operation.media_type: {"schema": schema}}
    for status, meaning in _REFUSALS.items():
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
        responses[str(status)] = {"description": meaning, "content": content}
    described: dict[str, Any] = {"summary": operation.summary, "parameters": parameters, "responses": responses}
    described["operationId"] = operation.handler.__name__
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": by_type[repr(operation.body)]}},
        }
    return described
