"""An ASGI application that is imported at its first request."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import import_module
from typing import Any

AsgiScope = MutableMapping[str, Any]
AsgiMessage = MutableMapping[str, Any]
Application = Callable[
    [AsgiScope, Callable[[], Awaitable[AsgiMessage]], Callable[[AsgiMessage], Awaitable[None]]], Awaitable[None]
]


class LazyApp:
    """The `app` of a module. Every process of Airflow imports plugins, also each task; only one serves pages."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._app: Application | None = None

    async def __call__(
        self,
        scope: AsgiScope,
        receive: Callable[[], Awaitable[AsgiMessage]],
        send: Callable[[AsgiMessage], Awaitable[None]],
    ) -> None:
        """Pass a request on; import the module first if this is the first one."""
        if self._app is None:
            self._app = (await asyncio.to_thread(import_module, self._module)).app
        await self._app(scope, receive, send)
