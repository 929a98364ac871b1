"""The OpenAPI document, for programs at /openapi.json and for people at /docs."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from cope_api.failures import json_response
from cope_api.openapi.document import document
from cope_api.openapi.page import page

router = APIRouter()
# The page brings all that it shows: nothing is loaded from anywhere, and no script runs.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def _document(request: Request) -> dict[str, Any]:
    state = request.app.state
    if not hasattr(state, "openapi"):
        state.openapi = document(request.app)
    found: dict[str, Any] = state.openapi
    return found


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """This API as an OpenAPI 3.1 document."""
    return json_response(_document(request))


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The same document as one page to read. It loads nothing and runs no script."""
    return HTMLResponse(page(_document(request)), headers={"content-security-policy": _POLICY})
