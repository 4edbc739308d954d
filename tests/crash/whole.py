"""What has to hold at every moment, whatever was killed: readers of the staging see whole files only."""

from __future__ import annotations

import hashlib

from tests.world import World

from tidepost.model import StreamName


def only_whole_files_are_visible(world: World) -> None:
    """Every visible file is one that the ledger knows, byte for byte."""
    staging = world.area
    visible = list(staging.list("flights/inferences/data"))
    if not visible:
        return
    with world.ledger() as ledger:
        stream = ledger.plans.find("flights", StreamName.INFERENCES)
        assert stream is not None
        known = {one.part.path: one.part.sha256 for one in ledger.slices.published(stream, None).parts}
        half = ledger.slices.publishing(stream)
        known |= {part.path: part.sha256 for part in (half.parts if half is not None else ())}
    for key in visible:
        path, data = key.removeprefix(f"{stream.prefix}/"), staging.get(key)
        assert data is not None
        assert hashlib.sha256(data).hexdigest() == known.get(path), path
