"""YAML files, read strictly, with the place of every value.

The dialect is YAML 1.2 with its core schema, which changes nothing behind the reader's back: `no`, `on`, `12:30`
and `2013-01-01` are text, `010` is ten. Anchors and aliases work. Refused, each with file, line and column: keys that
occur twice, keys that are not text, empty values (`null` is written out), tags of one's own, merge keys (`<<`, which
are no part of YAML 1.2; an alias, or `defaults` in tidepost.yaml, does their work), several documents in one file,
and files that are not UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from yaml import MappingNode, Node, ScalarNode, SequenceNode
from yaml.cyaml import CBaseLoader
from yaml.error import MarkedYAMLError
from yaml.events import CollectionEndEvent, CollectionStartEvent
from yaml.reader import ReaderError

from tidepost.errors import Misconfigured

KeyPath: TypeAlias = tuple[str | int, ...]
"""Where a value is inside its file: `("mapping", "inputs", 2)`."""

Value: TypeAlias = bool | int | float | str | list["Value"] | dict[str, "Value"] | None

_LARGEST: Final = 100_000
"""Values in one file, aliases counted as often as they are used: far above any definition, below any harm."""

_DEEPEST: Final = 20
_TOO_DEEP: Final = f"is nested more than {_DEEPEST} levels deep"

_STARTS_NO_TEXT: Final = "@`%*&!{[|>"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in a file; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend. `text` continues the key's name: `settle` + `is missing`."""

    place: Place
    path: KeyPath
    text: str

    def __str__(self) -> str:
        key = path_text(self.path)
        return f"{self.place}: {key}: {self.text}" if key else f"{self.place}: {self.text}"


@dataclass(frozen=True, slots=True)
class Places:
    """The places of a file's values by their key paths; of a mapping's value, the place of its key."""

    found: Mapping[KeyPath, Place]

    def of(self, path: KeyPath) -> Place:
        """The place of `path`, or of the nearest value around it that is in the file."""
        for length in range(len(path), -1, -1):
            if place := self.found.get(path[:length]):
                return place
        raise KeyError(path)


@dataclass(frozen=True, slots=True)
class Document:
    """A file's content, where each of its values is, and what is wrong with some of them.

    A value with a problem is None, of a key that stands twice the first counts: so that the rest can be checked too.
    """

    data: dict[str, Value]
    places: Places
    problems: tuple[Problem, ...] = ()


def path_text(path: KeyPath) -> str:
    """`("mapping", "inputs", 2)` → `mapping.inputs[2]`; a key that is no plain word stands in quotes."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            word = key if re.fullmatch(r"[\w-]+", key) else f'"{key}"'
            text += f".{word}" if text else word
    return text


def misconfigured(problems: Iterable[Problem]) -> Misconfigured:
    """All problems as one error, a line each, in the order of the file; the same line twice is one."""
    ordered = sorted(problems, key=lambda problem: problem.place)
    return Misconfigured("\n".join(dict.fromkeys(str(problem) for problem in ordered)))


def read_yaml(path: Path, name: str) -> Document:
    """The YAML mapping in the file at `path`, which messages call `name`.

    Misconfigured: there is no such file, it cannot be read, or as in `parse_yaml`.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise Misconfigured(f"{name}: no such file") from None
    except OSError as error:
        raise Misconfigured(f"{name}: cannot be read: {error.strerror}") from None
    return parse_yaml(raw, name)


def parse_yaml(raw: bytes, name: str) -> Document:
    """The YAML mapping in `raw`, whose file messages call `name`.

    Misconfigured: not UTF-8, not YAML, or not a mapping. What is YAML but refused here is in the document's
    `problems`, for the caller to raise beside its own.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise Misconfigured(f"{name}:{line}: is not UTF-8 text; save the file as UTF-8") from None
    parser = _Parser(text)
    try:
        _check_depth(text, name)
        root = parser.get_single_node()
    except MarkedYAMLError as error:
        raise misconfigured([_syntax(error, text, name)]) from None
    except ReaderError as error:
        place = Place(name, text.count("\n", 0, error.position) + 1, 1)
        raise misconfigured([Problem(place, (), f"holds a character that YAML forbids: {error.reason}")]) from None
    finally:
        parser.dispose()
    if root is None:
        raise misconfigured([Problem(Place(name, 1, 1), (), "the file is empty")])
    if not isinstance(root, MappingNode):
        raise misconfigured([Problem(_place(root.start_mark, name), (), "is not a mapping of keys to values")])
    reading = _Reading(name)
    data = reading.mapping(root, ())
    return Document(data, Places(reading.places), tuple(reading.problems))


def _check_depth(text: str, name: str) -> None:
    """Refuses deep nesting before nodes are made of it, which PyYAML does by C recursion that ends the process."""
    parser, depth = _Parser(text), 0
    try:
        while event := parser.get_event():
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            if depth > _DEEPEST:
                raise misconfigured([Problem(_place(event.start_mark, name), (), _TOO_DEEP)])
    finally:
        parser.dispose()


class _Parser(CBaseLoader):
    """libyaml's parser with the resolvers of YAML 1.2's core schema."""


_PREFIX: Final = "tag:yaml.org,2002:"
for _tag, _pattern, _first in (
    ("null", r"(?:null|Null|NULL|~|)", ["n", "N", "~", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", list("-+0123456789")),
    (
        "float",
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))",
        list("-+.0123456789"),
    ),
):
    _Parser.add_implicit_resolver(_PREFIX + _tag, re.compile(rf"^{_pattern}$", re.ASCII), _first)


class _Reading:
    """One walk over a file's nodes: the plain values, their places and what is wrong with them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.places: dict[KeyPath, Place] = {(): Place(name, 1, 1)}
        self.problems: list[Problem] = []
        self._open: set[int] = set()
        self._count = 0

    def mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Value]:
        data: dict[str, Value] = {}
        for key_node, value_node in node.value:
            place = _place(key_node.start_mark, self.name)
            key = self._key(key_node, place, path)
            if key is None:
                continue
            if key in data:
                first = self.places[*path, key]
                again = f"the key is already on line {first.line}; a key may stand once"
                self.problems.append(Problem(place, (*path, key), again))
                continue
            self.places[*path, key] = place
            data[key] = self._value(value_node, (*path, key))
        return data

    def _key(self, node: Node, place: Place, path: KeyPath) -> str | None:
        text = ""
        if not isinstance(node, ScalarNode):
            text = "a key must be text; put text that begins with { or [ in quotes"
        elif node.value == "<<" and not node.style:
            text = "merge keys (<<) are no part of YAML 1.2; use an alias (*name), or `defaults` in tidepost.yaml"
        elif node.tag != _PREFIX + "str":
            text = f"the key {node.value} is not text; put it in quotes" if node.value else "a key is empty"
        else:
            return str(node.value)
        self.problems.append(Problem(place, path, text))
        return None

    def _value(self, node: Node, path: KeyPath) -> Value:
        self._count += 1
        if self._count > _LARGEST:
            raise misconfigured([Problem(self.places[path], path[:1], f"holds more than {_LARGEST:,} values")])
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open:
            self.problems.append(Problem(self.places[path], path, "an alias may not stand inside its own anchor"))
            return None
        if len(path) > _DEEPEST:
            self.problems.append(Problem(self.places[path], path[:1], _TOO_DEEP))
            return None
        self._open.add(id(node))
        value: Value = None
        if isinstance(node, MappingNode) and self._tagged(node, path, "map"):
            value = self.mapping(node, path)
        elif isinstance(node, SequenceNode) and self._tagged(node, path, "seq"):
            value = self._sequence(node, path)
        self._open.discard(id(node))
        return value

    def _sequence(self, node: SequenceNode, path: KeyPath) -> list[Value]:
        items: list[Value] = []
        for number, item in enumerate(node.value):
            self.places[*path, number] = _place(item.start_mark, self.name)
            items.append(self._value(item, (*path, number)))
        return items

    def _tagged(self, node: Node, path: KeyPath, *allowed: str) -> bool:
        if node.tag.removeprefix(_PREFIX) in allowed:
            return True
        tag = node.tag.replace(_PREFIX, "!!")
        self.problems.append(Problem(self.places[path], path, f"the tag {tag} is not known here; leave it out"))
        return False

    def _scalar(self, node: ScalarNode, path: KeyPath) -> Value:
        if not self._tagged(node, path, "str", "null", "bool", "int", "float"):
            return None
        text, tag = str(node.value), node.tag.removeprefix(_PREFIX)
        if tag == "null" and not text:
            empty = "is empty; give it a value, write null, or leave it out"
            self.problems.append(Problem(self.places[path], path, empty))
            return None
        try:
            return _construct(text, tag)
        except ValueError:
            self.problems.append(Problem(self.places[path], path, f"is not a value of the type !!{tag}"))
            return None


def _construct(text: str, tag: str) -> Value:
    """A scalar's value; ValueError where an explicit tag does not fit, or an integer is absurdly long."""
    match tag:
        case "null":
            return None
        case "bool":
            return ("false", "true").index(text.lower()) == 1
        case "int":
            return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
        case "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        case _:
            return text


class _Mark(Protocol):
    """A mark of libyaml or of PyYAML, whose lines and columns count from 0."""

    line: int
    column: int


def _place(mark: _Mark | None, name: str) -> Place:
    return Place(name, mark.line + 1, mark.column + 1) if mark else Place(name, 1, 1)


def _syntax(error: MarkedYAMLError, text: str, name: str) -> Problem:
    place = _place(error.problem_mark or error.context_mark, name)
    lines = text.splitlines()
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    said = ": ".join(part for part in (error.context, error.problem) if part)
    if "single document" in said:
        return Problem(place, (), "a second document begins here; write one document a file")
    said = f"is not YAML: {said}"
    value = line.partition(": ")[2].strip() or line.strip(" -")
    if "\t" in line[: len(line) - len(line.lstrip())]:
        said += "; YAML is indented by spaces, not by tabs"
    elif "${" in line and "flow" in said:
        said += "; inside {…} and […], ${NAME} must be in quotes"
    elif value[:1] and value[0] in _STARTS_NO_TEXT:
        said += f"; text that begins with {value[0]} must be in quotes"
    return Problem(place, (), said)
