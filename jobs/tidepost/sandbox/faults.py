"""Which faults hit a request: seeded, in the order of arrival."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from tidepost.sandbox.settings import Fault, Kind

_TOGETHER = frozenset({"delay", "drop"})


class _Rule:
    """A fault and what is left of it."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.left = fault.count
        self.to_skip = fault.skip


class FaultPlan:
    """The faults in force.

    Delays and drops apply beside any other fault; of the others the first that hits is the only one, and the next
    keeps its count for the next request: two one-shot faults hit two requests, in the order they were given.
    """

    def __init__(self, faults: Iterable[Fault] = (), *, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self._random = random.Random(seed)  # noqa: S311  # draws that can be repeated are the point
        self._rules = [_Rule(fault) for fault in faults]

    def add(self, fault: Fault) -> None:
        """Puts `fault` in force after those that already are."""
        with self._lock:
            self._rules.append(_Rule(fault))

    def shown(self) -> list[dict[str, Any]]:
        """The faults still in force, each with the count that is left."""
        with self._lock:
            return [asdict(rule.fault) | {"count": rule.left, "skip": rule.to_skip} for rule in self._rules]

    def draw(self, kind: Kind) -> tuple[Fault, ...]:
        """The faults that hit this request, which spends them."""
        hits: list[Fault] = []
        taken = False
        with self._lock:
            for rule in self._rules:
                fault = rule.fault
                if fault.kind not in ("any", kind):
                    continue
                if rule.to_skip:
                    rule.to_skip -= 1
                    continue
                alone = fault.fault not in _TOGETHER
                if (alone and taken) or (fault.share < 1 and self._random.random() >= fault.share):
                    continue
                taken = taken or alone
                hits.append(fault)
                if rule.left is not None:
                    rule.left -= 1
            self._rules = [rule for rule in self._rules if rule.left != 0]
        return tuple(hits)
