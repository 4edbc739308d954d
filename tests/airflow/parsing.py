"""Reads the DAG file in a process of its own and prints what came of it, as JSON: `python parsing.py FILE BUNDLE`.

modules: of the heavy ones, those that reading it imported
dags:    serialized, by id; of lists the order counts, of keys Airflow itself does not keep it
errors:  import errors, by file
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HEAVY = ("boto3", "duckdb", "fsspec", "pyarrow", "requests", "tidepost.run", "tidepost.wire", "tidepost.ledger.sql")


def main(file: str, bundle: str) -> None:
    from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415 - its settings are in the environment
    from airflow.serialization.serialized_objects import DagSerialization  # noqa: PLC0415

    before = set(sys.modules)
    bag = DagBag(file, bundle_path=Path(bundle))
    modules = [name for name in HEAVY if name in sys.modules and name not in before]
    dags = {dag_id: DagSerialization.to_dict(dag) for dag_id, dag in sorted(bag.dags.items())}
    print(json.dumps({"modules": modules, "dags": dags, "errors": bag.import_errors}, sort_keys=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
