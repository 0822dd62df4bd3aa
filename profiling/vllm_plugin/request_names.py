"""A served request keeps the name that its client gives it in X-Request-Id, so the workers' records show whose it is.

vLLM's text endpoints take that header as the request's id; vLLM-Omni's image endpoints make one up. `RequestNames` is
ASGI middleware for `vllm serve --middleware`, and `hook_client` makes vLLM-Omni's client use what it has seen. That
client adds a random end to every id, which `name_of` takes off. No torch and no vllm_omni here.
"""

import functools
import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

MIDDLEWARE = "profiling.vllm_plugin.request_names.RequestNames"
"""Value of --middleware."""

HEADER = b"x-request-id"

_ENDS = re.compile(r"(-[0-9a-f]{8})+$")
"""What vLLM-Omni, and vLLM's AR stage once more, add to an id."""

_NAME: ContextVar[str] = ContextVar("sweep_request_name", default="")

App = Callable[[Any, Any, Any], Awaitable[None]]


class RequestNames:
    """Notes the name of the HTTP request that is being answered."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As ASGI has it."""
        if scope["type"] == "http":
            _NAME.set(dict(scope["headers"]).get(HEADER, b"").decode("latin-1"))
        await self._app(scope, receive, send)


def hook_client(cls: Any) -> list[str]:
    """Make the client's requests carry the noted name; returns the wrapped names."""
    plain: Callable[[str], str] = cls._get_unique_request_id
    if not hasattr(plain, "observed_by_sweep"):

        @functools.wraps(plain)
        def unique(external_request_id: str) -> str:
            return plain(_NAME.get() or external_request_id)

        unique.observed_by_sweep = True  # type: ignore[attr-defined]
        cls._get_unique_request_id = staticmethod(unique)
    return [f"{cls.__name__}._get_unique_request_id"]


def name_of(request: str) -> str:
    """The client's name of a request that vLLM-Omni calls `request`."""
    return _ENDS.sub("", request)
