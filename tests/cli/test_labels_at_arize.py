"""Labels at Arize, which joins them for fourteen days after it received their inferences, and cannot be asked."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tests.cli.conftest import Shell
from tests.labels import LANDED, label, labels, of_labels, run_both, run_labels, stream_of_labels, versions_sent
from tests.world import KEY, NOW, START, World, rows, said

from tidepost.destinations.arize.destination import JOINS_WITHIN
from tidepost.sandbox.settings import Fault

SPACE = "a-space"


def test_labels_join_at_arize_and_the_days_that_fell_out_of_its_window_are_named(
    world: World, tidepost: Shell
) -> None:
    day = timedelta(days=1)
    world.job["destination"] = {}
    world.variables = {"ARIZE_API_KEY": KEY, "ARIZE_SPACE_ID": SPACE}
    world.define(
        limits={"cut_rows": 10},
        destination={
            "type": "arize",
            "url": "${SANDBOX_URL}/v1",
            "api_key": "${ARIZE_API_KEY}",
            "space_id": "${ARIZE_SPACE_ID}",
            "model": world.model,
            "version": "3",
            "model_type": "regression",
            "prediction_label": "score",
            "retries": 0,
        },
    )
    of_labels(world)
    tidepost = replace(tidepost, env={**tidepost.env, **world.env})
    world.log("monday", rows(10))
    world.log("tuesday", rows(10, first=10, at=START + day))
    world.now = NOW + day
    world.platform.process.configure(now=world.now.timestamp())
    labels(world, "all", [label(n, n) for n in range(15)])
    assert tidepost.here("validate", "flights", "--connect").out.count("to send, which arize takes") == 2
    assert [said(one) for one in run_both(world)] == ["", ""]
    found = world.platform.process.arize(SPACE, world.model)
    assert found is not None
    assert (found["predictions"], found["actuals"], found["matched"]) == (20, 15, 15)

    labels(world, "newer", [label(0, 50, known=LANDED + day)])
    world.platform.process.fault(Fault("lose_reply", kind="file", count=1))
    outcome = run_labels(world)
    assert outcome.held == 1
    labels(world, "newest", [label(0, 60, known=LANDED + 1.1 * day)])
    run_labels(world)
    record = world.platform.process.arize_records(SPACE, world.model, ["r000000"])["r000000"]
    assert float(record["actual_label"]) == 50, "a newer one waits for what a person decides"
    of = ("flights", "--stream", "ground_truth")
    tidepost.here("release", *of, "2", "--why", "it looked: it is there", "--arrived", "--yes")
    assert said(run_labels(world)) == ""
    record = world.platform.process.arize_records(SPACE, world.model, ["r000000"])["r000000"]
    assert float(record["actual_label"]) == 60
    assert len(versions_sent(world)) == 17

    now = ("--now", datetime.now(UTC).isoformat())
    told = f"further labels come too late at arize for: {START:%Y-%m-%d}\n"
    assert "too late" not in tidepost.here("status", "flights", *now).out
    with sqlite3.connect(world.root / ".tidepost" / "ledger.db") as ledger:
        ledger.execute("UPDATE deliveries SET closed_at = closed_at - ? WHERE sequence = 1", (JOINS_WITHIN + 60,))
    assert told in tidepost.here("status", "flights", *now).out
    days = tidepost.here("status", "flights", "--json", *now).document["coverage"]["days"]
    assert [(one["day"], one["labelled"], one["too_late"]) for one in days] == [
        (f"{START + day:%Y-%m-%d}", 5, []),
        (f"{START:%Y-%m-%d}", 10, ["arize"]),
    ]
    text = tidepost.here("reconcile", *of, *now).out
    assert told in text
    assert "at arize, which cannot be asked" in text
    totals = tidepost.here("reconcile", *of, *now, "--json").document["total"]
    assert (totals["source"], totals["published"], totals["missing"]) == (17, 17, 0)
    at = totals["at"]["arize"]
    assert (at["taken"], at["replaced"], at["lost"]) == (15, 2, 0)
    ended = tidepost.here("resend", *of, "--yes", *now, code=2)
    assert "Look at arize itself." in ended.err
    assert stream_of_labels(world).published == 3
