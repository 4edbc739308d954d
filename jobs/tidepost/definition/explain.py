"""What pydantic found wrong with a file, as problems that a person can act on.

Pydantic's own sentences are not used, as they repeat the values they were given: here a value is repeated only
where it should have been one of a few known words.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tidepost.definition.fields import shown
from tidepost.definition.yamlfile import Document, KeyPath, Problem, Value, misconfigured

_Model = type[BaseModel]
_M = TypeVar("_M", bound=BaseModel)


def validated(model: type[_M], document: Document) -> _M:
    """`document` as a `model`.

    Misconfigured: all problems of its YAML and its content, ordered by line.
    """
    try:
        found = model.model_validate(document.data)
    except ValidationError as error:
        raise misconfigured(_together(document.problems, faults(error, model, document))) from None
    if document.problems:
        raise misconfigured(document.problems)
    return found


def _together(yaml: Iterable[Problem], content: list[Problem]) -> list[Problem]:
    """Both kinds of problems without those of one that the other explains: a value that YAML could not give, and
    the insides of a value that is wrong as a whole."""
    places = {(problem.path, problem.place) for problem in yaml}
    wrong = {problem.path for problem in content if problem.path}
    inside = [problem for problem in yaml if wrong.isdisjoint(problem.path[:end] for end in range(len(problem.path)))]
    return [*inside, *(problem for problem in content if (problem.path, problem.place) not in places)]


def faults(error: ValidationError, model: _Model, document: Document, *, gaps: bool = True) -> list[Problem]:
    """What `error` says of `document`, which is not a `model`; a missing key that stands there misspelt is one fault.

    gaps: False leaves out what is missing
    """
    found = error.errors(include_url=False)
    misspelt = {(*one["loc"][:-1], _near(one["loc"], model)) for one in found if one["type"] == "extra_forbidden"}
    return [
        _problem(one, model, document)
        for one in found
        if one["type"] not in _GAPS or (gaps and one["loc"] not in misspelt)
    ]


_GAPS: Final = ("missing", "union_tag_not_found")


def _problem(error: ErrorDetails, model: _Model, document: Document) -> Problem:
    loc: KeyPath = (*error["loc"], *error.get("ctx", {}).get("at", ()))
    if error["type"].startswith("union_tag"):
        loc = (*loc, "type")
    path = _written(_untagged(loc, model), document.data)
    return Problem(document.places.of(path), path, _text(error, loc, model))


def _written(loc: KeyPath, data: Value) -> KeyPath:
    """Where in the file pydantic's location is: it knows only the long form of what may be written shortly."""
    path: KeyPath = ()
    for key in loc:
        if isinstance(data, dict):
            name = list(data)[key] if isinstance(key, int) else key
            path += (name,)
            data = data.get(name)
        elif isinstance(data, list) and isinstance(key, int):
            path += (key,)
            data = data[key]
    return path


def _text(error: ErrorDetails, loc: KeyPath, model: _Model) -> str:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(loc, model)
    if kind == "literal_error":
        return _unknown_word(value, context["expected"])
    if kind == "union_tag_invalid":
        return _unknown_word(context["tag"], context["expected_tags"])
    if value is None:
        return "may not be null; give it a value, or leave the key out"
    if kind == "string_type" and isinstance(value, (dict, list)):
        return "must be text; put text that begins with { or [ in quotes"
    return _SENTENCES.get(kind, "must be a mapping of keys to values").format(**context)


_SENTENCES: Final = {
    "tidepost": "{text}",
    "missing": "is missing",
    "union_tag_not_found": "is missing",
    "string_type": "must be text; put it in quotes",
    "string_too_short": "is empty",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}


def _unknown_word(value: object, expected: str) -> str:
    """`expected` is pydantic's text of what a literal may be: `'day' or 'hour'`, or a bare number."""
    words = re.findall(r"'([^']*)'", expected) or [expected]
    near = difflib.get_close_matches(str(value), words, n=1) if len(words) > 1 else []
    guess = f"; did you mean {near[0]}?" if near else ""
    return f"{shown(value)} is not known here; write {' or '.join(words)}{guess}"


def _near(loc: KeyPath, model: _Model) -> str | None:
    """The key that the unknown key at `loc` was perhaps meant to be."""
    near = difflib.get_close_matches(str(loc[-1]).lower(), _model_at(loc[:-1], model).model_fields, n=1)
    return near[0] if near else None


def _unknown_key(loc: KeyPath, model: _Model) -> str:
    if near := _near(loc, model):
        return f'no such key; did you mean "{near}"?'
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner and loc[-1] in inner.model_fields:
            return f'no such key here; it belongs in "{name}"'
    return f"no such key; the keys here are {', '.join(_model_at(loc[:-1], model).model_fields)}"


def _model_at(path: KeyPath, model: _Model) -> _Model:
    *_, (_, found) = [("", model), *_steps(path, model)]
    return found


def _untagged(loc: KeyPath, model: _Model) -> KeyPath:
    """pydantic's location without the tags that it puts into it, which say of what kind a section is."""
    return tuple(key for key, _ in _steps(loc, model) if key is not None)


def _steps(path: KeyPath, model: _Model) -> Iterator[tuple[str | int | None, _Model]]:
    """Each key of a location, None for one that is a tag, and the model that it leads to."""
    kinds: list[_Model] = []
    for key in path:
        tagged = next((kind for kind in kinds if key in _tags(kind)), None) if len(kinds) > 1 else None
        if tagged is not None:
            model, kinds = tagged, []
            yield None, model
            continue
        field = model.model_fields.get(key) if isinstance(key, str) else None
        if field:
            kinds = list(_models_in(field.annotation))
            model = next(iter(kinds), model)
        yield key, model


def _tags(model: _Model) -> tuple[object, ...]:
    """What a model's `type` may be."""
    field = model.model_fields.get("type")
    return get_args(field.annotation) if field else ()


def _model_in(annotation: object) -> _Model | None:
    """The first model in a field's annotation, such as Attribute in `tuple[Attribute, ...]`."""
    return next(_models_in(annotation), None)


def _models_in(annotation: object) -> Iterator[_Model]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for part in get_args(annotation):
            yield from _models_in(part)
