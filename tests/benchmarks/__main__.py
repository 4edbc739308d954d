"""`make bench`: every case in one run, as a table. `--help` tells its options."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.benchmarks.cases import postgres
from tests.benchmarks.cases.arize import arize
from tests.benchmarks.cases.delivery import delivery, latency
from tests.benchmarks.cases.files import last_day, year
from tests.benchmarks.cases.kafka import kafka
from tests.benchmarks.cases.labels import labels, last_labels
from tests.benchmarks.cases.ledger import nothing
from tests.benchmarks.cases.staging import lookback, memory, staging
from tests.benchmarks.data import QUICK, Data, Sizes
from tests.benchmarks.measure import Case, measured
from tests.benchmarks.table import heading, section, written

CASES: dict[str, Callable[[Data], AbstractContextManager[Case]]] = {
    "staging": staging,
    "memory": memory,
    "lookback": lookback,
    "labels": labels,
    "last-labels": last_labels,
    "delivery": delivery,
    "latency": latency,
    "arize": arize,
    "nothing": nothing,
    "year": year,
    "last-day": last_day,
    "postgres-day": postgres.last_day,
    "postgres": postgres.table,
    "kafka": kafka,
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure, and print the table.")
    parser.add_argument(
        "--only", nargs="+", choices=list(CASES), default=list(CASES), metavar="NAME", help=", ".join(CASES)
    )
    parser.add_argument("--repetitions", type=int, default=3, help="runs of each contender, in turn (default: 3)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: to see that every case runs")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between the marks in this file")
    chosen = parser.parse_args(arguments)
    sizes = QUICK if chosen.quick else Sizes()
    began, sections = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="tidepost-bench-") as folder:
        data = Data(Path(folder), sizes)
        for name in chosen.only:
            with CASES[name](data) as case:
                found = section(case, measured(case, chosen.repetitions, data.folder))
            sections.append(found)
            print(f"{found}\n", flush=True)
    table = "\n\n".join([heading(chosen.repetitions, time.monotonic() - began), *sections])
    if chosen.write is not None:
        chosen.write.write_text(written(chosen.write.read_text(), table))


if __name__ == "__main__":
    main(sys.argv[1:])
