"""Path templates: file names and globs that say where the rows of a time lie.

    log/flights/*.parquet                                    says nothing of time
    log/{start:%Y/%m/%d}/*.parquet                           a folder for each day
    s3://bucket/log/day={start:%Y-%m-%d}/hour={start:%H}/*   a folder for each hour, hive style

`%Y %m %d %j %H` are written as `strftime` does; `%-m %-d %-H` without the leading zero. Moments here are naive: they
are on the clock that the paths are named by.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import translate
from typing import Final

_PLACEHOLDER: Final = re.compile(r"\{(start):([^{}]*)\}")
_ANY: Final = re.compile(r"\{[^{}]*\}")
_DIRECTIVE: Final = re.compile(r"%(-?.)", re.DOTALL)
_MAGIC: Final = re.compile(r"[*?[]")
_ESCAPED: Final = re.compile(r"\[([*?[])\]")
_FORMS: Final = {
    "Y": r"\d{4}",
    "m": r"\d{2}",
    "-m": r"\d{1,2}",
    "d": r"\d{2}",
    "-d": r"\d{1,2}",
    "j": r"\d{3}",
    "H": r"\d{2}",
    "-H": r"\d{1,2}",
}
_WIDTHS: Final = {"Y": 4, "j": 3}
HOURS: Final = {"year": 8784, "month": 744, "day": 24, "hour": 1}
"""The units of paths, with their hours at most."""


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open stretch of moments, `[start, end)`."""

    start: datetime
    end: datetime

    def meets(self, other: Span) -> bool:
        return self.start < other.end and other.start < self.end

    def within(self, other: Span) -> Span:
        """The part inside `other`, perhaps empty."""
        return Span(max(self.start, other.start), min(self.end, other.end))


@dataclass(frozen=True, slots=True)
class Field:
    """One directive of a placeholder: its letter, with `-` where it is not padded."""

    form: str

    @property
    def letter(self) -> str:
        return self.form[-1]

    def text(self, moment: datetime) -> str:
        value = {
            "Y": moment.year,
            "m": moment.month,
            "d": moment.day,
            "j": moment.timetuple().tm_yday,
            "H": moment.hour,
        }[self.letter]
        return str(value) if self.form[0] == "-" else f"{value:0{_WIDTHS.get(self.letter, 2)}d}"


@dataclass(frozen=True, slots=True)
class Component:
    """One level of a path: a folder, or the file at its end."""

    pieces: tuple[str | Field, ...]

    @property
    def letters(self) -> frozenset[str]:
        return frozenset(piece.letter for piece in self.pieces if isinstance(piece, Field))

    @property
    def text(self) -> str:
        """The whole name, or glob, of a level without placeholders."""
        return "".join(piece for piece in self.pieces if isinstance(piece, str))

    @property
    def glob(self) -> bool:
        """Whether its constant text holds what is no plain text."""
        return any(is_glob(piece) for piece in self.pieces if isinstance(piece, str))

    def at(self, moment: datetime) -> str:
        """Its name, or glob, for a moment."""
        return "".join(piece if isinstance(piece, str) else piece.text(moment) for piece in self.pieces)

    def read(self, name: str) -> dict[str, int] | None:
        """What a name says of time, by letter; None where the name is not of this form."""
        found = re.fullmatch("".join(self._pattern()), name, re.DOTALL)
        if found is None:
            return None
        said: dict[str, int] = {}
        fields = (piece for piece in self.pieces if isinstance(piece, Field))
        for piece, text in zip(fields, found.groups(), strict=True):
            if said.setdefault(piece.letter, int(text)) != int(text):
                return None
        return said

    def _pattern(self) -> Iterator[str]:
        for piece in self.pieces:
            yield translate(piece)[:-2] if isinstance(piece, str) else f"({_FORMS[piece.form]})"


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """A path from its root on, checked. Raises ValueError, a sentence that follows the path's name.

    root:       `/`, `s3://bucket/`, or empty for a path that begins nowhere yet
    components: the levels below it
    unit:       the smallest that its placeholders name, `year` to `hour`; None without placeholders
    """

    text: str
    root: str = field(init=False)
    components: tuple[Component, ...] = field(init=False)
    unit: str | None = field(init=False)

    def __post_init__(self) -> None:
        scheme, colon, rest = self.text.partition("://")
        if colon and scheme != "s3":
            raise ValueError(f"begins with {scheme}://, which cannot be read; name local files, or s3://BUCKET/…")
        root = f"s3://{rest.partition('/')[0]}/" if colon else "/" if self.text.startswith("/") else ""
        if colon and (not rest.partition("/")[0] or _MAGIC.search(root) or "{" in root):
            raise ValueError("names no bucket; write s3://BUCKET/…")
        components = tuple(_components(self.text.removeprefix(root)))
        levels = [number for number, one in enumerate(components) if one.letters]
        if levels and any("**" in one.pieces for one in components[: levels[-1]]):
            raise ValueError("has ** before a placeholder, where it could be anything")
        object.__setattr__(self, "root", root)
        object.__setattr__(self, "components", components)
        object.__setattr__(self, "unit", _unit(frozenset().union(*(one.letters for one in components))))


def check_template(text: str) -> PathTemplate:
    """A path as a definition writes it. ValueError: as `PathTemplate`, or it has braces that mean nothing."""
    for brace in _ANY.findall(text):
        if not _PLACEHOLDER.fullmatch(brace):
            raise ValueError(f"holds {brace}, which is no placeholder; write one like {{start:%Y/%m/%d}}")
    return PathTemplate(text)


def is_glob(text: str) -> bool:
    """Whether a name stands for other names; what is only escaped, such as `[*]`, does not."""
    return _MAGIC.search(_ESCAPED.sub("", text)) is not None


def plain(text: str) -> str:
    """A name that is no glob, without its escapes."""
    return _ESCAPED.sub(r"\1", text)


def span_of(said: Mapping[str, int]) -> Span | None:
    """The stretch that some directives say, from the year on as far as they go; None without a year.
    ValueError: there is no such time."""
    if "Y" not in said:
        return None
    start, unit = datetime(said["Y"], 1, 1), "year"  # noqa: DTZ001 - moments here are naive
    if "j" in said:
        start, unit = start + timedelta(days=said["j"] - 1), "day"
        if start.year != said["Y"]:
            raise ValueError("the year has no such day")
    elif "m" in said:
        start, unit = start.replace(month=said["m"]), "month"
        if "d" in said:
            start, unit = start.replace(day=said["d"]), "day"
    if unit == "day" and "H" in said:
        start, unit = start.replace(hour=said["H"]), "hour"
    return Span(start, following(start, unit))


def floor(moment: datetime, unit: str) -> datetime:
    """The beginning of the unit that holds a moment."""
    moment = moment.replace(minute=0, second=0, microsecond=0)
    if unit != "hour":
        moment = moment.replace(hour=0)
    if unit in ("month", "year"):
        moment = moment.replace(day=1)
    return moment.replace(month=1) if unit == "year" else moment


def following(start: datetime, unit: str) -> datetime:
    """The beginning of the next unit; the last moment that there is after the last one."""
    try:
        if unit == "year":
            return start.replace(year=start.year + 1)
        if unit == "month":
            return (start + timedelta(days=31)).replace(day=1)
        return start + timedelta(hours=HOURS[unit])
    except (OverflowError, ValueError):
        return datetime.max  # noqa: DTZ901 - moments here are naive


def units(span: Span, unit: str) -> Iterator[datetime]:
    """The beginnings of the units that a span meets, oldest first."""
    at = floor(span.start, unit)
    while at < span.end:
        yield at
        at = following(at, unit)


def known_unit(letters: frozenset[str]) -> str | None:
    """The smallest unit that some directives say, if none of them is left over; None otherwise."""
    try:
        return _unit(letters)
    except ValueError:
        return None


def _components(text: str) -> Iterator[Component]:
    """Split at slashes, those inside placeholders too."""
    pieces: list[str | Field] = []
    for piece in _pieces(text):
        if isinstance(piece, Field):
            pieces.append(piece)
            continue
        first, *others = piece.split("/")
        pieces.append(first)
        for other in others:
            yield Component(tuple(one for one in pieces if one))
            pieces = [other]
    yield Component(tuple(one for one in pieces if one))


def _pieces(text: str) -> Iterator[str | Field]:
    at = 0
    for found in _PLACEHOLDER.finditer(text):
        yield text[at : found.start()]
        at, form = found.end(), found[2]
        if "%" not in form:
            raise ValueError(f"holds {found[0]}, which names no unit; write one like {{start:%Y/%m/%d}}")
        inside = 0
        for one in _DIRECTIVE.finditer(form):
            yield form[inside : one.start()]
            if one[1] not in _FORMS:
                raise ValueError(f"holds {found[0]}, whose %{one[1]} is none of %{' %'.join(_FORMS)}")
            yield Field(one[1])
            inside = one.end()
        yield form[inside:]
    yield text[at:]


def _unit(letters: frozenset[str]) -> str | None:
    """ValueError: a unit is named without the larger ones, so that it comes again and again."""
    if not letters:
        return None
    day = bool(letters & {"d", "j"})
    lacking = [
        larger
        for larger, needed in (
            ("%Y", "Y" not in letters),
            ("%m", "d" in letters and "m" not in letters),
            ("%d or %j", "H" in letters and not day),
        )
        if needed
    ]
    if lacking:
        raise ValueError(f"names units of time without the larger ones; add {' and '.join(lacking)}")
    return "hour" if "H" in letters else "day" if day else "month" if "m" in letters else "year"
