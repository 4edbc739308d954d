"""Arthur's query language, the part that this sandbox answers, as SQL.

Arthur API v3, as its Python SDK 3.33.3 speaks it and its query guide documents it: `select` (properties and
functions), `from`, `filter` (all must hold), `group_by`, `order_by`. Subqueries are refused. Values are bound, never
written into the SQL; names come from the model or are quoted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tidepost.sandbox.catalog import BadRequest, Column, Model
from tidepost.sandbox.database import quoted
from tidepost.sandbox.rows import BadRow, checked

_KEYS: Final = ("select", "from", "filter", "group_by", "order_by", "subquery")
_COMPARED: Final = {"eq": "=", "ne": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_NULLS: Final = {"notnull": "IS NOT NULL", "isnull": "IS NULL"}
_INTERVALS: Final = ("second", "minute", "hour", "day", "week", "month", "year")
_FUNCTIONS: Final = ("count", "countIf", "min", "max", "roundTimestamp")
_MILLISECONDS: Final = "%Y-%m-%dT%H:%M:%S.%gZ"


@dataclass(frozen=True, slots=True)
class _Property:
    """What can be asked for by a name: its SQL, and its type as attributes have them."""

    sql: str
    value_type: str
    of_label: bool = False


@dataclass(slots=True)
class _Selected:
    """One column of the answer. `params` bind the values in `sql`, in order."""

    alias: str
    sql: str
    value_type: str
    aggregate: bool
    params: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL whose rows are the answer's rows as JSON text, and the values it binds."""

    sql: str
    params: list[Any]


def compile_query(model: Model, body: object) -> Statement:
    """The SQL of a query; BadRequest names what is unknown or missing."""
    return _Compiler(model, body).statement()


class _Compiler:
    def __init__(self, model: Model, body: object) -> None:
        if not isinstance(body, dict):
            raise BadRequest("a query is a JSON object")
        if unknown := next((key for key in body if key not in _KEYS), None):
            raise BadRequest(f"unknown key {unknown!r}: a query has {', '.join(_KEYS)}")
        if body.get("subquery") is not None:
            raise BadRequest("this sandbox answers no subqueries")
        self._body: Mapping[str, Any] = body
        self._source = body.get("from") or "inferences"
        if self._source not in ("inferences", "ground_truth"):
            raise BadRequest(f"from {self._source!r} is neither 'inferences' nor 'ground_truth'")
        self._number = model.number
        self._properties = _properties(model, self._source)
        self._joins = False

    def statement(self) -> Statement:
        selected = [self._select(entry) for entry in self._entries("select")]
        if not selected:
            raise BadRequest("select must hold at least one property or function")
        aliases = {column.alias: column for column in selected}
        if len(aliases) != len(selected):
            raise BadRequest("two columns of select have one name: give one an alias")
        where, params = self._where()
        groups = self._groups(aliases)
        if groups or any(column.aggregate for column in selected):
            grouped = {group.sql for group in groups}
            for column in selected:
                if not column.aggregate and column.sql not in grouped:
                    raise BadRequest(f"{column.alias!r} is selected beside an aggregate, so it must be in group_by")
        order = self._order(aliases)
        inner = ", ".join(f"{column.sql} AS c{at}" for at, column in enumerate(selected))
        shown = ", ".join(f"?, {_shown(f'c{at}', column.value_type)}" for at, column in enumerate(selected))
        grouping = f" GROUP BY {', '.join(group.sql for group in groups)}" if groups else ""
        ordering = f" ORDER BY {', '.join(order)}" if order else ""
        sql = (
            f"SELECT CAST(json_object({shown}) AS VARCHAR) "
            f"FROM (SELECT {inner} FROM {self._table()}{where}{grouping}{ordering})"
        )
        bound = [column.alias for column in selected]
        bound += [value for column in selected for value in column.params]
        return Statement(sql, bound + params)

    def _entries(self, key: str) -> list[dict[str, Any]]:
        entries = self._body.get(key) or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise BadRequest(f"{key} must be a list of objects")
        return entries

    def _table(self) -> str:
        if self._source == "ground_truth":
            return f"labels_{self._number} AS i"
        if self._joins:
            labels = f"labels_{self._number} AS l"
            return f'inferences_{self._number} AS i LEFT JOIN {labels} ON i."#id" = l."#id"'
        return f"inferences_{self._number} AS i"

    def _property(self, name: object) -> _Property:
        found = self._properties.get(name) if isinstance(name, str) else None
        if found is None:
            raise BadRequest(f"{name!r} is no property of {self._source}")
        self._joins = self._joins or found.of_label
        return found

    def _select(self, entry: dict[str, Any]) -> _Selected:
        if "property" in entry:
            found = self._property(entry["property"])
            return _Selected(
                _text(entry.get("alias", entry["property"])), found.sql, found.value_type, aggregate=False
            )
        name = entry.get("function")
        if name not in _FUNCTIONS:
            raise BadRequest(f"function {name!r} is none of {', '.join(_FUNCTIONS)}")
        parameters = entry.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise BadRequest(f"parameters of {name} must be an object")
        return self._call(name, _text(entry.get("alias", name)), parameters)

    def _call(self, name: str, alias: str, parameters: dict[str, Any]) -> _Selected:
        if name == "count":
            return _Selected(alias, "count(*)", "INTEGER", aggregate=True)
        if name == "countIf":
            condition, params = self._condition(parameters)
            return _Selected(alias, f"count(*) FILTER ({condition})", "INTEGER", aggregate=True, params=params)
        found = self._property(parameters.get("property"))
        if name in ("min", "max"):
            return _Selected(alias, f"{name}({found.sql})", found.value_type, aggregate=True)
        interval = parameters.get("time_interval")
        if interval not in _INTERVALS:
            raise BadRequest(f"time_interval {interval!r} of roundTimestamp is none of {', '.join(_INTERVALS)}")
        if found.value_type != "TIMESTAMP":
            raise BadRequest(f"roundTimestamp needs a timestamp, not {parameters['property']!r}")
        return _Selected(alias, f"date_trunc('{interval}', {_utc(found.sql)})", "TIMESTAMP", aggregate=False)

    def _where(self) -> tuple[str, list[Any]]:
        conditions = [self._condition(entry) for entry in self._entries("filter")]
        params = [value for _, values in conditions for value in values]
        where = " AND ".join(condition for condition, _ in conditions)
        return (f" WHERE {where}" if where else ""), params

    def _condition(self, entry: dict[str, Any]) -> tuple[str, list[Any]]:
        found = self._property(entry.get("property"))
        comparator = _text(entry.get("comparator")).lower()
        if comparator in _NULLS:
            return f"{found.sql} {_NULLS[comparator]}", []
        values = entry.get("value")
        column = Column(_text(entry["property"]), found.value_type, required=True, nullable=False)
        try:
            if comparator == "in":
                if not isinstance(values, list) or not values:
                    raise BadRequest("the comparator 'in' needs a list of values that is not empty")
                return f"{found.sql} IN (SELECT unnest(?))", [[checked(column, value) for value in values]]
            if comparator in _COMPARED:
                return f"{found.sql} {_COMPARED[comparator]} ?", [checked(column, values)]
        except BadRow as error:
            raise BadRequest(f"filter: {error}") from error
        known = ", ".join([*_COMPARED, "in", "NotNull", "IsNull"])
        raise BadRequest(f"comparator {entry.get('comparator')!r} is none of {known}")

    def _groups(self, aliases: dict[str, _Selected]) -> list[_Selected]:
        groups = []
        for entry in self._entries("group_by"):
            group = self._named(entry, aliases)
            if group.aggregate:
                raise BadRequest(f"group_by cannot hold the aggregate {group.alias!r}")
            groups.append(group)
        return groups

    def _order(self, aliases: dict[str, _Selected]) -> list[str]:
        order = []
        for entry in self._entries("order_by"):
            direction = entry.get("direction", "asc")
            if direction not in ("asc", "desc"):
                raise BadRequest(f"direction {direction!r} is neither 'asc' nor 'desc'")
            column = self._named(entry, aliases)
            at = list(aliases).index(column.alias) if column.alias in aliases else None
            order.append(f"{column.sql if at is None else f'c{at}'} {direction}")
        return order

    def _named(self, entry: dict[str, Any], aliases: dict[str, _Selected]) -> _Selected:
        """The selected column, or the property, that an entry of group_by or order_by names."""
        name = entry.get("alias", entry.get("property", entry.get("function")))
        if name in aliases:
            return aliases[name]
        found = self._property(name)
        return _Selected(f"property {name}", found.sql, found.value_type, aggregate=False)


def _properties(model: Model, source: str) -> dict[str, _Property]:
    # An inference's id follows from where it is stored, so it need not be.
    inference_id = f"""CAST(CAST(md5('{model.id}' || i."#position") AS UUID) AS VARCHAR)"""
    properties = {
        "inference_timestamp": _Property('i."#at"', "TIMESTAMP"),
        "received_timestamp": _Property('i."#received"', "TIMESTAMP"),
        "partner_inference_id": _Property('i."#id"', "STRING"),
        "batch_id": _Property('i."#batch"', "STRING"),
        "inference_id": _Property(inference_id, "STRING"),
    }
    labels, of_label = ("i", False) if source == "ground_truth" else ("l", True)
    properties["ground_truth_timestamp"] = _Property(f'{labels}."#label_at"', "TIMESTAMP", of_label)
    for attribute in model.labels:
        properties[attribute.name] = _Property(f"{labels}.{quoted(attribute.name)}", attribute.value_type, of_label)
    if source == "inferences":
        for attribute in model.of_inferences:
            properties[attribute.name] = _Property(f"i.{quoted(attribute.name)}", attribute.value_type)
    return properties


def _utc(sql: str) -> str:
    """The moment as a plain timestamp in UTC, with which DuckDB reckons six times as fast."""
    return f"make_timestamp(epoch_us({sql}))"


def _shown(sql: str, value_type: str) -> str:
    if value_type == "TIMESTAMP":
        return f"strftime({_utc(sql)}, '{_MILLISECONDS}')"
    if value_type == "FLOAT":  # JSON has no way to write the others
        return f"CASE WHEN isfinite({sql}) THEN {sql} END"
    return sql


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise BadRequest(f"{value!r} must be a string that is not empty")
    return value
