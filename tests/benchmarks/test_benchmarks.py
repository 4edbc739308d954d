"""The benchmarks themselves: that every case runs. Nothing here is timed."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tests.benchmarks import measure
from tests.benchmarks.__main__ import CASES, main
from tests.benchmarks.table import BEGIN, END


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written in the project's own environment runs in this process; what needs another one is left out."""

    def ran(arguments: Sequence[str], env: Mapping[str, str], log: Path) -> tuple[float, float]:
        python, wrapper, peak, *rest = arguments
        if python != sys.executable:
            Path(peak).write_text("1")
            return 1.0, 1.0
        with monkeypatch.context() as changed:
            changed.setattr(sys, "argv", [wrapper, peak, *rest])
            for name, value in env.items():
                changed.setenv(name, value)
            runpy.run_path(wrapper, run_name="__main__")
        return 1.0, 1.0

    monkeypatch.setattr(measure, "ran", ran)
    for case in ("staging", "delivery", "arize"):
        monkeypatch.setattr(f"tests.benchmarks.cases.{case}.environment", Path)


@pytest.mark.usefixtures("_here")
def test_every_case_runs_and_is_written_down(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"Before.\n{BEGIN}\nOld.\n{END}\nAfter.\n")
    main(["--quick", "--repetitions", "1", "--write", str(page)])
    text = page.read_text()
    assert text.startswith(f"Before.\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nAfter.\n")
    assert text.count("### ") == len(CASES)
    assert "Old." not in text
