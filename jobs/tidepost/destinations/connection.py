"""Connections that mind a body's deadline, and listen while they send.

A server may answer before it has read the body (a wrong key, too many requests) and then close or stay silent;
whoever only writes learns of it late, or loses the answer to a reset.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import wait_for_read

from tidepost.destinations.body import Body

IDLE_SECONDS: Final = 4.0
"""A connection that was idle longer may be closed by the server just as a request leaves, of which nobody knows then
whether it landed; servers wait at least five seconds."""

_INTERIM: Final = b"HTTP/1.1 1"


class ListeningConnection(HTTPConnection):
    """An HTTP connection that stops sending a `Body` once it is answered, and is not used again after that."""

    _sending: Body | None = None
    _half_sent = False
    _used = 0.0

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        self._sending = body if isinstance(body, Body) else None
        # An error keeps the mark: what is on the wire then is half a request, even if an answer still comes.
        self._half_sent = True
        super().request(method, url, body=body, headers=headers, **options)
        self._half_sent = False
        self._sending = None

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 itself has it
        try:
            return super().getresponse()
        finally:
            self._used = time.monotonic()

    def send(self, data: Any) -> None:
        """Raises TimeoutError at the body's deadline, and BrokenPipeError, after which urllib3 reads the answer,
        where the server answers or closes before it has everything."""
        body = self._sending
        if body is not None and self.sock is not None:
            left = body.left()
            self.sock.settimeout(min(left, 1e6))
            if _answered(self.sock):
                body.withheld()
                raise BrokenPipeError("the server answered before it had everything")
        try:
            super().send(data)
        except ssl.SSLEOFError as error:
            raise BrokenPipeError("the server closed before it had everything") from error

    @property
    def is_connected(self) -> bool:
        idle = time.monotonic() - self._used
        return not self._half_sent and idle <= IDLE_SECONDS and super().is_connected


def _answered(sock: socket.socket) -> bool:
    """Whether something but an interim answer (100 Continue and its like) is there to read, or the end."""
    # Over TLS, readable may mean a session ticket; there, only a write that fails tells.
    if isinstance(sock, ssl.SSLSocket) or not wait_for_read(sock, timeout=0.0):
        return False
    try:
        return not sock.recv(len(_INTERIM), socket.MSG_PEEK).startswith(_INTERIM)
    except OSError:
        return True


class ListeningTLSConnection(ListeningConnection, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = ListeningConnection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = ListeningTLSConnection


class ListeningAdapter(HTTPAdapter):
    """requests' adapter over such connections, also where they lead through a proxy. It never retries."""

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, **options)
        _listen(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if not proxy.lower().startswith("socks"):
            _listen(manager)
        return manager


_POOLS: Mapping[str, type[HTTPConnectionPool]] = {"http": _Pool, "https": _TLSPool}


def _listen(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = dict(_POOLS)
