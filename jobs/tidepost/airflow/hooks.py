"""The hook of the connection type `tidepost_arthur`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import BaseHook

from tidepost.airflow.connections import mask, plain
from tidepost.definition.connection import ARTHUR, Connection
from tidepost.errors import Misconfigured, TidepostError

if TYPE_CHECKING:
    from tidepost.destinations.arthur.destination import ArthurDestination, ArthurOptions

DEFAULT: Final = "arthur_default"
SECONDS: Final = 15.0
"""How long a test of a connection may take."""


class ArthurHook(BaseHook):
    """Arthur, as one of Airflow's connections names it.

    model: a model's partner id, or its id; only `get_conn` needs one
    """

    conn_name_attr = "arthur_conn_id"
    default_conn_name = DEFAULT
    conn_type = ARTHUR
    hook_name = "Arthur (tidepost)"

    def __init__(self, arthur_conn_id: str = DEFAULT, model: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.arthur_conn_id = arthur_conn_id
        self.model = model

    def get_conn(self) -> ArthurDestination:
        """A client of the model, which is to be closed after use. Raises Misconfigured."""
        from tidepost.destinations.arthur.destination import ArthurDestination  # noqa: PLC0415 - not while DAGs are parsed

        if self.model is None:
            raise Misconfigured("ArthurHook needs a model", hint='Write ArthurHook(…, model="PARTNER_MODEL_ID").')
        return ArthurDestination(self._options(self.model))

    def test_connection(self) -> tuple[bool, str]:
        """Whether the platform takes the key, and a sentence about it, which never holds the key."""
        from tidepost.destinations.arthur.account import ArthurAccount  # noqa: PLC0415

        try:
            options = self._options("any", timeout=SECONDS, retries=0)
            account = ArthurAccount(options, sleep=lambda _: None, random=lambda: 0.0)
            try:
                return (
                    True,
                    f"{options.url} takes the key, which belongs to the organization {account.organization()}",
                )
            finally:
                account.close()
        except TidepostError as error:
            return False, str(error)

    def _options(self, model: str, **options: Any) -> ArthurOptions:
        from tidepost.destinations.arthur.destination import ArthurOptions  # noqa: PLC0415

        found = self._connection()
        ca_file = found.value("ca_file")
        return ArthurOptions(
            url=found.url,
            api_key=found.password,
            model=model,
            organization=found.value("organization"),
            ca_file=Path(ca_file) if ca_file else None,
            **options,
        )

    def _connection(self) -> Connection:
        where = f"Airflow's connection {self.arthur_conn_id}"
        try:
            found = plain(self.get_connection(self.arthur_conn_id))
        except ValueError as error:
            raise Misconfigured(f"{where} {error}") from None
        if found.type != ARTHUR:
            raise Misconfigured(f"{where} is of the type {found.type}, not {ARTHUR}")
        mask(found)
        for field, name in (("host", "address"), ("password", "API key")):
            if not getattr(found, field):
                raise Misconfigured(f"{where} has no {name}")
        return found
