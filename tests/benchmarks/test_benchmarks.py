"""The benchmarks themselves: that every case runs. Nothing here is timed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.benchmarks.__main__ import CASES, main
from tests.benchmarks.table import BEGIN, END


def test_every_case_is_measured_and_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"Before.\n{BEGIN}\nOld.\n{END}\nAfter.\n")
    main(["--quick", "--repetitions", "1", "--write", str(page)])
    text = page.read_text()
    assert text.startswith(f"Before.\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nAfter.\n")
    assert text.count("### ") == len(CASES)
    assert "Old." not in text
