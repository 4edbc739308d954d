"""Delivering staged files to a platform that takes them at once, with and without latency."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.benchmarks.cases.staging import template
from tests.benchmarks.data import Data
from tests.benchmarks.measure import Case, Contender
from tests.benchmarks.project import Project, model
from tests.environment import environment

ROOT = Path(__file__).resolve().parents[3]


@contextmanager
def sink(data: Data, latency: float) -> Iterator[str]:
    """The URL of a platform that waits so long before each answer."""
    definition = data.folder / "model.json"
    definition.write_text(json.dumps(model()))
    command = [sys.executable, "-m", "tests.benchmarks.sink", str(latency), str(definition)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def forget(url: str) -> None:
    """Make the sink as new."""
    urllib.request.urlopen(urllib.request.Request(f"{url}/forget", b"", method="POST")).read()


@contextmanager
def _delivery(data: Data, latency: float) -> Iterator[Case]:
    before = template(data)
    files = sorted((before.staged / "data").rglob("*.parquet"))
    flat = data.fresh(f"flat-{latency}")
    for number, file in enumerate(files):
        (flat / f"{number:05d}.parquet").hardlink_to(file)
    again = Project(data.folder / f"delivering-{latency}")
    with sink(data, latency) as url:

        def prepare() -> None:
            forget(url)
            before.copied(again.root).change("destination", url=url)

        arguments = (url, model()["id"], flat)
        yield Case(
            f"Delivering {len(files)} files, {latency:g} s a request",
            (
                Contender(
                    "arthurai, a directory", environment("arthur-sdk") / "python", "arthurai_directory.py", arguments
                ),
                again.run("tidepost, until all has arrived", what="deliver", before=prepare),
            ),
            base="arthurai, a directory",
        )


def delivery(data: Data) -> AbstractContextManager[Case]:
    """Without latency."""
    return _delivery(data, 0.0)


def latency(data: Data) -> AbstractContextManager[Case]:
    """With latency."""
    return _delivery(data, data.sizes.latency)
