"""YAML is read strictly, changes nothing unasked, and every refusal names its place."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tidepost.definition.yamlfile import Value, parse_yaml, path_text, read_yaml
from tidepost.errors import Misconfigured


def value(text: str) -> Value:
    document = parse_yaml(f"key: {text}\n".encode(), "f.yaml")
    assert document.problems == ()
    return document.data["key"]


def problems(text: str) -> list[str]:
    return [str(problem) for problem in parse_yaml(text.encode(), "f.yaml").problems]


def refusal(raw: bytes | str) -> str:
    with pytest.raises(Misconfigured) as caught:
        parse_yaml(raw.encode() if isinstance(raw, str) else raw, "f.yaml")
    return caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "yes",
        "on",
        "off",
        "y",
        "12:30",
        "1:02:03",
        "2013-01-01",
        "2013-01-01T05:00:00Z",
        "1_000",
        "0b11",
        "-0x1F",
    ],
)
def test_what_yaml_1_1_changed_silently_stays_text(text: str) -> None:
    assert value(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("010", 10),
        ("-7", -7),
        ("+1", 1),
        ("0o17", 15),
        ("0x1F", 31),
        ("1.", 1.0),
        ("-.5e1", -5.0),
        (".inf", float("inf")),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("Null", None),
        ("nUll", "nUll"),
        ("!!str 5", "5"),
        ("'010'", "010"),
        ('""', ""),
        ("[1, a]", [1, "a"]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
    ],
)
def test_values_follow_the_core_schema_of_yaml_1_2(text: str, expected: Value) -> None:
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


def test_nan_is_a_number() -> None:
    found = value(".NaN")
    assert isinstance(found, float)
    assert math.isnan(found)


def test_anchors_and_aliases_work() -> None:
    document = parse_yaml(b"a: &one {x: 1}\nb: *one\n", "f.yaml")
    assert document.data == {"a": {"x": 1}, "b": {"x": 1}}


def test_an_alias_inside_its_own_anchor_is_refused() -> None:
    assert problems("a: &x [*x]") == ["f.yaml:1:4: a[0]: an alias may not stand inside its own anchor"]


def test_a_file_that_grows_without_end_is_refused() -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    laughs += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    assert "holds more than 100,000 values" in refusal(laughs)


@pytest.mark.parametrize("text", ["a: " + "[" * 100_000, "a: " + "{a: " * 100_000], ids=["lists", "mappings"])
def test_nesting_that_would_end_the_process_is_refused(text: str) -> None:
    assert "nested more than 20 levels deep" in refusal(text)


def test_nesting_by_aliases_is_refused_too() -> None:
    text = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [[*a{n - 1}]]\n" for n in range(1, 30))
    assert any("nested more than 20 levels deep" in problem for problem in problems(text))


def test_a_key_that_stands_twice_is_refused_and_both_lines_are_named() -> None:
    assert problems("a:\n  b: 1\n  c: 2\n  b: 3\n") == [
        "f.yaml:4:3: a.b: the key is already on line 2; a key may stand once"
    ]


def test_keys_are_text() -> None:
    assert problems("1: a\ntrue: b\n~: c\n? [x]\n: d\n") == [
        "f.yaml:1:1: the key 1 is not text; put it in quotes",
        "f.yaml:2:1: the key true is not text; put it in quotes",
        "f.yaml:3:1: the key ~ is not text; put it in quotes",
        "f.yaml:4:3: a key must be text; put text that begins with { or [ in quotes",
    ]


def test_a_value_left_empty_is_refused_where_null_is_not() -> None:
    assert problems("a:\nb: null\n") == ["f.yaml:1:1: a: is empty; give it a value, write null, or leave it out"]


def test_a_merge_key_is_refused_and_a_quoted_one_is_a_key() -> None:
    assert "merge keys (<<)" in problems("<<: {a: b}")[0]
    assert problems("'<<': {a: b}") == []


@pytest.mark.parametrize("tag", ["!own x", "!!python/name:os.system x", "!!timestamp 2013-01-01", "!!binary aaaa"])
def test_tags_of_other_types_are_refused(tag: str) -> None:
    assert "is not known here" in problems(f"a: {tag}")[0]


@pytest.mark.parametrize("text", ["!!int x", "!!bool maybe", "9" * 5000], ids=["int", "bool", "endless"])
def test_a_value_that_its_type_cannot_hold_is_refused(text: str) -> None:
    assert "is not a value of the type" in problems(f"a: {text}")[0]


@pytest.mark.parametrize(
    ("raw", "place", "advice"),
    [
        ("a: 1\n\tb: 2\n", "f.yaml:2:1:", "indented by spaces, not by tabs"),
        ("a: @hourly\n", "f.yaml:1:4:", "text that begins with @ must be in quotes"),
        ("a: 1\nb: */5 * * * *\n", "f.yaml:2:5:", "text that begins with * must be in quotes"),
        ("a: {b}{c}\n", "f.yaml:1:7:", "text that begins with { must be in quotes"),
        ("a: {url: ${URL}, b: c}\n", "f.yaml:1:11:", "${NAME} must be in quotes"),
        ("a: b: c\n", "f.yaml:1:5:", "mapping values are not allowed"),
        ("a: b\n---\nc: d\n", "f.yaml:2:1:", "one document a file"),
        ("", "f.yaml:1:1:", "the file is empty"),
        ("# nothing\n", "f.yaml:1:1:", "the file is empty"),
        ("- a\n", "f.yaml:1:1:", "is not a mapping"),
        ("text\n", "f.yaml:1:1:", "is not a mapping"),
        (b"a: 1\nb: \xff\n", "f.yaml:2:", "is not UTF-8"),
        ("a: 1\nb: \x07\n", "f.yaml:2:1:", "a character that YAML forbids"),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_place_and_advice(raw: bytes | str, place: str, advice: str) -> None:
    message = refusal(raw)
    assert message.startswith(place)
    assert advice in message


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert parse_yaml(b"\xef\xbb\xbfa: b", "f.yaml").data == {"a": "b"}


def test_every_value_has_its_place_and_what_is_not_written_that_of_what_is_around_it() -> None:
    places = parse_yaml(b"a:\n  b: [x, y]\n  c: {d: 1}\n", "f.yaml").places
    assert str(places.of(("a", "b"))) == "f.yaml:2:3"
    assert str(places.of(("a", "b", 1))) == "f.yaml:2:10"
    assert str(places.of(("a", "c", "d"))) == "f.yaml:3:7"
    assert str(places.of(("a", "c", "missing"))) == "f.yaml:3:3"
    assert str(places.of(("missing",))) == "f.yaml:1:1"


def test_a_key_path_is_written_as_it_is_typed() -> None:
    assert path_text(("mapping", "inputs", 2)) == "mapping.inputs[2]"
    assert path_text(("mapping", "inputs", "wind speed")) == 'mapping.inputs."wind speed"'


def test_a_file_that_is_not_there_or_is_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"^x.yaml: no such file$"):
        read_yaml(tmp_path / "x.yaml", "x.yaml")
    with pytest.raises(Misconfigured, match=r"^x.yaml: cannot be read: Is a directory$"):
        read_yaml(tmp_path, "x.yaml")
