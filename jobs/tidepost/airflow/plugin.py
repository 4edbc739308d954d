"""The plugin that adds the Uploads page to Airflow. A file in the plugins folder names it:

    from tidepost.airflow.plugin import UploadsPlugin

Every process of Airflow's loads plugins, workers too: only the one that serves the page builds it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

PREFIX = "tidepost"
"""Where the page is, below Airflow's own address."""


class UploadsPlugin(AirflowPlugin):
    """A navigation entry, and what it leads to."""

    name = "tidepost"
    # Relative, so that it is found too where Airflow is served below a path of its own.
    external_views: ClassVar[list[dict[str, Any]]] = [
        {"name": "Uploads", "href": f"{PREFIX}/", "destination": "nav", "url_route": "uploads", "nav_top_level": True}
    ]

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:
        from tidepost.airflow.page.app import uploads_app  # noqa: PLC0415 - only where it is served

        return [{"app": uploads_app(), "url_prefix": f"/{PREFIX}", "name": "tidepost uploads"}]
