"""The guarantees name their tests, and the tests exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUARANTEES = ROOT / "docs" / "guarantees.md"


def test_every_test_that_the_guarantees_name_exists() -> None:
    written = {
        name
        for file in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"^\s*def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    named = set(re.findall(r"`(test_\w+)`", GUARANTEES.read_text()))
    assert len(named) > 20
    assert named <= written, sorted(named - written)


def test_every_sentence_of_what_holds_names_a_test() -> None:
    holds, _, _ = GUARANTEES.read_text().partition("## What does not hold")
    sentences = re.findall(r"^- (.*(?:\n  .*)*)", holds, re.MULTILINE)
    assert sentences
    assert not [sentence for sentence in sentences if "`test_" not in sentence]
