"""A door before a broker for tests: TLS with an authority of its own, and SASL PLAIN with one user. What comes
through goes to the broker as it is.

The first requests of a connection are answered here, as https://kafka.apache.org/protocol says: which requests there
are (ApiVersions, version 0, to the broker's own list SASL's two are added), SaslHandshake, and SaslAuthenticate. In
answers the broker's port becomes the door's, so that clients come back through it.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

TLS: Final = Path(__file__).parent / "integration" / "tls"
AUTHORITY: Final = TLS / "authority.pem"
API_VERSIONS, HANDSHAKE, AUTHENTICATE = 18, 17, 36
UNSUPPORTED_VERSION, REFUSED = 35, 58


@dataclass
class Door:
    """
    user:   `(name, password)` who comes through
    opened: how often somebody did
    """

    port: int
    broker: int
    user: tuple[str, str]
    opened: int = 0
    _sockets: list[socket.socket] = field(default_factory=list)

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def serve(self, client: socket.socket, context: ssl.SSLContext) -> None:
        """One connection, to its end."""
        with suppress(OSError), context.wrap_socket(client, server_side=True) as inside:
            self._sockets.append(inside)
            with socket.create_connection(("127.0.0.1", self.broker)) as behind:
                self._sockets.append(behind)
                if not self._let_in(inside, behind):
                    return
                self.opened += 1
                back = threading.Thread(target=self._back, args=(behind, inside))
                back.start()
                with suppress(OSError, EOFError):
                    while True:
                        behind.sendall(_framed(_frame(inside)))
                with suppress(OSError):
                    behind.shutdown(socket.SHUT_RDWR)
                back.join()

    def close(self) -> None:
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _let_in(self, inside: socket.socket, behind: socket.socket) -> bool:
        with suppress(EOFError):
            while True:
                frame = _frame(inside)
                key, version, number = struct.unpack_from(">hhi", frame)
                (length,) = struct.unpack_from(">h", frame, 8)
                body = frame[10 + max(0, length) :]
                if key == API_VERSIONS and version:
                    answer = struct.pack(">hi", UNSUPPORTED_VERSION, 0)
                elif key == API_VERSIONS:
                    behind.sendall(_framed(frame))
                    answer = _with_sasl(_frame(behind)[4:])
                elif key == HANDSHAKE:
                    answer = struct.pack(">hih", 0, 1, 5) + b"PLAIN"
                elif key == AUTHENTICATE:
                    right = body[4:].split(b"\0")[1:] == [one.encode() for one in self.user]
                    told = b"" if right else b"no such user, or another password"
                    answer = struct.pack(">hh", 0 if right else REFUSED, len(told) if told else -1) + told
                    answer += struct.pack(">i", 0) + (struct.pack(">q", 0) if version else b"")
                    inside.sendall(_framed(struct.pack(">i", number) + answer))
                    return right
                else:
                    return False
                inside.sendall(_framed(struct.pack(">i", number) + answer))
        return False

    def _back(self, behind: socket.socket, inside: socket.socket) -> None:
        there, here = (b"127.0.0.1" + struct.pack(">i", port) for port in (self.broker, self.port))
        with suppress(OSError, EOFError):
            while True:
                inside.sendall(_framed(_frame(behind).replace(there, here)))


@contextmanager
def door(bootstrap: str, user: tuple[str, str]) -> Iterator[Door]:
    """One before a broker on this host, for the block."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        found = Door(listening.getsockname()[1], int(bootstrap.rpartition(":")[2]), user)
        threads: list[threading.Thread] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    threads.append(threading.Thread(target=found.serve, args=(client, context)))
                    threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield found
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join()
            found.close()
            for one in threads:
                one.join()


def _with_sasl(versions: bytes) -> bytes:
    """The list of requests that a broker takes, with SASL's."""
    error, count = struct.unpack_from(">hi", versions)
    listed = [versions[at : at + 6] for at in range(6, 6 + 6 * count, 6)]
    kept = [one for one in listed if struct.unpack_from(">h", one)[0] not in (HANDSHAKE, AUTHENTICATE)]
    both = [*kept, struct.pack(">hhh", HANDSHAKE, 0, 1), struct.pack(">hhh", AUTHENTICATE, 0, 1)]
    return struct.pack(">hi", error, len(both)) + b"".join(both)


def _framed(content: bytes) -> bytes:
    return struct.pack(">i", len(content)) + content


def _frame(of: socket.socket) -> bytes:
    (length,) = struct.unpack(">i", _exactly(of, 4))
    return _exactly(of, length)


def _exactly(of: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = of.recv(size - len(found))
        if not more:
            raise EOFError
        found += more
    return found
