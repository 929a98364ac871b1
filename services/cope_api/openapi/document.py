"""The whole document, from the application's routes and the areas' operations."""

import inspect
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from cope_api.openapi import (
    batches,
    costs,
    events,
    files,
    inference,
    life_cycle,
    money,
    prices,
    projects,
    service,
    webhooks,
)
from cope_api.openapi.operation import Operation, written
from cope_api.openapi.shapes import COMPONENTS

AREAS = (files, batches, life_cycle, inference, webhooks, events, projects, money, costs, prices, service)
OPERATIONS: dict[str, Operation] = {key: found for area in AREAS for key, found in area.OPERATIONS.items()}
ABOUT = """\
Batch LLM work at about half the price, under a spending cap that is never overspent. Files, batches, chat completions,
responses, webhook endpoints and the admin endpoints have OpenAI's shapes, with our `cope` blocks beside them: the
ordinary `openai` clients work unchanged, with this service's address as `base_url`.

Every option is honoured or refused by name, never dropped. Errors have OpenAI's shape. Amounts of money are decimal
text or whole nano-dollars. Ids sort by time; lists page by `after`."""
_SECURITY = {
    "project_key": {"type": "http", "scheme": "bearer", "description": "A project's API key."},
    "admin_key": {"type": "http", "scheme": "bearer", "description": "The operator's key (COPE_ADMIN_KEY)."},
}
Json = dict[str, Any]


def document(app: FastAPI) -> Json:
    """OpenAPI 3.1 of an application of `create_app`. A route without an entry is left out: a test names it."""
    paths: dict[str, Json] = {}
    for key, route in described_routes(app):
        operation = OPERATIONS.get(key)
        if operation is not None:
            method, path = key.split(" ")
            names = list(dict.fromkeys(route.param_convertors))
            docstring = inspect.getdoc(route.endpoint) or route.name
            name = f"{route.endpoint.__module__.rpartition('.')[2]}_{route.name}"
            paths.setdefault(path, {})[method.lower()] = written(
                operation, path_names=names, name=name, docstring=docstring
            )
    return {
        "openapi": "3.1.0",
        "info": {"title": "COPE", "version": app.version, "description": ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in OPERATIONS.values())],
        "paths": paths,
        "components": {"schemas": COMPONENTS, "securitySchemes": _SECURITY},
    }


def described_routes(app: FastAPI) -> Iterator[tuple[str, APIRoute]]:
    """(method and path, route) of everything that is served."""
    for router in app.state.routers:
        for route in router.routes:
            if isinstance(route, APIRoute):
                for method in sorted(route.methods or ()):
                    yield f"{method} {route.path_format}", route
