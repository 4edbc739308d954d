"""Reconcile, resend and purge by command: tables, JSON, files, questions and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable

import duckdb
import pyarrow.parquet as pq
import pytest
from tests.cli.conftest import NOW_TEXT, Ended, Shell
from tests.world import World, after, rows

from tidepost.sandbox.settings import Fault

Upload = Callable[..., Ended]


@pytest.fixture
def world(world: World) -> World:
    world.define(limits={"cut_rows": 20}, staging={"keep": "0s"})
    world.log("monday", rows(60, every=300))
    return world


def lose(world: World, count: int) -> None:
    world.platform.process.wait_until_loaded()
    assert world.platform.process.lose(world.model_id, [f"r{n:06d}" for n in range(count)]) == count


def test_where_all_agrees_the_table_says_so(upload: Upload, tidepost: Shell) -> None:
    upload()
    ended = tidepost("reconcile", "flights")
    assert ended.err == ""
    lines = ended.out.splitlines()
    assert lines[0].startswith("flights: the source from 2024-05-01T00:00Z to ")
    heads, total = lines[2].split(), lines[-2].split()
    names = "day source published duplicates conflicts rejected arrived in flight held"
    assert " ".join(heads) == names
    assert total == ["total", "60", "60", "0", "0", "0", "60", "0", "0"]


def test_what_is_lost_is_named_and_ends_with_7(world: World, upload: Upload, tidepost: Shell) -> None:
    upload()
    lose(world, 3)
    ended = tidepost("reconcile", "flights", code=7)
    assert [line.split()[:2] for line in ended.out.splitlines() if line.startswith("lost")] == [
        ["lost", "r000000"],
        ["lost", "r000001"],
        ["lost", "r000002"],
    ]
    assert "error: flights: of 60 rows 3 lost at arthur" in ended.err
    assert "tidepost reconcile flights --repair" in ended.err


def test_another_model_is_not_compared_with_what_was_sent(world: World, upload: Upload, tidepost: Shell) -> None:
    upload()
    world.define(destination={"model": world.platform.register()[0]})
    for command in ("reconcile", "resend"):
        ended = tidepost(command, "flights", code=2)
        assert "destination arthur of flights/inferences was" in ended.err
        assert ended.out == ""


def test_json_holds_every_number_and_every_id(world: World, upload: Upload, tidepost: Shell) -> None:
    upload()
    lose(world, 25)
    document = tidepost("reconcile", "flights", "--every", "hour", "--json", code=7).document
    assert document["agrees"] is False
    assert document["total"]["published"] == 60
    assert document["total"]["at"]["arthur"]["lost"] == 25
    assert [one["source"] for one in document["buckets"]] == [12] * 5
    assert [one["id"] for one in document["differences"]] == [f"r{n:06d}" for n in range(25)]
    assert document["differences"][0] == {
        "what": "lost",
        "id": "r000000",
        "event": "2024-05-01T12:00Z",
        "destination": "arthur",
        "slice": 1,
        "detail": "",
    }
    assert document["error"]["exit_code"] == 7


def test_more_ids_than_are_shown_are_counted(world: World, upload: Upload, tidepost: Shell) -> None:
    upload()
    lose(world, 25)
    out = tidepost.here("reconcile", "flights", code=7).out
    assert sum(line.startswith("lost") for line in out.splitlines()) == 20
    assert "and 5 ids more; all of them:  --json, or --ids FILE" in out


def test_numbers_and_ids_go_to_files_of_three_formats(world: World, upload: Upload, tidepost: Shell) -> None:
    upload()
    lose(world, 25)
    for suffix in ("parquet", "json", "csv"):
        files = ("--out", f"numbers.{suffix}", "--ids", f"ids.{suffix}")
        tidepost.here("reconcile", "flights", "--every", "hour", *files, code=7)
        numbers = duckdb.sql(f"SELECT sum(source), sum(lost), count(*) FROM '{world.root}/numbers.{suffix}'")
        assert numbers.fetchall() == [(60, 25, 5)]
        ids = duckdb.sql(f"SELECT count(*), count(DISTINCT id) FROM '{world.root}/ids.{suffix}' WHERE what = 'lost'")
        assert ids.fetchall() == [(25, 25)]
    columns = pq.read_schema(world.root / "ids.parquet").names
    assert columns == ["what", "id", "inference_timestamp", "destination", "slice", "detail"]
    assert not list(world.root.glob(".*.draft"))


def test_a_file_of_another_format_is_refused(upload: Upload, tidepost: Shell) -> None:
    upload()
    assert (
        "ends with none of .parquet, .json, .csv"
        in tidepost.here("reconcile", "flights", "--out", "numbers.xlsx", code=2).err
    )


def test_a_range_is_of_the_cursor_or_of_the_inferences_time(world: World, upload: Upload, tidepost: Shell) -> None:
    upload()
    ends = ("--from", "2024-05-01T13:00Z", "--to", "2024-05-01T14:00Z")
    by_event = tidepost.here("reconcile", "flights", *ends, "--by", "event", "--json").document
    assert by_event["total"]["source"] == 12
    by_cursor = tidepost.here("reconcile", "flights", *ends, "--json").document
    assert by_cursor["total"]["source"] == 40
    assert by_cursor["cursor"]["start"] <= "2024-05-01T13:00:00Z"
    assert "go together" in tidepost.here("reconcile", "flights", "--from", "2024-05-01T13:00Z", code=2).err


def test_a_job_that_never_ran_says_so(tidepost: Shell) -> None:
    for name in ("reconcile", "resend"):
        assert "flights never ran" in tidepost.here(name, "flights", code=2).err
    assert tidepost.here("purge").out == "nothing may be dropped yet\n"


def test_a_repair_without_a_terminal_needs_yes(world: World, upload: Upload, tidepost: Shell) -> None:
    upload()
    lose(world, 3)
    for command in (("reconcile", "flights", "--repair"), ("resend", "flights")):
        ended = tidepost(*command, code=2)
        assert "there is no terminal to ask on" in ended.err
        assert "--yes" in ended.err
    assert world.platform_rows() == 57


def test_a_repair_sends_what_is_lost_and_what_is_missing_and_compares_again(
    world: World, upload: Upload, tidepost: Shell
) -> None:
    upload()
    lose(world, 3)
    world.log("late", rows(4, first=500, at=after(minutes=7), every=900))
    assert "3 lost at arthur, 4 missing here" in tidepost.here("reconcile", "flights", "--now", NOW_TEXT, code=7).err
    ended = tidepost.here("reconcile", "flights", "--repair", "--yes", "--now", NOW_TEXT)
    assert "flights: repaired, 3 lost rows sent again, 4 rows published, and compared again" in ended.out
    assert world.everything_arrived_once(64)


def test_a_repair_as_json_tells_what_it_did(world: World, upload: Upload, tidepost: Shell) -> None:
    upload()
    lose(world, 3)
    document = tidepost.here("reconcile", "flights", "--repair", "--yes", "--json").document
    assert document["agrees"] is True
    assert document["repaired"]["errors"] == []
    assert document["repaired"]["lost"] == 3
    assert tidepost.here("reconcile", "flights", "--repair", "--json").document["agrees"] is True


def test_a_repair_that_does_not_come_to_its_end_says_so_and_the_next_run_finishes_it(
    world: World, upload: Upload, tidepost: Shell
) -> None:
    upload()
    lose(world, 3)
    world.platform.process.fault(Fault("fail", kind="file", status=429))
    world.platform.process.fault(Fault("fail", kind="rows", status=429))
    ended = tidepost.here("reconcile", "flights", "--repair", "--yes", code=4)
    assert "flights: not everything has arrived again; tidepost status flights shows what is left" in ended.out
    assert "repaired" not in ended.out
    assert "too many requests" in ended.err
    world.platform.reset()
    tidepost.here("run", "flights", "--now", NOW_TEXT)
    assert world.everything_arrived_once(60)


def test_resend_sends_what_is_lost_of_one_slice_and_records_it(world: World, upload: Upload, tidepost: Shell) -> None:
    upload()
    lose(world, 25)
    ended = tidepost.here("resend", "flights", "--slice", "1", "--yes", "--why", "they had an accident")
    assert "flights: 20 rows were lost; all of their slices have arrived again" in ended.out
    assert world.platform_rows() == 55
    assert "they had an accident" in tidepost.here("ledger", "history", "flights").out
    document = tidepost.here("resend", "flights", "--yes", "--json").document
    assert document == {"job": "flights", "lost": 5, "held": 0, "sent": True}
    assert world.everything_arrived_once(60)
    assert "everything that had arrived is there" in tidepost.here("resend", "flights").out


def test_resend_takes_a_range_or_a_slice_and_a_destination_that_is_there(
    world: World, upload: Upload, tidepost: Shell
) -> None:
    upload()
    lose(world, 5)
    ends = ("--from", "2024-05-01T13:00Z", "--to", "2024-05-01T14:00Z", "--by", "event")
    assert "everything that had arrived is there" in tidepost.here("resend", "flights", *ends).out
    assert "no slice 77" in tidepost.here("resend", "flights", "--slice", "77", code=2).err
    assert "It has: arthur" in tidepost.here("resend", "flights", "--destination", "nobody", code=2).err
    assert "do not go together" in tidepost.here("resend", "flights", "--slice", "1", *ends, code=2).err


def test_resend_blind_is_refused_as_repeats_do_not_merge(upload: Upload, tidepost: Shell) -> None:
    upload()
    assert "it does not merge them" in tidepost.here("resend", "flights", "--blind", "--yes", code=2).err


def test_purge_tells_what_goes_and_resend_stages_it_again(world: World, upload: Upload, tidepost: Shell) -> None:
    upload()
    assert "3 files of 60 rows would be dropped" in tidepost.here("purge", "--dry-run").out
    assert len(world.files()) == 3
    (document,) = tidepost.here("purge", "flights", "--json").document["purged"]
    assert (document["files"], document["rows"], document["slices"]) == (3, 60, 3)
    assert world.files() == []
    assert tidepost.here("purge").out == "nothing may be dropped yet\n"
    lose(world, 20)
    tidepost.here("resend", "flights", "--yes")
    assert world.everything_arrived_once(60)
    assert "published" in tidepost.here("status", "flights").out


def test_a_purged_slice_that_cannot_be_staged_again_is_told_of(world: World, upload: Upload, tidepost: Shell) -> None:
    upload()
    tidepost.here("purge")
    lose(world, 20)
    world.log("monday", rows(60, every=300)[2:])
    ended = tidepost.here("resend", "flights", "--yes", code=2)
    assert "of 20 rows 2 are gone and 0 have changed" in ended.err
    assert json.loads(tidepost.here("resend", "flights", "--yes", "--json", code=2).out)["error"]["exit_code"] == 2
