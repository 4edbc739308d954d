"""What a power cut may undo: a name in a folder lasts only once the folder was synced, whoever gets to it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tidepost.errors import Retryable
from tidepost.model import Part, Stream, StreamName
from tidepost.staging.local import LocalStaging

STREAM = Stream(1, "flights", StreamName.INFERENCES)
PART = Part(0, "data/event_day=2024-05-01/00000001-00000.parquet", 1, 4, "", 0, 0, {})


class Disk:
    """Notes what is synced, and fails to sync folders for as long as it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failing = False
        self.synced: set[Path] = set()
        plain = os.fsync

        def fsync(descriptor: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if self.failing and path.is_dir():
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            plain(descriptor)
            self.synced.add(path)

        monkeypatch.setattr(os, "fsync", fsync)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def folders(root: Path, file: Path) -> set[Path]:
    """Every folder from the one that holds a file up to the root."""
    return {folder for folder in file.parents if folder.is_relative_to(root)}


def test_a_file_that_was_made_visible_and_not_synced_is_synced_by_whoever_goes_on(tmp_path: Path, disk: Disk) -> None:
    staging = LocalStaging(tmp_path)
    file = staging.scratch(STREAM, 1, 1) / "00000.parquet"
    file.write_bytes(b"rows")
    part = staging.prepare(STREAM, PART, file)
    disk.failing = True
    with pytest.raises(Retryable):
        staging.reveal(STREAM, part)
    disk.failing = False
    disk.synced.clear()
    LocalStaging(tmp_path).reveal(STREAM, part)
    visible = tmp_path / STREAM.prefix / PART.path
    assert visible.read_bytes() == b"rows"
    assert folders(tmp_path, visible) <= disk.synced


def test_the_folders_of_a_record_that_were_made_and_not_synced_are_synced_with_the_next(
    tmp_path: Path, disk: Disk
) -> None:
    disk.failing = True
    with pytest.raises(Retryable):
        LocalStaging(tmp_path).put("flights/inferences/_tidepost/head.json", b"{}")
    disk.failing = False
    disk.synced.clear()
    LocalStaging(tmp_path).put("flights/inferences/_tidepost/head.json", b"{}")
    assert folders(tmp_path, tmp_path / "flights/inferences/_tidepost/head.json") <= disk.synced
