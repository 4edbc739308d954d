"""What every request passes through: the record of recent requests, and the faults."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections import deque
from collections.abc import Callable, MutableMapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tidepost.sandbox.connection import hang_up
from tidepost.sandbox.faults import FaultPlan
from tidepost.sandbox.settings import Fault, Kind

_REMEMBERED: Final = 100
_APIS: Final = ("/api/", "/v1/")
_KINDS: Final[tuple[tuple[re.Pattern[str], Kind], ...]] = (
    (re.compile(r"POST /api/v3/models/[^/]+/inferences/file"), "file"),
    (re.compile(r"POST /api/v3/models/[^/]+/inferences/query"), "query"),
    (re.compile(r"(POST|PATCH) /api/v3/models/[^/]+/(inferences|ground_truth)"), "rows"),
    (re.compile(r"POST /v1/pandas_arrow"), "file"),
    (re.compile(r"POST /v1/log"), "rows"),
)
_EXCHANGE: Final = "tidepost.exchange"
_DROP: Final = "tidepost.drop"


@dataclass(slots=True)
class Exchange:
    """One request as it is remembered; headers, queries and bodies never are.

    status:  None when no answer was sent
    fault:   the names of the faults that hit it
    """

    at: float
    method: str
    path: str
    status: int | None = None
    rows: int | None = None
    bytes: int = 0
    ms: float = 0.0
    fault: str = ""


class Recent:
    """The last requests to the API."""

    def __init__(self) -> None:
        self._exchanges: deque[Exchange] = deque(maxlen=_REMEMBERED)

    def add(self, exchange: Exchange) -> None:
        """Remembers a request that is over."""
        self._exchanges.append(exchange)

    def shown(self) -> list[dict[str, Any]]:
        """The requests, newest first."""
        return [asdict(exchange) for exchange in reversed(tuple(self._exchanges))]


def note_rows(scope: MutableMapping[str, Any], rows: int) -> None:
    """Notes how many rows a request held."""
    exchange: Exchange = scope[_EXCHANGE]
    exchange.rows = rows


def share_to_drop(scope: MutableMapping[str, Any]) -> float:
    """The share of the request's rows that is to be left out silently."""
    return float(scope.get(_DROP, 0.0))


class Gate:
    """ASGI middleware. Paths are matched before percent-decoding, so that an encoded slash stays within its segment.

    An answer never overtakes the request: what is left of the body is read first, so a client that sends a large
    body gets the status and not a broken pipe.
    """

    def __init__(self, app: ASGIApp, *, plan: Callable[[], FaultPlan], recent: Recent) -> None:
        self._app = app
        self._plan = plan
        self._recent = recent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["path"] = scope["raw_path"].decode("latin-1")
        if not scope["path"].startswith(_APIS):
            await self._app(scope, receive, send)
            return
        exchange = Exchange(time.time(), scope["method"], scope["path"])
        started = time.perf_counter()
        scope[_EXCHANGE] = exchange
        empty = (b"content-length", b"0") in scope["headers"]
        hits = self._plan().draw("other" if empty else kind_of(scope["method"], scope["path"]))
        exchange.fault = ", ".join(fault.fault for fault in hits)
        try:
            await _Request(self._app, scope, receive, send, exchange=exchange, hits=hits).serve()
        finally:
            exchange.ms = round((time.perf_counter() - started) * 1000, 1)
            self._recent.add(exchange)


def kind_of(method: str, path: str) -> Kind:
    """What kind of request the faults take it for."""
    line = f"{method} {path}"
    return next((kind for pattern, kind in _KINDS if pattern.fullmatch(line)), "other")


class _Request:
    """One API request with the faults that hit it."""

    def __init__(
        self,
        app: ASGIApp,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        exchange: Exchange,
        hits: tuple[Fault, ...],
    ) -> None:
        self._app = app
        self._scope = scope
        self._receive = receive
        self._send = send
        self._exchange = exchange
        self._hits = hits
        self._fault = next((hit for hit in hits if hit.fault not in ("delay", "drop")), None)
        self._body_read = False
        self._silent = False

    async def serve(self) -> None:
        """Answers, or not."""
        for hit in self._hits:
            if hit.fault == "delay":
                await asyncio.sleep(hit.seconds)
            elif hit.fault == "drop":
                self._scope[_DROP] = hit.rows
        fault = self._fault
        if fault is None or fault.fault in ("lose_reply", "fail_after"):
            await self._app(self._scope, self._receive_counted, self._send_checked)
        elif fault.fault == "reset":
            await self._drain(fault.after_bytes)
            await self._cut(reset=True)
        else:
            await self._drain()
            await self._answer(fault)

    async def _receive_counted(self) -> Message:
        message = await self._receive()
        self._exchange.bytes += len(message.get("body", b""))
        self._body_read = not message.get("more_body", False)
        return message

    async def _send_checked(self, message: Message) -> None:
        if self._silent:
            return
        if message["type"] == "http.response.start":
            await self._drain()
            self._exchange.status = message["status"]
            if self._fault is not None:
                self._silent = True
                await (self._cut(reset=False) if self._fault.fault == "lose_reply" else self._answer(self._fault))
                return
        await self._send(message)

    async def _drain(self, enough: float = math.inf) -> None:
        while not self._body_read and self._exchange.bytes < enough:
            await self._receive_counted()

    async def _cut(self, *, reset: bool) -> None:
        self._exchange.status = None
        hang_up(self._scope, reset=reset)
        await asyncio.sleep(0)  # the server has to hear that the connection is gone before this request returns

    async def _answer(self, fault: Fault) -> None:
        status = 429 if fault.fault == "throttle" else fault.status
        body = json.dumps({"message": f"the sandbox was told to {fault.fault}", "status": status}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if fault.fault == "throttle":
            headers.append((b"retry-after", f"{fault.retry_after:g}".encode()))
        self._exchange.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})
