"""The DAG file that is being read, and how broken job files become import errors of their own.

Airflow keeps one import error for each file, and sets aside every DAG of a file that has one: a broken job file may
neither raise nor have its error under the name of the DAG file, or the other jobs would not go on. So the error is
handed to the importer that reads the DAG file, under the name of the job's own file.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tidepost.errors import Misconfigured

log: Final = logging.getLogger(__name__)


def dag_file() -> Path | None:
    """The file that Airflow's importer reads just now; None outside of it."""
    return next((Path(local["filepath"]) for local in _importing()), None)


def report(broken: Mapping[Path, Misconfigured]) -> None:
    """Make each broken job file an import error; outside of an importer they are only logged."""
    for path, error in broken.items():
        log.error("%s", error)
        local = next(_importing(), None)
        if local is not None:
            local["result"].errors.append(_import_error(path, error, local.get("bundle_path")))


def _importing() -> Iterator[Mapping[str, Any]]:
    """The variables of the `import_file` of Airflow's importer that this was called from."""
    importers = sys.modules.get("airflow.dag_processing.importers")
    frame = sys._getframe()
    while importers is not None and frame is not None:
        local = frame.f_locals
        if frame.f_code.co_name == "import_file" and isinstance(local.get("result"), importers.DagImportResult):
            yield local
        frame = frame.f_back  # type: ignore[assignment]


def _import_error(path: Path, error: Misconfigured, bundle: Path | None) -> Any:
    from airflow.dag_processing.importers import DagImportError  # noqa: PLC0415 - only there

    name = str(path) if bundle is None else os.path.relpath(path, bundle)
    return DagImportError(file_path=name, message=error.message, stacktrace=str(error))
