"""Serves the sandbox over HTTP until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from tidepost.errors import Misconfigured
from tidepost.sandbox.app import create_app
from tidepost.sandbox.connection import OpenHanded
from tidepost.sandbox.settings import Settings


def serve(settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Binds, calls `announce` with the base URL once connections are accepted, and runs until SIGTERM or SIGINT;
    returns within about two seconds of either. A port of 0 is any free one. Misconfigured when the port or the data
    directory is taken."""
    listener = _bind(settings)
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    with listener:
        config = uvicorn.Config(
            create_app(settings),
            http=OpenHanded,
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        asyncio.run(_Server(config, lambda: announce(url)).serve(sockets=[listener]))


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it is up, and returns instead of raising the signal again."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True


def _bind(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        what = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise Misconfigured(
            f"port {settings.port} on {settings.host} {what}", hint="Name another with --port; 0 is any free one."
        ) from error
    return listener
