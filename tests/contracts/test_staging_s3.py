"""Staging on S3: the contract, and what is S3's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.contracts.staging_contract import STREAM, StagingContract, finished, rows_of
from tests.s3 import NewPlace

from tidepost.errors import Misconfigured, Vanished
from tidepost.s3.connection import Connection, Store
from tidepost.staging.s3 import S3Staging

SCRATCH = f"{STREAM.prefix}/_tidepost/scratch"


class TestS3Staging(StagingContract):
    @pytest.fixture
    def place(self, new_place: NewPlace) -> str:
        return new_place()

    @pytest.fixture
    def staging(self, place: str, tmp_path: Path) -> S3Staging:
        return S3Staging(Store.at(place), tmp_path / "here")

    @pytest.fixture
    def again(self, place: str, tmp_path: Path) -> Callable[[], S3Staging]:
        return lambda: S3Staging(Store.at(place), tmp_path / "elsewhere")


@pytest.fixture
def staging(new_place: NewPlace, tmp_path: Path) -> S3Staging:
    return S3Staging(Store.at(new_place(), Connection()), tmp_path / "here")


def asked(staging: S3Staging) -> Counter[str]:
    """What the store is asked from now on."""
    names: Counter[str] = Counter()

    def count(model: Any, **_: Any) -> None:
        names[model.name] += 1

    staging.store.client.meta.events.register("before-call.s3", count)
    return names


@pytest.mark.parametrize("name", ["it's", "with [brackets]", "stars * and ?", "größe 🎈", "{braces}", "a=b", "50%20"])
def test_staging_may_lie_at_a_place_of_any_name(new_place: NewPlace, tmp_path: Path, name: str) -> None:
    staging = S3Staging(Store.at(f"{new_place()}/{name}"), tmp_path)
    part = finished(staging, partner_inference_id=["a"])
    staging.reveal(STREAM, part)
    assert rows_of(staging, part) == [("a", part.path, 0)]
    assert list(staging.list(f"{STREAM.prefix}/data")) == [f"{STREAM.prefix}/{part.path}"]


def test_what_a_killed_upload_left_in_pieces_is_found_and_given_up(staging: S3Staging) -> None:
    store = staging.store
    key = store.key(f"{SCRATCH}/00000012-2/00000.parquet")
    upload = store.client.create_multipart_upload(Bucket=store.bucket, Key=key)["UploadId"]
    store.client.upload_part(Bucket=store.bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"half of it")
    assert staging.leftovers(STREAM) == [12]
    staging.clear(STREAM, 12, 1)
    assert staging.leftovers(STREAM) == [12]
    staging.clear(STREAM, 12, 2)
    assert staging.leftovers(STREAM) == []
    assert list(store.unfinished("")) == []


def test_somebody_elses_object_among_the_unfinished_is_in_nobodys_way(staging: S3Staging) -> None:
    staging.put(f"{SCRATCH}/note.txt", b"")
    assert staging.leftovers(STREAM) == []
    staging.clear(STREAM, 1)
    assert staging.get(f"{SCRATCH}/note.txt") == b""


def test_a_publisher_that_waits_does_not_send_its_file_again(staging: S3Staging) -> None:
    part = finished(staging)
    (file,) = staging.root.rglob("00000.parquet")
    requests = asked(staging)
    assert staging.prepare(STREAM, replace(part, token=""), file) == part
    assert not requests


def test_what_is_not_what_was_prepared_is_never_made_visible(staging: S3Staging) -> None:
    part = finished(staging)
    staging.put(f"{SCRATCH}/00000001-1/00000.parquet", b"x" * part.size)
    with pytest.raises(Vanished):
        staging.reveal(STREAM, part)
    assert list(staging.list(f"{STREAM.prefix}/data")) == []


def test_a_store_that_copies_whatever_is_there_does_not_deceive(staging: S3Staging) -> None:
    def deaf(params: Any, **_: Any) -> None:
        params["headers"].pop("x-amz-copy-source-if-match")

    staging.store.client.meta.events.register("before-call.s3.CopyObject", deaf)
    part = finished(staging)
    staging.put(f"{SCRATCH}/00000001-1/00000.parquet", b"x" * part.size)
    with pytest.raises(Vanished):
        staging.reveal(STREAM, part)
    assert list(staging.list(f"{STREAM.prefix}/data")) == []


def test_a_part_that_was_prepared_on_another_kind_of_staging_has_vanished(staging: S3Staging) -> None:
    part = replace(finished(staging), token=f"{SCRATCH}/00000001-1/00000.parquet")
    with pytest.raises(Vanished):
        staging.reveal(STREAM, part)


def test_many_parts_are_asked_for_at_once(staging: S3Staging) -> None:
    parts = [finished(staging, number=number) for number in range(5)]
    for part in parts:
        staging.reveal(STREAM, part)
    requests = asked(staging)
    assert len(rows_of(staging, *parts)) == 5
    assert requests.pop("ListObjectsV2") == 1
    assert set(requests) == {"GetObject"}


def test_a_part_that_could_not_be_copied_is_refused_before_it_is_sent(staging: S3Staging) -> None:
    part = replace(finished(staging), size=6 << 30)
    requests = asked(staging)
    with pytest.raises(Misconfigured, match="5 GiB") as error:
        staging.prepare(STREAM, part, staging.root / "any")
    assert "file_bytes" in error.value.hint
    assert not requests
