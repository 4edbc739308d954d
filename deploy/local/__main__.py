"""Starts a real Airflow on this machine, uploads the demo's flights with it, and says where to look.

    python -m deploy.local airflow
    python -m deploy.local cluster

Ctrl-C ends all of it.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from deploy.local.cluster import cluster
from deploy.local.environment import ROOT
from deploy.local.flights import DAG, Flights, flights
from deploy.local.rest import NotInTime, Rest, until
from deploy.local.settings import ADMIN, HOST, VIEWER, Place, free_port
from deploy.local.standalone import standalone

from tidepost.demo.demo import JOB
from tidepost.errors import TidepostError

HOME: Final = ROOT / ".tidepost"
_UPLOAD_SECONDS: Final = 240.0
_GROWS_EVERY: Final = 60.0


def main() -> int:
    """0 after Ctrl-C or SIGTERM; 1 where something did not come up, and why."""
    parser = argparse.ArgumentParser(prog="make airflow", description=__doc__)
    parser.add_argument("what", choices=("airflow", "cluster"))
    parser.add_argument(
        "--port", type=int, help="Airflow's own; by default 8080, or any free one where that is taken"
    )
    asked = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # SIGINT is off where a shell has put this behind
    try:
        _run(asked.what, asked.port or _port(8080))
    except KeyboardInterrupt:
        pass
    except (NotInTime, TidepostError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\nStopped: nothing is left running.")
    return 0


def _run(what: str, port: int) -> None:
    folder = HOME / what
    if what == "cluster":
        shutil.rmtree(folder, ignore_errors=True)  # its database and broker are new each time
    with ExitStack() as stack:
        print(f"Starting {'Airflow' if what == 'airflow' else 'an Airflow of many workers'}: this takes a minute.")
        demo = stack.enter_context(flights(folder, port=_port(8765)))
        place = Place(folder / "home", demo.root, ROOT / "dags", ROOT / "plugins", port=port)
        if what == "airflow":
            rest, env = stack.enter_context(standalone(place, demo.env)).rest, place.environment(demo.env)
        else:
            found = stack.enter_context(cluster(place, demo.env))
            rest, env = found.rest, found.env
        arrived = first_upload(rest, demo)
        print(_where(place, demo, arrived, _variables(place, env)), flush=True)
        while True:
            time.sleep(_GROWS_EVERY)
            demo.grow()


def first_upload(rest: Rest, demo: Flights) -> int:
    """Let the job run until more rows have arrived than there were; returns how many are there."""
    before = demo.arrived()
    rest.wait_for_dag(DAG)
    ran = rest.runs(DAG)
    rest.resume(DAG)
    if ran:  # of a new one, the scheduler runs the interval that is over by itself
        rest.trigger(DAG)
    until(lambda: demo.arrived() > before or None, "the first upload", seconds=_UPLOAD_SECONDS)
    return demo.arrived()


def _variables(place: Place, env: Mapping[str, str]) -> Path:
    """A file to source, after which `tidepost` finds ledger, staging and platform as the tasks do."""
    file = place.home / "variables"
    file.touch(mode=0o600)
    names = sorted(name for name in env if name.startswith(("TIDEPOST_", "AWS_", "SANDBOX_", "ARTHUR_")))
    file.write_text("".join(f"export {name}={shlex.quote(env[name])}\n" for name in names))
    return file


def _where(place: Place, demo: Flights, arrived: int, variables: Path) -> str:
    lines = [
        ("Airflow", place.url),
        ("user, password", f"{ADMIN} {place.password}   (or {VIEWER}, who may only look)"),
        ("the job's DAG", f"{place.url}/dags/{DAG}"),
        ("the platform", demo.sandbox.url),
        ("the project", str(demo.root)),
        ("logs", str(place.home)),
        ("beside it", f". {variables} && .venv/bin/tidepost status {JOB}"),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(
        [
            "",
            f"The first upload has arrived: {arrived:,} flights are at the platform.",
            *(f"  {name:<{width}}  {text}" for name, text in lines),
            "",
            "Another hour of flights is logged every minute; the DAG runs every hour, or when you trigger it.",
            "To stop all of it:  Ctrl-C",
        ]
    )


def _port(wanted: int) -> int:
    """This port, or any that is free where something listens there."""
    with socket.socket() as trying:
        return free_port() if trying.connect_ex((HOST, wanted)) == 0 else wanted


if __name__ == "__main__":
    sys.exit(main())
