"""The example of the documentation, as it stands there, takes a run."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.world import World, rows

from tidepost import run as engine
from tidepost.errors import Misconfigured

PAGE = Path(__file__).parents[2] / "docs" / "destinations.md"


def test_the_documented_destination_receives_every_row_once(world: World, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, str(PAGE), "exec"), names)
    folder = tmp_path / "received"
    world.log("monday", rows(300))
    world.define(destination={"name": "folder"})
    with world.wired() as wired:
        to = replace(wired, destinations=(names["FolderDestination"](folder),))
        with pytest.raises(Misconfigured, match="is no folder"):
            engine.run(to, world.ask(), notice=lambda _: None, stop=threading.Event())
        folder.mkdir()
        outcome = engine.run(to, world.ask(), notice=lambda _: None, stop=threading.Event())
    assert (outcome.errors, outcome.arrived) == ([], 300)
    files = list(folder.glob("*.parquet"))
    assert sum(pq.read_metadata(file).num_rows for file in files) == 300
    assert world.states() == {"closed": len(files)}
