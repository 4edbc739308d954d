"""Calls to one platform with their retries: what must not land twice, and what is harmless to repeat."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from tidepost.destinations.answers import Reading
from tidepost.destinations.backoff import Backoff, NotLanded
from tidepost.destinations.body import Body
from tidepost.destinations.transport import Answer, CallFailed, Transport
from tidepost.errors import Unknown

Form = Callable[[], AbstractContextManager[tuple[Mapping[str, str], Body]]]
"""Makes the headers and the body of one attempt, and cleans up after it."""


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls in the name of one key. Safe for several threads."""

    transport: Transport
    backoff: Backoff
    reading: Reading

    def deliver(self, method: str, path: str, what: str, form: Form, *, status: Collection[int]) -> Answer:
        """Send something that must not land twice, and return the answer, of one of the accepting `status`.

        form: gives each attempt its own
        Raises as `Destination.send` does, and whatever the body raises.
        """
        name = self.reading.platform

        def attempt() -> Answer:
            with form() as (headers, body):
                try:
                    answer = self.transport.call(method, path, body, headers=headers)
                except CallFailed as failure:
                    if not failure.landed:
                        raise NotLanded(failure.reason) from failure
                    raise Unknown(
                        f"{name} did not answer {what} ({failure.reason}): it may have arrived"
                    ) from failure
            return self.reading.expect(answer, status=status, what=what)

        return self.backoff.run(f"{name}: {what}", attempt)

    def ask(
        self,
        method: str,
        path: str,
        what: str,
        content: Mapping[str, object] | None = None,
        *,
        headers: Mapping[str, str],
        absent: bool = False,
    ) -> Any:
        """Call something that is harmless to repeat, and return the JSON of the 200 that it was answered with.

        absent: return None for a 404
        Raises Misconfigured (refused in whatever way), Retryable.
        """

        def attempt() -> Any:
            body = None if content is None else Body(json.dumps(content).encode())
            sent = headers if body is None else {**headers, "Content-Type": "application/json"}
            answer = self.once(method, path, body, headers=sent)
            if absent and answer.status == 404:
                return None
            found = self.reading.expect(answer, status=(200,), what=what, harmless=True).json()
            if found is None:
                raise NotLanded("the answer is not JSON")
            return found

        return self.backoff.run(f"{self.reading.platform}: {what}", attempt)

    def once(self, method: str, path: str, body: Body | None, *, headers: Mapping[str, str]) -> Answer:
        """One attempt at something harmless. Raises NotLanded where there was no answer."""
        try:
            return self.transport.call(method, path, body, headers=headers)
        except CallFailed as failure:
            raise NotLanded(failure.reason) from failure
