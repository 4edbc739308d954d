"""SQL over visible parts, the same wherever they lie."""

from __future__ import annotations

from collections.abc import Sequence

from tidepost.errors import Retryable
from tidepost.model import Part
from tidepost.ports import Relation
from tidepost.sql import quote_literal


def relation_over(folder: str, parts: Sequence[Part], missing: Sequence[str]) -> Relation:
    """The relation that `Staging.relation` gives.

    folder:  the stream's, a path or an address that DuckDB can read, without a slash at its end
    missing: paths of parts that are not there; Retryable where there are any
    """
    if missing:
        raise Retryable(
            f"staging: {missing[0]} should be there and is not ({len(missing)} of {len(parts)} files)",
            safe="Nothing was sent: a missing file is never taken for a file without ids.",
            hint=f"Bring it back below {folder}.",
        )
    files = ", ".join(quote_literal(f"{folder}/{part.path}") for part in parts)
    reader = f"read_parquet([{files}], union_by_name = true, hive_partitioning = false, filename = '_file'"
    return Relation(
        f"SELECT * EXCLUDE (_file, file_row_number), substr(_file, {len(folder) + 2}) AS _part, "
        f"file_row_number AS _row FROM {reader}, file_row_number = true)",
        {},
    )
