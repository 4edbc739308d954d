"""Which files there are: listed only where a path template says that rows of a time can lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import IO, TYPE_CHECKING, Final, NamedTuple, Protocol

from tidepost.paths import (
    HOURS,
    Component,
    Field,
    PathTemplate,
    Span,
    is_glob,
    known_unit,
    plain,
    span_of,
    units,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TRIED: Final = 32
"""As many names are tried without asking what a folder holds; of more, those that are there are looked for."""


class File(NamedTuple):
    """A file or an object as it was listed.

    path:    absolute, or `s3://bucket/key`
    version: another one if its content may be another one
    """

    path: str
    version: str


class Store(Protocol):
    """A file system, or what serves as one. Folders are paths that end in a slash.

    Listing raises Misconfigured where it may not look, Retryable where there is no answer; a folder that is not there
    is empty. `far`: reading a few bytes is mostly waiting.
    """

    far: bool

    def folders(self, folder: str) -> Sequence[str]:
        """The names of the folders directly in a folder."""

    def files(self, folder: str, pattern: Sequence[str]) -> Iterator[File]:
        """The files below a folder that match a glob given level by level, `**` being any number of levels."""

    def open(self, file: File) -> str | IO[bytes]:
        """A listed file's bytes, in any order; or its path, if it is on this machine."""

    def readable(self, connection: DuckDBPyConnection) -> None:
        """Let a connection read the files that were listed."""

    def modified(self, file: File) -> float:
        """When a listed file was written, in seconds since 1970."""


def listed(store: Store, template: PathTemplate, span: Span | None) -> Iterator[File]:
    """The files that can hold rows of a span (None: all). With placeholders, those of later times come first."""
    return _walk(store, template.components, template.root, {}, span)


def newest(store: Store, template: PathTemplate, now: Span, folders: int) -> list[File]:
    """The files of the newest few folders, or file names, that say a time: of those about now, else of the newest
    that there are; under each folder that a glob before them finds."""
    first = next(number for number, one in enumerate(template.components) if one.letters)
    above, below = template.components[:first], template.components[first:]
    return [
        file
        for folder in _folders(store, above, template.root)
        for file in _newest(store, below, folder, now, folders)
    ]


def _newest(store: Store, components: Sequence[Component], folder: str, now: Span, folders: int) -> list[File]:
    depth = folder.count("/") + max(number for number, one in enumerate(components) if one.letters) + 1
    for span in (now, None):
        found: dict[str, list[File]] = {}
        for file in _walk(store, components, folder, {}, span):
            here = "/".join(file.path.split("/")[:depth])
            if here not in found and len(found) == folders:
                break
            found.setdefault(here, []).append(file)
        if found:
            return [file for files in found.values() for file in files]
    return []


def _folders(store: Store, components: Sequence[Component], folder: str) -> list[str]:
    """The folders that levels without placeholders name."""
    found = [folder]
    for one in components:
        name = one.text
        found = [
            f"{each}{below}/"
            for each in found
            for below in (store.folders(each) if is_glob(name) else [plain(name)])
            if not is_glob(name) or matches(below, name)
        ]
    return found


def _walk(
    store: Store, components: Sequence[Component], folder: str, said: Mapping[str, int], span: Span | None
) -> Iterator[File]:
    if not any(one.letters for one in components):
        yield from store.files(folder, [one.text for one in components])
        return
    first, rest = components[0], components[1:]
    if not first.letters:
        for below in _folders(store, [first], folder):
            yield from _walk(store, rest, below, said, span)
        return
    tried = _tried(first, said, span)
    if not rest:
        yield from _named(store, first, folder, tried, said=said, span=span)
        return
    if tried is None or first.glob:
        here = [(one, merged) for one in store.folders(folder) if (merged := _fitting(first, one, said, span))]
        tried = dict(sorted(here, key=lambda one: _start(one[1]), reverse=True))
    else:
        tried = {plain(name): merged for name, merged in tried.items()}
    for name, merged in tried.items():
        yield from _walk(store, rest, f"{folder}{name}/", merged, span)


def _named(
    store: Store,
    component: Component,
    folder: str,
    tried: Mapping[str, Mapping[str, int]] | None,
    *,
    said: Mapping[str, int],
    span: Span | None,
) -> Iterator[File]:
    """The files in a folder whose own names say a time."""
    if tried is not None:
        for name in tried:
            yield from store.files(folder, [name])
        return
    found = []
    for file in store.files(folder, ["*"]):
        merged = _fitting(component, file.path.rpartition("/")[2], said, span)
        if merged:
            found.append((_start(merged), file))
    yield from (file for _, file in sorted(found, key=lambda one: one[0], reverse=True))


def _tried(component: Component, said: Mapping[str, int], span: Span | None) -> dict[str, dict[str, int]] | None:
    """The names that a component has for the units of a span, newest first, with what is said by then; None where
    they are too many, or not to be told."""
    unit = known_unit(component.letters | said.keys())
    if span is None or unit is None:
        return None
    above = span_of(said)
    span = span.within(above) if above else span
    if (span.end - span.start).total_seconds() / 3600 > TRIED * HOURS[unit]:
        return None
    names: dict[str, dict[str, int]] = {}
    for start in reversed(list(units(span, unit))):
        merged = {**said, **{letter: _value(letter, start) for letter in component.letters}}
        within = span_of(merged)
        if within is not None and within.start == start:
            names[component.at(start)] = merged
    return names


def _fitting(component: Component, name: str, said: Mapping[str, int], span: Span | None) -> dict[str, int] | None:
    """What is said of time below a folder, or by a file, of that name; None where it cannot hold rows of the span."""
    found = component.read(name)
    if found is None or any(said.get(letter, value) != value for letter, value in found.items()):
        return None
    merged = {**said, **found}
    try:
        within = span_of(merged)
    except ValueError:
        return None  # a name of the form of a date that is none
    return merged if within is None or span is None or within.meets(span) else None


def _value(letter: str, moment: datetime) -> int:
    return int(Field(letter).text(moment))


def _start(said: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(said.get(letter, 0) for letter in "YjmdH")


def matches(name: str, pattern: str) -> bool:
    """As a shell: `*` does not stand for names that begin with a dot."""
    return bool(name) and fnmatchcase(name, pattern) and (name[0] != "." or pattern[0] == ".")
