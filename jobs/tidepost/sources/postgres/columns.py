"""PostgreSQL's types: what each is in DuckDB, and how a value gets there without changing.

| at the server                             | in DuckDB                                    |
|-------------------------------------------|----------------------------------------------|
| boolean, integers, floats, bytea, time    | the same                                     |
| text, varchar, char, name, enums, citext  | VARCHAR                                      |
| json, jsonb                               | VARCHAR, its text                            |
| numeric(p, s), p ≤ 38                     | DECIMAL(p, s)                                |
| numeric                                   | VARCHAR: the number as PostgreSQL writes it  |
| uuid, date, timestamp, timestamptz        | the same; infinite ones too                  |
| any other                                 | its text, under its name at the server, which is no type of DuckDB's |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tidepost.errors import Misconfigured
from tidepost.sources.positions import ZONED
from tidepost.sql import quote_identifier, quote_literal

if TYPE_CHECKING:
    import pyarrow as pa

    from tidepost.sources.postgres.session import Session

SAME: Final = {
    "bool": "BOOLEAN",
    "int2": "SMALLINT",
    "int4": "INTEGER",
    "int8": "BIGINT",
    "float4": "FLOAT",
    "float8": "DOUBLE",
    "text": "VARCHAR",
    "varchar": "VARCHAR",
    "bpchar": "VARCHAR",
    "name": "VARCHAR",
    "bytea": "BLOB",
    "time": "TIME",
}
TIMES: Final = {"date": "DATE", "timestamp": "TIMESTAMP", "timestamptz": ZONED}
TEXTS: Final = {"json": "VARCHAR", "jsonb": "VARCHAR", "uuid": "UUID"}
LAST_TIME: Final = "294247-01-01"
"""PostgreSQL has some thirty years that come after the last one that fits into Arrow's microseconds."""
WIDEST_DECIMAL: Final = 38


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the source.

    server: its type as PostgreSQL's catalogue names it
    type:   its type as `ports.Source.columns` tells it
    """

    name: str
    server: str
    type: str

    def select(self, name: str) -> tuple[str, ...]:
        """What the server selects for it, under names that begin with `name`."""
        column = quote_identifier(self.name)
        if self.server in SAME:
            return (f"{column} AS {name}",)
        if self.server in TIMES:
            # Infinity has no value in Arrow: the driver would make a wrong one of it.
            finite = f"{column} > '-infinity' AND {column} < {quote_literal(self._end)}"
            return (
                f"CASE WHEN {finite} THEN {column} END AS {name}",
                f"CASE WHEN NOT ({finite}) THEN {column}::text END AS {name}_far",
            )
        return (f"{column}::text AS {name}",)

    def value(self, name: str) -> str:
        """DuckDB's SQL of its value, from what `select` named."""
        if self.server in TIMES:
            return f"coalesce({name}, CAST({name}_far AS {self.type}))"
        exact = self.server == "uuid" or self.type.startswith("DECIMAL")
        return f"CAST({name} AS {self.type})" if exact else name

    @property
    def _end(self) -> str:
        return "infinity" if self.server == "date" else LAST_TIME


def columns_of(session: Session, rows: str) -> dict[str, Column]:
    """The columns of a SELECT at the server, by name. Misconfigured for two with one name."""
    found: dict[str, Column] = {}
    schema = session.described(rows)
    kinds = _categories(session, schema)
    lower: set[str] = set()
    for field in schema:
        if field.name.lower() in lower:
            raise Misconfigured(
                f"source: it has two columns named {field.name!r}, or only upper and lower case tell them apart",
                hint="Select them in source.query with AS and another name.",
            )
        lower.add(field.name.lower())
        found[field.name] = Column(field.name, _server_type(field), _type(field, kinds))
    return found


def _server_type(field: pa.Field) -> str:
    return _metadata(field, b"POSTGRESQL:type")


def _metadata(field: pa.Field, key: bytes) -> str:
    return str((field.metadata or {}).get(key, b"").decode())


def _type(field: pa.Field, categories: Mapping[str, str]) -> str:
    server = _server_type(field)
    if server == "numeric":
        return _decimal(int(_metadata(field, b"POSTGRESQL:typmod") or -1))
    plain = SAME.get(server) or TIMES.get(server) or TEXTS.get(server)
    if plain is not None:
        return plain
    if categories.get(server) in ("E", "S"):
        return "VARCHAR"
    return f"{server.removeprefix('_')}[]" if server.startswith("_") else server


def _decimal(modifier: int) -> str:
    """PostgreSQL packs precision and scale into one number, the scale as 11 bits with a sign; -1 is neither."""
    precision, scale = (modifier - 4) >> 16, (((modifier - 4) & 0x7FF) ^ 0x400) - 0x400
    if modifier < 0 or precision > WIDEST_DECIMAL or not 0 <= scale <= precision:
        return "VARCHAR"
    return f"DECIMAL({precision},{scale})"


def _categories(session: Session, schema: pa.Schema) -> dict[str, str]:
    """What kinds of types those are that have no name of their own here: E for enums, S for text."""
    named = SAME.keys() | TIMES.keys() | TEXTS.keys() | {"numeric"}
    unknown = sorted({_server_type(field) for field in schema} - named)
    if not unknown:
        return {}
    listed = ", ".join(quote_literal(name) for name in unknown)
    sql = f"SELECT typname::text, min(typcategory)::text FROM pg_catalog.pg_type WHERE typname IN ({listed})"
    return {str(name): str(kind) for name, kind in session.rows(f"{sql} GROUP BY 1 HAVING count(*) = 1")}
