"""What a batch must be, as the SDKs check it: one row at fault refuses all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from tidepost.sandbox.arize.message import Message
from tidepost.sandbox.catalog import BadRequest

LONGEST_ID: Final = 512
LONGEST_TAG: Final = 20_000
YEAR: Final = 365 * 86_400

_NUMBERS: Final = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64())
_PLAIN: Final = (*_NUMBERS, pa.bool_(), pa.string(), pa.null())
_INTEGERS: Final = _NUMBERS[:4]
_DATES: Final = (pa.date32(), pa.date64())


def check_columns(message: Message, schema: pa.Schema) -> None:
    """Raises BadRequest for a column that is missing, or of a type that is not taken for what it is."""
    for name in message.columns:
        if schema.get_field_index(name) < 0:
            raise BadRequest(f"the batch has no column {name!r}")
    for what, names, types in _allowed(message):
        for name in names:
            type_ = schema.field(name).type
            if type_ not in types and not (what == "timestamp" and pa.types.is_timestamp(type_)):
                raise BadRequest(f"{what}: the column {name!r} is {type_}, which is not taken")
    if "prediction_id" not in message.single:
        raise BadRequest("the batch has no prediction id")
    if message.environment == "validation" and not message.batch_id:
        raise BadRequest("a validation set needs a batch id")
    if message.model_type == "ranking" and {"prediction_group", "rank"} & message.single.keys() == {"rank"}:
        raise BadRequest("a ranking's rank needs its group")
    if not any(_needed(message)):
        raise BadRequest("the batch has neither predictions nor actual values nor SHAP values")


def _allowed(message: Message) -> Iterator[tuple[str, Iterable[str], tuple[pa.DataType, ...]]]:
    single = message.single
    label = (*_NUMBERS, pa.null()) if message.model_type == "numeric" else _PLAIN
    for what, types in (
        ("prediction_id", (pa.string(), *_INTEGERS)),
        ("timestamp", (pa.int64(), pa.float64(), *_DATES)),
        ("prediction_label", label),
        ("actual_label", label),
        ("prediction_score", (*_NUMBERS, pa.null())),
        ("actual_score", (*_NUMBERS, pa.null())),
        ("prediction_group", (pa.string(), *_INTEGERS)),
        ("rank", _INTEGERS),
    ):
        yield what, [single[what]] if what in single else [], types
    yield "feature", message.features, (*_PLAIN, pa.list_(pa.string()))
    yield "tag", message.tags, _PLAIN
    yield "SHAP value", message.shap.values(), (pa.int32(), pa.int64(), pa.float32(), pa.float64())


def check_rows(message: Message, batch: pa.RecordBatch, *, now: float) -> None:
    """Raises BadRequest for the first rule that a row breaks."""
    ids = batch.column(message.single["prediction_id"])
    _none(pc.is_null(ids), "the prediction id is missing")
    if pa.types.is_string(ids.type):
        length = pc.utf8_length(ids)
        wrong = pc.or_(pc.less(length, 1), pc.greater(length, LONGEST_ID))
        _none(wrong, f"the prediction id has not 1 to {LONGEST_ID} characters")
    if "timestamp" in message.single:
        times = seconds(batch.column(message.single["timestamp"]))
        _none(pc.is_null(times), "the timestamp is missing")
        early, late = pc.less(times, now - 5 * YEAR), pc.greater(times, now + YEAR)
        _none(pc.or_(early, late), "the timestamp is more than 5 years ago, or 1 year ahead")
    if message.model_type == "ranking" and "prediction_group" in message.single:
        rank = batch.column(message.single["rank"])
        _none(pc.is_null(batch.column(message.single["prediction_group"])), "the group is missing")
        _none(
            pc.or_kleene(pc.is_null(rank), pc.or_(pc.less(rank, 1), pc.greater(rank, 100))),
            "the rank is not 1 to 100",
        )
    for names in _needed(message):
        missing = pc.is_null(batch.column(names[0]), nan_is_null=True)
        for name in names[1:]:
            missing = pc.and_(missing, pc.is_null(batch.column(name), nan_is_null=True))
        _none(missing, f"there is no value in any of {', '.join(names)}")
    for name in message.tags:
        if pa.types.is_string(batch.column(name).type):
            long = pc.greater(pc.utf8_length(batch.column(name)), LONGEST_TAG)
            _none(long, f"the tag {name!r} has more than {LONGEST_TAG} characters")


def seconds(times: pa.Array) -> pa.Array:
    """Seconds since 1970 of a timestamp column in any of its types."""
    if times.type in _DATES:
        times = times.cast(pa.timestamp("s"))
    if pa.types.is_timestamp(times.type):
        unit = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[times.type.unit]
        return pc.divide(times.cast(pa.int64()).cast(pa.float64(), safe=False), unit)
    return times.cast(pa.float64(), safe=False)


def _needed(message: Message) -> Iterator[list[str]]:
    """Groups of columns, of each of which every row must have a value in one."""
    single = message.single
    ranked = ("prediction_group", "rank") if message.model_type == "ranking" else ()
    predicted = [single[one] for one in ("prediction_label", "prediction_score", *ranked) if one in single]
    actual = [single[one] for one in ("actual_label", "actual_score") if one in single]
    groups = [[*predicted, *actual, *message.shap.values()]]
    if message.environment != "production":
        groups = [predicted, actual]
        if not all(groups):
            raise BadRequest(f"a {message.environment} set needs predictions and actual values")
    yield from (group for group in groups if group)


def _none(mask: pa.Array, what: str) -> None:
    rows = pc.sum(mask).as_py()
    if rows:
        raise BadRequest(f"{what} in {rows} rows")
