"""From job definitions to DAGs."""

from __future__ import annotations

from typing import Any


def upload_dags() -> dict[str, Any]:
    """The DAGs of a project, by name."""
    return {}
