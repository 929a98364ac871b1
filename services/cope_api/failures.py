"""Errors as OpenAI writes them, and the HTTP statuses of our own: known here and nowhere further in."""

import logging
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cope.core import errors

logger = logging.getLogger(__name__)

# The client repeats 429s and 409s by itself: a refusal that time alone does not mend must say so.
NO_RETRY = {"x-should-retry": "false"}
_STATUS: dict[type[errors.CopeError], int] = {
    errors.BadRequest: 400,
    errors.NotFound: 404,
    errors.Conflict: 422,
    errors.TooLarge: 413,
    errors.BudgetExhausted: 429,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.StoreUnavailable: 503,
    errors.StorageUnavailable: 503,
    errors.Gone: 410,
    errors.StorageFull: 507,
}
_TYPE = {401: "authentication_error", 403: "permission_error", 429: "insufficient_quota", 404: "invalid_request_error"}


def body_of(message: str, *, status: int, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """OpenAI's error object; all four keys are always there."""
    kind = _TYPE.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def response_of(error: errors.CopeError) -> Response:
    """The response of one of our errors."""
    status = next((_STATUS[cls] for cls in type(error).__mro__ if cls in _STATUS), 500)
    param = error.param if isinstance(error, errors.BadRequest) else None
    headers = {"retry-after": "2"} if status == 503 else NO_RETRY if status in {422, 429, 507} else {}
    return json_response(body_of(error.message, status=status, param=param, code=error.code), status, headers)


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response; `body` may hold `orjson.Fragment`s."""
    return Response(orjson.dumps(body), status, headers, "application/json")


def install(app: FastAPI) -> None:
    """Every way a request can fail, in one shape: never ``{"detail": …}``, never a stack trace."""

    @app.exception_handler(errors.CopeError)
    async def _ours(_: Request, error: errors.CopeError) -> Response:
        return response_of(error)

    @app.exception_handler(HTTPException)
    async def _routing(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            message = f"There is no {request.method} {request.url.path} here."
            return json_response(body_of(message, status=404, code="unknown_url"), 404)
        return json_response(body_of(str(error.detail), status=error.status_code), error.status_code)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"][1:]) or None
        return json_response(body_of(f"`{param}`: {first['msg']}.", status=400, param=param, code="invalid_value"), 400)

    @app.exception_handler(Exception)
    async def _unforeseen(request: Request, error: Exception) -> Response:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return json_response(body_of("The server failed; the failure is logged.", status=500, code="internal"), 500)
