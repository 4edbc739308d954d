"""Which rows of PostgreSQL can be limited to a range from outside, decided on the server's own plan for them.

The same rule as for DuckDB's queries (see `wrap.py`). The plan shows what a view is made of too. It does not show
what functions do inside, nor what a foreign server is asked for: a function that is declared stable is believed,
unless it tells the time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from tidepost.errors import Misconfigured
from tidepost.sql import quote_literal

if TYPE_CHECKING:
    from tidepost.sources.postgres.session import Session

# With these off, the planner leaves nothing out and adds no step of its own that looks like one of the query's: it
# would sort to find the greatest value (a Limit), and make the rows of an IN unique (an Aggregate).
SETTINGS: Final = (
    "enable_partition_pruning constraint_exclusion enable_sort enable_incremental_sort enable_hashagg "
    "enable_indexscan enable_indexonlyscan"
).split()
NEVER: Final = {"Limit": "LIMIT or OFFSET", "Sample Scan": "TABLESAMPLE", "LockRows": "FOR UPDATE or FOR SHARE"}
GROUPED: Final = {
    "Aggregate": "an aggregate, GROUP BY or DISTINCT",
    "Group": "GROUP BY",
    "Unique": "DISTINCT or UNION",
    "SetOp": "EXCEPT or INTERSECT",
    "WindowAgg": "a window function",
    "Recursive Union": "WITH RECURSIVE",
}
CLOCKS: Final = frozenset({"now", "transaction_timestamp", "statement_timestamp"})
NAMES: Final = frozenset({"Node Type", "Relation Name", "Schema", "Alias", "Index Name", "CTE Name", "Subplan Name"})
"""What of a plan's texts is no expression."""
QUOTED: Final = re.compile(r"E'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'")
CALLED: Final = re.compile(r'(?:([A-Za-z_][\w$]*)|"((?:[^"]|"")+)")\(')
KEYWORDS: Final = re.compile(r"\b(?:CURRENT_DATE|CURRENT_TIME|CURRENT_TIMESTAMP|LOCALTIME|LOCALTIMESTAMP)\b")


def check_rows(session: Session, rows: str, *, key: str, explicit: bool) -> None:
    """Raises Misconfigured, naming what it is and the way out, for rows that a range would not limit rightly.

    rows:     a SELECT, with the ends of a range in the place of its placeholders
    key:      of the definition, that it comes from
    explicit: whether it had placeholders
    """
    session.rows("SELECT " + ", ".join(f"set_config({quote_literal(name)}, 'off', true)" for name in SETTINGS))
    plan = json.loads(session.rows(f"EXPLAIN (VERBOSE, FORMAT JSON) {rows}")[0][0])
    nodes = list(_nodes(plan))
    never = next((NEVER[name] for node in nodes if (name := str(node["Node Type"])) in NEVER), None)
    never = never or _volatile(session, {text for node in nodes for text in _expressions(node)})
    if never:
        raise Misconfigured(
            f"{key}: {never} gives other rows each time it is asked, so no range of it is ever complete",
            hint="Leave it out; limits.cut_rows bounds the work of one step. "
            "A function of yours that gives the same each time should be declared STABLE.",
        )
    grouped = next((GROUPED[name] for node in nodes if (name := str(node["Node Type"])) in GROUPED), None)
    if grouped and not explicit:
        raise Misconfigured(
            f"{key}: {grouped} looks at rows of more than one range",
            hint="Say in source.query where the range goes: … WHERE logged_at >= {start} AND logged_at < {end} …",
        )


def _nodes(plan: object) -> Iterator[Mapping[str, object]]:
    if isinstance(plan, dict):
        if "Node Type" in plan:
            yield plan
        for value in plan.values():
            yield from _nodes(value)
    elif isinstance(plan, list):
        for value in plan:
            yield from _nodes(value)


def _expressions(node: Mapping[str, object]) -> Iterator[str]:
    """The expressions of a node, without the constants in them."""
    for name, value in node.items():
        if name not in NAMES:
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str):
                    yield QUOTED.sub("''", text)


def _volatile(session: Session, texts: set[str]) -> str | None:
    """A function of the clock or of chance that is called in some expressions."""
    bare = [re.sub(r'"(?:[^"]|"")+"(?!\()', "", text) for text in texts]
    for text in bare:
        if found := KEYWORDS.search(text):
            return found.group()
    called = {plain or quoted.replace('""', '"') for text in bare for plain, quoted in CALLED.findall(text)}
    if not called:
        return None
    if clocks := CLOCKS & called:
        return f"{min(clocks)}()"
    listed = ", ".join(quote_literal(name) for name in sorted(called))
    sql = f"SELECT min(proname)::text FROM pg_catalog.pg_proc WHERE proname IN ({listed}) AND provolatile = 'v'"
    name = session.rows(sql)[0][0]
    return f"{name}()" if name is not None else None
