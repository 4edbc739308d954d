"""A server on a raw socket: it keeps every byte that came, and misbehaves to the byte."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

ORGANIZATION: Final = "5a9d0000-0000-4000-8000-000000000001"
MODEL: Final = "0c1f4fbe-0000-4000-8000-00000000beef"
TLS: Final = Path(__file__).parent / "tls"
_SMALL_BUFFER: Final = 1 << 16


class Exchange:
    """One request, as it came, and the means to answer it."""

    def __init__(self, sock: socket.socket, rest: bytes = b"") -> None:
        self.sock = sock
        self.over = False
        self.content = b""
        self._rest = rest
        self.head = b""

    def read_head(self) -> bool:
        """Whether a request came before the connection ended."""
        while b"\r\n\r\n" not in self._rest:
            data = self.sock.recv(65536)
            if not data:
                return False
            self._rest += data
        self.head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return True

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n")[0].decode()

    @property
    def headers(self) -> dict[str, str]:
        """By lower-case name."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    def read(self, most: int | None = None) -> bytes:
        """The body as `Content-Length` frames it, or as much of it as comes; at most `most` bytes."""
        length = int(self.headers.get("content-length", 0))
        blocks, size = [self._rest], len(self._rest)
        self._rest = b""
        while size < min(length, length if most is None else most):
            block = self.sock.recv(1 << 20)
            if not block:
                break
            blocks.append(block)
            size += len(block)
        self.content = b"".join(blocks)
        return self.content

    @property
    def whole(self) -> bool:
        """Whether all of the body was read."""
        return len(self.content) == int(self.headers.get("content-length", 0))

    def answer(self, status: int, content: object = None, **headers: str) -> None:
        """Answer with JSON, or with bytes as they are."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        lines = [f"HTTP/1.1 {status} It Is", f"Content-Length: {len(body)}", "Content-Type: application/json"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def reset(self) -> None:
        """End the connection with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.over = True
        self.sock.close()


Step = Callable[[Exchange], None]


def accepted(rows: int, *, failures: int = 0, key: str = "failures") -> dict[str, object]:
    """The content of a 207."""
    entries = [{"message": f"row is wrong in way {number}", "status": 400} for number in range(failures)]
    return {"counts": {"success": rows - failures, "failure": failures, "total": rows}, key: entries}


def accept(rows: int) -> Step:
    return answering(207, accepted(rows))


def answering(status: int, content: object = None, **headers: str) -> Step:
    """Reads everything, then answers."""

    def step(exchange: Exchange) -> None:
        exchange.read()
        exchange.answer(status, content, **headers)

    return step


def answering_early(
    status: int, content: object = None, *, silent: threading.Event | None = None, **headers: str
) -> Step:
    """Answers before it reads the body, and closes; or, with `silent`, stays there and reads nothing until then."""

    def step(exchange: Exchange) -> None:
        exchange.answer(status, content, **headers)
        if silent is not None:
            silent.wait(30)
        exchange.close()

    return step


def cutting(after: int) -> Step:
    """Reads some of the body, then resets."""

    def step(exchange: Exchange) -> None:
        exchange.read(after)
        exchange.reset()

    return step


def losing(exchange: Exchange) -> None:
    """Reads everything, and closes without an answer."""
    exchange.read()
    exchange.close()


def about_the_model(exchange: Exchange) -> None:
    """Answers what is asked before anything is sent."""
    if "/users/me" in exchange.line:
        exchange.answer(200, {"organization_id": ORGANIZATION})
    else:
        attribute = {"name": "probability", "value_type": "FLOAT", "stage": "PREDICTED_VALUE"}
        label = {"name": "late", "value_type": "BOOLEAN", "stage": "GROUND_TRUTH"}
        exchange.answer(200, {"id": MODEL, "status": "Ready", "is_batch": False, "attributes": [attribute, label]})


class RawServer:
    """Takes the next step with each request that is not a GET; GETs are answered by `on_get`, and not scripted.

    asked:   every request so far, in order of arrival
    sent:    those of them that are not GETs
    errors:  what went wrong in here
    """

    def __init__(self, *steps: Step, tls: bool = False, on_get: Step = about_the_model) -> None:
        self.asked: list[Exchange] = []
        self.sent: list[Exchange] = []
        self.connections = 0
        self.errors: list[BaseException] = []
        self._steps = list(steps)
        self._on_get = on_get
        self._tls: ssl.SSLContext | None = None
        if tls:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(TLS / "server.pem")
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(16)
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._listen)]
        self._open: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(10)
        self._listener.close()
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(10)
        if self.errors and error is None:
            raise self.errors[0]

    def _listen(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            self._open.append(sock)
            with sock:
                while self._one(sock):
                    pass
        except OSError:
            pass  # the client went away, or its trust did not reach here
        except BaseException as error:
            self.errors.append(error)

    def _one(self, sock: socket.socket) -> bool:
        exchange = Exchange(sock)
        if not exchange.read_head():
            return False
        self.asked.append(exchange)
        if exchange.line.startswith("GET "):
            self._on_get(exchange)
        else:
            self.sent.append(exchange)
            self._steps.pop(0)(exchange)
        return not exchange.over


class Proxy:
    """An HTTP proxy: forwards plain requests, tunnels CONNECT. `lines` are the request lines that came."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._listen)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _listen(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        exchange = Exchange(sock)
        with sock, suppress(OSError):
            if not exchange.read_head():
                return
            self.lines.append(exchange.line)
            method, target, _ = exchange.line.split(" ")
            address = target.removeprefix("http://").split("/")[0]
            host, _, port = address.partition(":")
            with socket.create_connection((host, int(port))) as upstream:
                if method == "CONNECT":
                    sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                else:
                    # One request a connection is enough here, and the answer says so.
                    head = exchange.head.replace(target.encode(), target.partition(address)[2].encode(), 1)
                    upstream.sendall(head + b"\r\n\r\n" + exchange.read())
                    upstream.shutdown(socket.SHUT_WR)
                    sock.sendall(upstream.recv(1 << 16).replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                    self._pump(upstream, sock)
                    return
                back = threading.Thread(target=self._pump, args=(upstream, sock))
                back.start()
                self._pump(sock, upstream)
                back.join(10)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
