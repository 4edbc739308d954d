"""One run of tidepost. Arguments: the project's root, the clock in seconds since 1970, and `deliver`, or `stage` for
a run without a destination, or `label` for one of the labels."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from tidepost.definition.project import load_project
from tidepost.model import Request, ScanKind
from tidepost.run import run
from tidepost.wire import ledger_of, wire


def main(root: Path, now: float, what: str) -> None:
    project = load_project(root)
    ledger = ledger_of(project)
    wired = wire(project, project.job("uploads"), ledger, clock=lambda: now)
    chosen = wired.labels if what == "label" and wired.labels is not None else wired
    world = chosen if what == "deliver" else replace(chosen, destinations=())
    request = Request(f"run {time.time_ns()}", ScanKind.INCREMENTAL)
    outcome = run(world, request, notice=lambda event: None, stop=threading.Event())
    for destination in wired.destinations:
        destination.close()  # type: ignore[attr-defined]
    ledger.close()
    if outcome.errors:
        raise outcome.errors[0]
    print(f"{outcome.cuts} cuts, {outcome.slices} slices, {outcome.tally}, {outcome.arrived} rows arrived")


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
