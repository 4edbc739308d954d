"""A registry of schemas for tests: the part of Confluent's REST that clients of Avro use.

https://docs.confluent.io/platform/current/schema-registry/develop/api.html: `GET /schemas/ids/{id}`,
`GET /subjects/{subject}/versions/{version}`, `POST /subjects/{subject}/versions`; errors are 40401 to 40403 and 401.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class SchemaRegistry:
    """
    schemas: by id: what `GET /schemas/ids/{id}` answers
    user:    `name:password` that is asked for; None: nobody is
    status:  what it answers instead of anything; 0: nothing else
    asked:   the paths that were asked for
    """

    url: str
    schemas: dict[int, dict[str, Any]] = field(default_factory=dict)
    subjects: dict[str, list[int]] = field(default_factory=dict)
    user: str | None = None
    status: int = 0
    asked: list[str] = field(default_factory=list)

    def register(self, subject: str, schema: Any, **more: Any) -> int:
        """A schema's id; `more` as the answer has it."""
        number = len(self.schemas) + 1
        self.schemas[number] = {"schema": json.dumps(schema), **more}
        self.subjects.setdefault(subject, []).append(number)
        return number

    def answer(self, method: str, path: str, body: dict[str, Any], key: str | None) -> tuple[int, Any]:
        self.asked.append(path)
        if self.status:
            return self.status, {"error_code": 50001, "message": "not now"}
        if self.user is not None and key != f"Basic {base64.b64encode(self.user.encode()).decode()}":
            return 401, {"error_code": 401, "message": "Unauthorized"}
        match [method, *path.strip("/").split("/")]:
            case ["GET", "schemas", "ids", number]:
                found = self.schemas.get(int(number))
                return (404, {"error_code": 40403, "message": "Schema not found"}) if found is None else (200, found)
            case ["GET", "subjects", subject, "versions", version]:
                at = self.subjects[subject][int(version) - 1]
                return 200, {"subject": subject, "version": int(version), "id": at, **self.schemas[at]}
            case ["POST", "subjects", subject, "versions"]:
                return 200, {"id": self.register(subject, json.loads(body["schema"]))}
            case _:
                return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}


@contextmanager
def registry() -> Iterator[SchemaRegistry]:
    """One on a port of this host, for the block."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
            path = self.path.partition("?")[0]
            status, told = found.answer(self.command, path, body, self.headers.get("Authorization"))
            data = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _answer  # noqa: N815 - as the base class calls them

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = SchemaRegistry(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
