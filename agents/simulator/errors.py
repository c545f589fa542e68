"""Errors in the form of the Messages API."""

from __future__ import annotations

from typing import Any

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_DEFAULT_MESSAGES = {
    401: "invalid bearer token",
    402: "Your credit balance is too low to access the Anthropic API.",
    403: "Your API key does not have permission to use the specified resource.",
    429: "This request would exceed your organization's rate limit. Please try again later.",
    500: "Internal server error",
    504: "Request timed out.",
    529: "Overloaded",
}


class ApiError(Exception):
    """A request the API refuses: HTTP ``status``, ``type`` and ``message`` of the error body."""

    def __init__(self, status: int, message: str = "", *, type: str = "", error_code: str = "") -> None:
        self.status = status
        self.type = type or error_type(status)
        self.message = message or _DEFAULT_MESSAGES.get(status, f"Error {status}")
        self.error_code = error_code
        super().__init__(f"{status} {self.type}: {self.message}")

    def body(self, request_id: str) -> dict[str, Any]:
        """The error body; ``details`` is there only if there is an error code."""
        error: dict[str, Any] = {"type": self.type, "message": self.message}
        if self.error_code:
            error["details"] = {"error_code": self.error_code}
        return {"type": "error", "error": error, "request_id": request_id}


def error_type(status: int) -> str:
    """The error type the API uses with a status; unknown ones by their class."""
    return ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


def invalid(message: str) -> ApiError:
    """A 400 with this message."""
    return ApiError(400, message)
