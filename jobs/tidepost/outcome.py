"""What becomes of a run, also of one that went on after something failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tidepost.errors import HeldElsewhere, Misconfigured, Refused, Retryable, TidepostError, Unknown
from tidepost.events import Event, Notice, Settled
from tidepost.model import DeliveryState, Stream, Tally


@dataclass(slots=True)
class Outcome:
    """What a run did. `errors` are in the order in which they happened; the worst gives the exit code. `failed` are
    the destinations that are the cause of some, of which the others know nothing."""

    stream: Stream
    cuts: int = 0
    slices: int = 0
    size: int = 0
    tally: Tally = field(default_factory=Tally)
    arrived: int = 0
    held: int = 0
    stopped: bool = False
    errors: list[BaseException] = field(default_factory=list)
    failed: dict[str, list[BaseException]] = field(default_factory=dict)

    def fail(self, destination: str, error: BaseException) -> None:
        """Remember an error of one destination."""
        self.errors.append(error)
        self.failed.setdefault(destination, []).append(error)

    @property
    def general(self) -> bool:
        """Whether anything went wrong that is not one destination's."""
        return len(self.errors) > sum(map(len, self.failed.values()))

    def counting(self, notice: Notice) -> Notice:
        """The same notice, which also counts what is settled."""

        def told(event: Event) -> None:
            if isinstance(event, Settled):
                self.arrived += event.delivery.arrived
                self.held += event.delivery.state is DeliveryState.HELD
            notice(event)

        return told

    def worst(self) -> BaseException | None:
        """The error that a caller should act on first, or None."""
        order = (Misconfigured, Refused, Unknown, Retryable, HeldElsewhere)
        unexpected = [error for error in self.errors if not isinstance(error, TidepostError)]
        known = [error for kind in order for error in self.errors if isinstance(error, kind)]
        return next(iter([*unexpected, *known, *self.errors]), None)


@contextmanager
def remembered(outcome: Outcome) -> Iterator[None]:
    """Let an error of a closing step be one of the run's, for nothing depends on it."""
    try:
        yield
    except TidepostError as error:
        outcome.errors.append(error)
