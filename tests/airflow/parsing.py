"""Reads the DAG file in a process of its own and prints what came of it, as JSON: `python parsing.py FILE BUNDLE`.

modules: of the heavy ones, those that reading it imported
dags:    serialized, by id; of lists the order counts, of keys Airflow itself does not keep it
errors:  import errors, by file
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEAVY = ("boto3", "duckdb", "fsspec", "pyarrow", "requests", "tidepost.run", "tidepost.wire", "tidepost.ledger.sql")


def read(file: str, bundle: str) -> dict[str, Any]:
    from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415 - its settings are in the environment
    from airflow.serialization.serialized_objects import DagSerialization  # noqa: PLC0415

    before = set(sys.modules)
    bag = DagBag(file, bundle_path=Path(bundle))
    modules = [name for name in HEAVY if name in sys.modules and name not in before]
    dags = {dag_id: DagSerialization.to_dict(dag) for dag_id, dag in bag.dags.items()}
    return {"modules": modules, "dags": dags, "errors": bag.import_errors}


if __name__ == "__main__":
    print(json.dumps(read(*sys.argv[1:])))
