"""The memory of runs over a topic does not grow with what waits there, also while its platform is down."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from tests.kafka import Kafka, flood, read_topic
from tests.world import START, Platform, World

from tidepost.sandbox.settings import Fault

FEW, MANY, A_CUT = 50_000, 300_000, 12_500
"""Messages, and how many of them are a cut."""
SIZE = 1_200
"""Bytes of a message, and some more: most of it is what the job does not read."""
MORE = (MANY - FEW) * SIZE // 3
"""Bytes that a run may take more for 24 cuts than for four; much less than what waits more."""


def values(count: int) -> Iterator[bytes]:
    """Messages of a size, a tenth of a second apart."""
    text = '{"request": {"id": "r%d", "at": "%s"}, "features": {"distance": %d, "air.line": "UA"}, "scores": [0.5], '
    text += '"note": "note %d", "trace": "TRACE"}'.replace("TRACE", "x" * SIZE)
    at = (START + timedelta(seconds=n / 10) for n in range(count))
    return ((text % (n, at.isoformat(), n % 900, n)).encode() for n, at in enumerate(at))


def backlog(root: Path, platform: Platform, kafka: Kafka, count: int) -> World:
    """A world whose job has never run, and so many messages."""
    world = World.make(root, platform)
    limits = {"cut_rows": A_CUT}
    flood(kafka.bootstrap, read_topic(world, kafka), values(count))
    world.define(limits=limits, destination={"loading": "5m", "retries": 0})
    return world


def uploaded(world: World, count: int) -> int:
    """Run to the end; the peak of its memory in bytes."""
    with world.spawned("whole", anew=True) as process:
        found = process.told()
    assert (found["errors"], found["published"]) == ([], count)
    return int(found["peak"])


def followed_while_down(world: World, refusals: int) -> int:
    """Follow the topic until the platform has refused so often; the peak of its memory in bytes."""
    world.platform.process.fault(Fault("throttle", kind="file", retry_after=0.1))
    command = (sys.executable, "-m", "tidepost.cli", "stream", "flights", "--partitions", "0", "--events", str(A_CUT))
    env = {**os.environ, **world.env}
    with subprocess.Popen(command, cwd=world.root, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            while refusals:
                line = process.stderr.readline()
                assert line, "it ended"
                refusals -= "429" in line
            status = Path(f"/proc/{process.pid}/status").read_text()
        finally:
            process.kill()
    world.platform.reset()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_memory_does_not_grow_with_the_backlog_also_while_the_platform_is_down(
    tmp_path: Path, platform: Platform, groups: Kafka
) -> None:
    little = uploaded(backlog(tmp_path / "few", platform, groups, FEW), FEW)
    world = backlog(tmp_path / "many", platform, groups, MANY)
    while_down = followed_while_down(world, refusals=3)
    assert world.summary().rows == A_CUT  # the rest stays in Kafka
    much = uploaded(world, MANY - A_CUT)
    assert max(while_down, much) < little + MORE, (little, while_down, much)
    assert world.everything_arrived_once(MANY)
