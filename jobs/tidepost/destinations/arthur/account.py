"""One account at one Arthur platform: its headers, its model, and calls with their retries.

Arthur API v3, as its Python SDK 3.33.3 speaks it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final
from urllib.parse import quote

from tidepost.destinations.arthur.answers import ACCEPTED, reading
from tidepost.destinations.arthur.model import Model
from tidepost.destinations.arthur.options import ArthurOptions, is_uuid
from tidepost.destinations.backoff import Backoff
from tidepost.destinations.body import Body
from tidepost.destinations.calls import Calls
from tidepost.destinations.transport import Answer, Transport
from tidepost.errors import Misconfigured, Retryable

_HEADER: Final = "Arthur-Organization-ID"
_READY: Final = frozenset({"", "Ready"})
_FAILED: Final = frozenset({"CreationFailed", "Archived"})

Form = Callable[[], AbstractContextManager[tuple[str, Body]]]
"""Makes the content type and the body of one attempt, and cleans up after it."""


class ArthurAccount:
    """Calls in the name of one key. Organisation and model are looked up once. Safe for several threads."""

    def __init__(
        self, options: ArthurOptions, *, sleep: Callable[[float], None], random: Callable[[], float]
    ) -> None:
        key = options.api_key.strip()
        self.reading = reading(options.name, key)
        self._options = options
        self._transport = Transport(
            options.base,
            {"Authorization": key},
            timeout=options.timeout,
            connections=options.connections,
            ca_file=options.ca_file,
        )
        self._calls = Calls(self._transport, Backoff(options.retries, sleep, random), self.reading)
        self._lock = threading.RLock()
        self._organization = options.organization
        self._model: Model | None = None

    def close(self) -> None:
        self._transport.close()

    def model(self, *, fresh: bool = False) -> Model:
        """The model, as it was when it was first asked for, or as it is now. Raises Misconfigured, Retryable."""
        if self._model is not None and not fresh:
            return self._model
        with self._lock:
            if self._model is None or fresh:
                self._model = self._find_model()
            return self._model

    def organization(self) -> str:
        """The organisation that is worked in, after asking whether the key is good for it. Raises Misconfigured,
        Retryable."""
        if self._options.organization is None:
            return self._find_organization()
        try:
            self.ask("GET", "/users/me", "who am I")
        except Misconfigured:
            self.ask("GET", "/users/me/auth_info", "who am I")
        return self._options.organization

    def path(self, rest: str) -> str:
        """A path below the model's."""
        return f"/models/{quote(self.model().id, safe='')}{rest}"

    def deliver(self, method: str, path: str, what: str, form: Form) -> Answer:
        """Send something that must not land twice, and return the 207 that it was answered with.

        form: gives each attempt its own
        Raises as `Destination.send` does, and whatever the body raises.
        """
        organization = self._organization_header()

        @contextmanager
        def headed() -> Iterator[tuple[Mapping[str, str], Body]]:
            with form() as (content_type, body):
                yield {"Content-Type": content_type, **organization}, body

        return self._calls.deliver(method, path, what, headed, status=ACCEPTED)

    def ask(
        self, method: str, path: str, what: str, content: Mapping[str, object] | None = None, *, absent: bool = False
    ) -> Any:
        """Call something that is harmless to repeat, and return the JSON of the 200 that it was answered with.

        absent: return None for a 404
        Raises Misconfigured (refused in whatever way), Retryable.
        """
        return self._calls.ask(method, path, what, content, headers=self._organization_header(), absent=absent)

    def query(self, content: Mapping[str, object]) -> Sequence[Mapping[str, Any]]:
        """The rows of a query's result. Raises Misconfigured, Retryable."""
        answer = self.ask("POST", self.path("/inferences/query"), "a query", content)
        match answer:
            case {"query_result": list(rows)} if all(isinstance(row, Mapping) for row in rows):
                return rows
        raise Retryable(f"{self._options.name} answered a query with something else")

    def _organization_header(self) -> Mapping[str, str]:
        if self._organization is None:
            with self._lock:
                self._organization = self._organization or self._find_organization()
        return {_HEADER: self._organization}

    def _find_organization(self) -> str:
        found: object = None
        try:
            match self._calls.ask("GET", "/users/me", "who am I", headers={}):
                case {"organization_id": id_}:
                    found = id_
        except Misconfigured:
            # A key without the right to read its user; Arthur's SDK then asks for the token's own claims.
            match self._calls.ask("GET", "/users/me/auth_info", "who am I", headers={}):
                case {"organization_ids": [id_]}:
                    found = id_
        if not isinstance(found, str) or not is_uuid(found):
            raise Misconfigured(
                f"{self._options.name} does not say which one organisation the key belongs to",
                hint="Write its id as the destination's `organization`.",
            )
        return found

    def _find_model(self) -> Model:
        name, by_id = self._options.model, self._options.model_is_id
        kinds = ["id" if by_id else "partner_model_id"]
        if by_id is None and is_uuid(name):
            kinds = ["id", "partner_model_id"]
        for kind in kinds:
            path = f"/models/{quote(name, safe='')}?id_type={kind}&expand=attributes"
            answer = self.ask("GET", path, f"the model {name}", absent=True)
            if answer is not None:
                return self._usable(answer)
        raise Misconfigured(
            f"{self._options.name} has no model with the {' or '.join(kinds)} {name!r}",
            hint="See the destination's `model`, `organization` and `url`.",
        )

    def _usable(self, answer: object) -> Model:
        name = self._options.model
        try:
            model = Model.parse(answer)
        except ValueError as error:
            raise Retryable(f"{self._options.name}: the model {name}: {error}") from None
        if model.status in _FAILED:
            raise Misconfigured(
                f"{self._options.name}: the model {name} is {model.status}", hint="Register it again."
            )
        if model.status not in _READY:
            raise Retryable(f"{self._options.name}: the model {name} is not ready yet, but {model.status}")
        return model
