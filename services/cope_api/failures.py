"""Errors as OpenAI writes them, and the HTTP statuses of our own: known here and nowhere further in."""

import logging
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cope.core import errors
from cope.core.redaction import one_line

logger = logging.getLogger(__name__)

# The client repeats 429s and 409s by itself: a refusal that time alone does not mend must say so.
NO_RETRY = {"x-should-retry": "false"}


class BodyStalled(errors.CopeError):
    """The body of a request stopped coming."""

    code = "body_stalled"


_STATUS: dict[type[errors.CopeError], int] = {
    BodyStalled: 408,
    errors.BadRequest: 400,
    errors.NotFound: 404,
    errors.Conflict: 422,
    errors.Gone: 410,
    errors.TooLarge: 413,
    errors.BudgetExhausted: 429,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.StoreUnavailable: 503,
    errors.StorageUnavailable: 503,
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
    headers = {"retry-after": "2"} if status == 503 else NO_RETRY if status in {408, 422, 429, 507} else {}
    if status == 408:
        headers = {**headers, "connection": "close"}  # what may still come of the body is no next request
    message = error.message
    if isinstance(error, errors.StoreUnavailable) and error.__cause__ is not None:
        logger.warning("%s", message)  # it names our own machines, which are no business of the caller's
        message = "The database does not answer at the moment: try again."
    return json_response(body_of(message, status=status, param=param, code=error.code), status, headers)


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response; `body` may hold `orjson.Fragment`s."""
    return Response(orjson.dumps(body), status, headers, "application/json")


def _allowed(request: Request) -> list[str]:
    """The methods of this path, of all its routes together (the router itself names only the first one's). Those that
    spell the path out come before those that take a part of it for an id."""
    routes = (route for router in request.app.state.routers for route in router.routes if isinstance(route, APIRoute))
    met = [route for route in routes if route.path_regex.match(request.url.path)]
    spelt = [route for route in met if route.path == request.url.path]
    return sorted({method for route in spelt or met for method in route.methods or ()})


def install(app: FastAPI) -> None:
    """The ways in which a request fails foreseeably, in one shape: never ``{"detail": …}``. The rest is `Guard`'s."""

    @app.exception_handler(errors.CopeError)
    async def _ours(_: Request, error: errors.CopeError) -> Response:
        return response_of(error)

    @app.exception_handler(HTTPException)
    async def _routing(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            # Not `request.url`: it is put together with the caller's Host header.
            message = one_line(f"There is no {request.method} {request.scope['path']} here.", longest=300)
            return json_response(body_of(message, status=404, code="unknown_url"), 404)
        if error.status_code == 405:
            allowed = ", ".join(_allowed(request))
            message = f"{request.url.path} can't be asked with {request.method}: only with {allowed}."
            return json_response(body_of(message, status=405, code="method_not_allowed"), 405, {"allow": allowed})
        return json_response(body_of(str(error.detail), status=error.status_code), error.status_code)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"][1:]) or None
        return json_response(body_of(f"`{param}`: {first['msg']}.", status=400, param=param, code="invalid_value"), 400)
