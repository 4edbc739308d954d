"""Asking every destination whether it takes what is staged, all at the same time.

Nobody waits for one that is slow to answer or down: a run goes on once one of them takes it, and whoever sends to
another waits for that one's own answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from tidepost.errors import TidepostError


@dataclass(frozen=True, slots=True)
class Checks:
    """What the destinations of one run answered, or will. `pool` asks where there are several."""

    pool: ThreadPoolExecutor
    _asked: dict[str, Future[None]] = field(default_factory=dict)

    def ask(self, questions: Mapping[str, Callable[[], None]]) -> list[BaseException]:
        """Ask, and wait until one takes it, or all have answered. Returns what each of them raised where none takes
        it, and nothing else; a single one's own error is raised."""
        if len(questions) == 1:
            for ask in questions.values():
                ask()
            return []
        self._asked.update({name: self.pool.submit(_named, name, ask) for name, ask in questions.items()})
        waiting = {self._asked[name] for name in questions}
        errors: list[BaseException] = []
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            found = [one.exception() for one in done]
            errors += [error for error in found if error is not None]
            if len(errors) < len(questions) - len(waiting):
                return []
        return errors

    def ready(self, name: str) -> None:
        """Wait for a destination's answer, where it was asked. Raises what it answered with."""
        if name in self._asked:
            self._asked[name].result()


def _named(name: str, ask: Callable[[], None]) -> None:
    try:
        ask()
    except TidepostError as error:
        raise naming(name, error) from None


def naming(name: str, error: BaseException) -> BaseException:
    """The error, whose message says at which of several destinations it happened."""
    if isinstance(error, TidepostError) and not error.message.startswith(f"{name}: "):
        error.message = f"{name}: {error.message}"
    return error
