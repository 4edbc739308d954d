"""What pydantic found wrong with a file, as problems that a person can act on.

Pydantic's own sentences are not used, as they repeat the values they were given: here a value is repeated only
where it should have been one of a few known words.
"""

from __future__ import annotations

import difflib
import re
from typing import Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tidepost.yamlfile import Document, KeyPath, Problem, Value, misconfigured

_Model = type[BaseModel]
_M = TypeVar("_M", bound=BaseModel)


def validated(model: type[_M], document: Document) -> _M:
    """`document` as a `model`.

    Misconfigured: all problems of its YAML and its content, ordered by line.
    """
    try:
        found = model.model_validate(document.data)
    except ValidationError as error:
        raise misconfigured([*document.problems, *_content(error, model, document)]) from None
    if document.problems:
        raise misconfigured(document.problems)
    return found


def faults(model: _Model, document: Document) -> list[Problem]:
    """What is wrong with the part of a `model` that `document` holds, whatever it lacks."""
    try:
        model.model_validate(document.data)
    except ValidationError as error:
        return [problem for problem in _content(error, model, document) if problem.text != _SENTENCES["missing"]]
    return []


def _content(error: ValidationError, model: _Model, document: Document) -> list[Problem]:
    """What is wrong beside the problems that the document has already."""
    known = {problem.path for problem in document.problems}
    found = [_problem(one, model, document) for one in error.errors(include_url=False)]
    return [problem for problem in found if problem.path not in known]


def _problem(error: ErrorDetails, model: _Model, document: Document) -> Problem:
    loc: KeyPath = (*error["loc"], *error.get("ctx", {}).get("at", ()))
    path = _written(loc, document.data)
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
        return _unknown_key(str(loc[-1]), loc[:-1], model)
    if kind == "literal_error":
        return _unknown_word(value, context["expected"])
    if value is None:
        return "may not be null; give it a value, or leave the key out"
    if kind == "string_type" and isinstance(value, (dict, list)):
        return "must be text; put text that begins with { or [ in quotes"
    return _SENTENCES.get(kind, "must be a mapping of keys to values").format(**context)


_SENTENCES: Final = {
    "tidepost": "{text}",
    "missing": "is missing",
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
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return f"{shown} is not known here; write {' or '.join(words)}{guess}"


def _unknown_key(key: str, section: KeyPath, model: _Model) -> str:
    keys = list(_model_at(section, model).model_fields)
    near = difflib.get_close_matches(key.lower(), keys, n=1)
    if near:
        return f'no such key; did you mean "{near[0]}"?'
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner and key in inner.model_fields and (name,) != section:
            return f'no such key here; it belongs in "{name}"'
    return f"no such key; the keys here are {', '.join(keys)}"


def _model_at(path: KeyPath, model: _Model) -> _Model:
    for key in path:
        field = model.model_fields.get(key) if isinstance(key, str) else None
        model = (_model_in(field.annotation) if field else None) or model
    return model


def _model_in(annotation: object) -> _Model | None:
    """The first model in a field's annotation, such as Attribute in `tuple[Attribute, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
