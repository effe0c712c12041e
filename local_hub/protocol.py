"""The HTTP protocol of the server: uvicorn's own, which also lets a fault rule hang up."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class Protocol(H11Protocol):
    """Adds the connection to each request's state, as ``scope["state"]["transport"]``."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note the connection."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}
