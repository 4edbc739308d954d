"""Hands the connection itself to the app, so that a request can be cut off for real."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import MutableMapping
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

_KEY: Final = "tidepost.transport"


class OpenHanded(H11Protocol):
    """uvicorn's HTTP/1.1 protocol, with the transport in every request's scope."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wraps the app once the connection stands."""
        super().connection_made(transport)
        app = self.app

        async def with_transport(scope: Any, receive: Any, send: Any) -> None:
            scope[_KEY] = transport
            await app(scope, receive, send)

        self.app = with_transport


def hang_up(scope: MutableMapping[str, Any], *, reset: bool) -> None:
    """Closes the request's connection without another byte: in order, or (`reset`) with a TCP reset."""
    transport: asyncio.Transport = scope[_KEY]
    if reset:
        raw: socket.socket = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
