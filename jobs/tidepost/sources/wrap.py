"""Which of a user's queries can be limited to a range from outside, decided on DuckDB's own parse tree.

`SELECT … FROM (query) WHERE cursor >= … AND cursor < …` means the same as the query over the rows of that range
only if each of its rows stems from source rows of that range, whatever else is in the source. LIMIT, samples and
functions of the clock or of chance never do. Aggregates, DISTINCT and window functions do only if the query itself
says where the range goes, with `{start}` and `{end}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tidepost.errors import Misconfigured

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

START, END = "{start}", "{end}"
PLACEHOLDER = re.compile(r"\{(start|end)\}")
CLOCKS = frozenset(
    "now current_timestamp transaction_timestamp get_current_timestamp get_current_time current_time localtime "
    "localtimestamp current_localtime current_localtimestamp current_date today".split()
)


def has_placeholders(query: str) -> bool:
    """Whether the query says itself where the range goes. Both ends are needed: Misconfigured for one alone."""
    found = {match.group(1) for match in PLACEHOLDER.finditer(query)}
    if len(found) == 1:
        raise Misconfigured(
            f"source.query: it holds {{{found.pop()}}} alone",
            hint="Write both, half-open: WHERE logged_at >= {start} AND logged_at < {end}",
        )
    return bool(found)


def check_query(connection: DuckDBPyConnection, query: str) -> None:
    """Raises Misconfigured, naming the clause and the way out, for a query that a range would not limit rightly."""
    explicit = has_placeholders(query)
    plain = PLACEHOLDER.sub("NULL", query)
    tree = json.loads(_one(connection, "SELECT json_serialize_sql($query, skip_null := true)", query=plain))
    if tree.get("error"):
        raise Misconfigured(
            f"source.query: {tree.get('error_message', 'it cannot be parsed')}",
            hint="Give one SELECT statement in DuckDB's SQL, without a semicolon.",
        )
    if len(tree["statements"]) != 1 or query.rstrip().endswith(";"):
        raise Misconfigured(
            "source.query: it holds more than one statement, or ends in a semicolon",
            hint="Give one SELECT statement, without a semicolon.",
        )
    kinds = _functions(connection, {name for node in _nodes(tree) if (name := _function(node))})
    for node in _nodes(tree):
        never = _never(node, kinds)
        if never:
            raise Misconfigured(
                f"source.query: {never} gives other rows each time it is asked, so no range of it is ever complete",
                hint="Leave it out; limits.cut_rows bounds the work of one step.",
            )
        grouped = _grouped(node, kinds)
        if grouped and not explicit:
            raise Misconfigured(
                f"source.query: {grouped} looks at rows of more than one range",
                hint="Say where the range goes: … WHERE logged_at >= {start} AND logged_at < {end} …",
            )


def _never(node: Mapping[str, object], kinds: Mapping[str, set[str]]) -> str:
    if node.get("type") in ("LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"):
        return "LIMIT or OFFSET"
    if node.get("sample"):
        return "a sample"
    name = _function(node)
    if name in CLOCKS or "volatile" in kinds.get(name, set()):
        return f"{name}()"
    return ""


def _grouped(node: Mapping[str, object], kinds: Mapping[str, set[str]]) -> str:
    if node.get("type") == "DISTINCT_MODIFIER":
        return "DISTINCT"
    if node.get("class") == "WINDOW":
        return "a window function"
    if node.get("group_expressions") or node.get("group_sets"):
        return "GROUP BY"
    if node.get("type") == "SET_OPERATION_NODE" and not node.get("setop_all", True):
        return "UNION, EXCEPT or INTERSECT without ALL"
    name = _function(node)
    if "aggregate" in kinds.get(name, set()):
        return f"{name}()"
    return ""


def _function(node: Mapping[str, object]) -> str:
    if node.get("class") == "COLUMN_REF":
        names = node.get("column_names")
        last = str(names[-1]).lower() if isinstance(names, list) and len(names) == 1 else ""
        return last if last in CLOCKS else ""
    return str(node.get("function_name", "")).lower() if node.get("class") == "FUNCTION" else ""


def _functions(connection: DuckDBPyConnection, names: set[str]) -> dict[str, set[str]]:
    """What DuckDB says of functions: "aggregate", "scalar", …, and "volatile" where it is."""
    found: dict[str, set[str]] = {}
    sql = "SELECT function_name, function_type, stability FROM duckdb_functions() WHERE function_name IN $names"
    for name, kind, stability in connection.execute(sql, {"names": sorted(names)}).fetchall():
        kinds = found.setdefault(str(name), set())
        kinds.add(str(kind))
        if stability == "VOLATILE":
            kinds.add("volatile")
    return found


def _nodes(tree: object) -> Iterator[Mapping[str, object]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _one(connection: DuckDBPyConnection, sql: str, **values: object) -> str:
    found = connection.execute(sql, values).fetchone()
    if found is None:
        raise Misconfigured("source.query: it cannot be parsed")
    return str(found[0])
