"""Error responses in OpenAI's format, so that its clients raise the corresponding exceptions."""

from __future__ import annotations

from collections.abc import Collection

import orjson

Headers = tuple[tuple[bytes, bytes], ...]


class ApiError(Exception):
    """An error response.

    Attributes:
        status: HTTP status.
        kind: the field `type`, such as `invalid_request_error`.
        param: the invalid field of the request, if there is one.
        code: machine-readable code, such as `model_not_found`.
        headers: additional response headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Headers = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = headers

    def body(self) -> bytes:
        """Return the JSON error object."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return orjson.dumps({"error": error})


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Return 400: a field of the request is invalid."""
    return ApiError(400, message, param=param, code=code)


def no_endpoint(path: str, engine: str, has: Collection[str]) -> ApiError:
    """Return 404: the engine of this replica has no such endpoint."""
    message = f"{path} is not supported by the engine {engine} with this model; it has {', '.join(sorted(has))}"
    return ApiError(404, message, code="unsupported_endpoint")


def bad_json(reason: str) -> ApiError:
    """Return 400: the body is not JSON."""
    return invalid(f"The body is not valid JSON: {reason}", code="invalid_json")


def wrong_content_type(given: str) -> ApiError:
    """Return 415: Content-Type is not JSON."""
    message = f"Content-Type must be application/json ({given!r})"
    return ApiError(415, message, param="Content-Type", code="unsupported_media_type")


def body_too_large(limit: int) -> ApiError:
    """Return 413; the connection is closed, since the rest of the body is not read."""
    return ApiError(
        413,
        f"The body must be at most {limit} bytes",
        code="request_too_large",
        headers=((b"connection", b"close"),),
    )


def model_not_found(name: str, models: tuple[str, ...]) -> ApiError:
    """Return 404 with the names of the existing models."""
    shown = name if len(name) <= 120 else name[:120] + "..."
    message = f"The model {shown!r} does not exist; available models: {', '.join(models)}"
    return ApiError(404, message, param="model", code="model_not_found")


def unknown_path(path: str) -> ApiError:
    """Return 404: the path is not part of the API."""
    return ApiError(404, f"Unknown path {path[:200]!r}; the API is under /v1", code="unknown_url")


def method_not_allowed(method: str, allowed: str) -> ApiError:
    """Return 405 with the allowed methods."""
    return ApiError(
        405,
        f"The method must be {allowed} ({method[:20]})",
        code="method_not_allowed",
        headers=((b"allow", allowed.encode()),),
    )


def queue_full(retry_after_s: int) -> ApiError:
    """Return 503: all slots are taken and the queue is full."""
    return ApiError(
        503,
        "All slots are busy and the queue is full; retry later",
        kind="server_error",
        code="queue_full",
        headers=((b"retry-after", str(retry_after_s).encode()),),
    )


def engine_failed(reason: str) -> ApiError:
    """Return 502: the engine failed on a valid request, which another replica may be able to serve."""
    return ApiError(502, f"The engine failed: {reason}", kind="server_error", code="engine_failed")
