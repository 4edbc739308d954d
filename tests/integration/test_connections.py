"""A run whose platform, source, staging and ledger are all named by connections of Airflow, from the command line."""

from __future__ import annotations

import json
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest
from tests.postgres import NewUrl
from tests.s3 import SECRET, NewPlace, S3Server
from tests.world import KEY, World, rows, said, table

from tidepost.cli import main
from tidepost.s3.connection import Store

PASSWORD = "hunter2/@:"


@pytest.fixture
def connected(
    world: World, s3: S3Server, new_place: NewPlace, new_ledger: NewUrl, monkeypatch: pytest.MonkeyPatch
) -> World:
    """A world that names only connections, with a log of 50 rows."""
    staging, log = new_place(), new_place()
    store = Store.at(log)
    with (world.root / "monday.parquet").open("w+b") as file:
        pq.write_table(table(rows(50)), file)
        file.seek(0)
        store.put("monday.parquet", file.read())
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    extra = {"endpoint_url": s3.url, "region_name": "us-east-1"}
    account = json.dumps({"conn_type": "aws", "login": "somebody", "password": SECRET, "extra": extra})
    ledger = new_ledger()
    user, at, place = ledger.removeprefix("postgresql://").partition("@")
    connections = {
        "ARTHUR": json.dumps({"conn_type": "tidepost_arthur", "host": world.platform.url, "password": KEY}),
        "LOGS": account,
        "STAGING": account,
        "LEDGER": f"postgres://{user}:{quote(PASSWORD, safe='')}{at}{place}",
    }
    for name, text in connections.items():
        world.variables[f"AIRFLOW_CONN_{name}"] = text
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", text)
    lines = ["version: 1", "ledger: ${airflow:ledger}", f"staging: {staging}", "s3: ${airflow:staging}"]
    (world.root / "tidepost.yaml").write_text("\n".join(lines))
    world.define(
        source={"files": f"{log}/*.parquet", "s3": "${airflow:logs}"},
        destination={"url": "${airflow:arthur}", "api_key": "${airflow:arthur.password}"},
    )
    return world


def test_a_job_that_names_only_connections_uploads(
    connected: World, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["validate", "--connect", "--project", str(connected.root)]) == 0
    assert not said(connected.run())
    assert connected.everything_arrived_once(50)
    assert main(["status", "--project", str(connected.root)]) == 0
    seen = "".join(capfd.readouterr()) + caplog.text
    assert "flights" in seen
    assert not [one for one in (KEY, SECRET, PASSWORD, quote(PASSWORD, safe="")) if one in seen]
    kept = [path for path in connected.root.rglob("*") if path.is_file()]
    assert not [path for path in kept if SECRET.encode() in path.read_bytes() or b"hunter2" in path.read_bytes()]


def test_a_connection_that_is_not_there_is_named_by_the_key_that_needs_it(
    connected: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_LOGS")
    assert main(["validate", "--project", str(connected.root)]) == 2
    error = capfd.readouterr().err
    assert "jobs/flights.yaml" in error
    assert "source.s3: Airflow's connection logs is not there" in error
    assert "export AIRFLOW_CONN_LOGS=" in error
    assert "Admin, Connections" in error
