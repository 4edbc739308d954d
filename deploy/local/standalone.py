"""`airflow standalone`: every part of an Airflow as processes of one program, on SQLite, with the LocalExecutor."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local.program import Program
from deploy.local.rest import NotInTime, Rest, healthy, until
from deploy.local.settings import ADMIN, Place

COMPONENTS: Final = ("metadatabase", "scheduler", "triggerer", "dag_processor")
_READY_SECONDS: Final = 300.0


@dataclass(frozen=True)
class Standalone:
    """An Airflow that runs."""

    rest: Rest
    program: Program


@contextmanager
def standalone(place: Place, more: Mapping[str, str]) -> Iterator[Standalone]:
    """A healthy Airflow for the block. NotInTime, with what it said, where it does not come up.

    more: variables for its processes, on top of `place.environment`
    """
    place.prepare()
    airflow = Path(sys.executable).with_name("airflow")
    program = Program(
        [airflow, "standalone"],
        log=place.home / "standalone.log",
        env=place.environment(more),
        cwd=place.home,
    )
    with program:
        rest = Rest(place.url, ADMIN, place.password)
        try:
            until(
                lambda: healthy(rest, COMPONENTS) or None,
                "a healthy Airflow",
                seconds=_READY_SECONDS,
                alive=lambda: program.running,
            )
        except NotInTime as error:
            raise NotInTime(f"{error}\n{program.said()}") from None
        yield Standalone(rest, program)
