"""The owner of the files and jobs that a request makes and sees: the name of its API key."""

from fastapi import Request

from hsoftmax.service.http.request_context import request_context_of


def owner_of(request: Request) -> str | None:
    """Return the name of the request's key, or None if the service has no keys."""
    return request_context_of(request.scope).key_name
