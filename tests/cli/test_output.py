"""What is shown, what never is, and on which stream."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import COMMAND, NOW_TEXT, Shell
from tests.world import World, rows

from tidepost.cli.output import short, size, span
from tidepost.cli.sandbox import installed
from tidepost.errors import Misconfigured
from tidepost.sandbox import SandboxProcess

CANARY = "canary-5f1d9c-key"
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3|4|9|10)\d(?:;\d+)*m")


def on_a_terminal(shell: Shell, *arguments: str, **env: str) -> str:
    """What a terminal gets to see of a command, on both streams."""
    ours, theirs = pty.openpty()
    env = {**os.environ, **shell.env, "TERM": "xterm-256color", "COLUMNS": "120", **env}
    with subprocess.Popen(
        [*COMMAND, *arguments], cwd=shell.folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = bytearray()
        while True:
            try:
                some = os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
            if not some:
                break
            seen += some
        os.close(ours)
    assert process.returncode == 0, seen
    return seen.decode()


def test_a_terminal_sees_a_bar_with_rows_bytes_and_rate(world: World, tidepost: Shell) -> None:
    world.log("monday", rows(1200, every=30))
    seen = on_a_terminal(tidepost, "run", "flights", "--now", NOW_TEXT)
    assert re.search(r"1,200/1,200 rows +\d+\.\d kB", seen)
    assert "1,200 arrived" in seen
    assert COLOUR.search(seen)


def test_no_color_is_obeyed(world: World, tidepost: Shell) -> None:
    world.log("monday", rows(1))
    assert not COLOUR.search(on_a_terminal(tidepost, "plan", "flights", "--now", NOW_TEXT, NO_COLOR="1"))


@pytest.mark.parametrize(
    "arguments",
    [("status", "--colour", "--json"), ("nothing", "--json"), ("plan", "--json"), ("plan", "flihgts", "--json")],
)
def test_errors_are_json_too_and_nothing_is_beside_them(tidepost: Shell, arguments: tuple[str, ...]) -> None:
    done = tidepost.here(*arguments, code=2)
    assert set(done.document["error"]) == {"kind", "message", "safe", "hint", "exit_code"}
    assert not done.err


def test_an_error_is_told_on_standard_error_alone(tidepost: Shell) -> None:
    done = tidepost.here("run", "flights", code=2, ARTHUR_API_KEY="")
    assert not done.out
    assert done.err.startswith("error: jobs/flights.yaml:")
    assert "\n  Set it:  export ARTHUR_API_KEY=…\n" in done.err


def test_a_key_is_never_shown(world: World, tidepost: Shell, tmp_path: Path) -> None:
    world.log("monday", rows(5))
    run = ("run", "flights", "--now", NOW_TEXT, "--verbose")
    done = []
    with SandboxProcess(tmp_path / "locked", api_key="another key") as locked:
        for options in ([], ["--json"], ["--log-format", "json"]):
            done.append(tidepost.here(*run, *options, code=2, ARTHUR_API_KEY=CANARY, SANDBOX_URL=locked.url))
        connect = ("validate", "--connect", "--json")
        done.append(tidepost.here(*connect, code=2, ARTHUR_API_KEY=CANARY, SANDBOX_URL=locked.url))
    done += [tidepost.here(*run, *options, ARTHUR_API_KEY=CANARY) for options in ([], ["--json"])]
    seen = "".join(one.out + one.err for one in done)
    assert "401" in seen
    assert CANARY not in seen


def test_a_bug_is_a_short_message_and_a_file_with_the_traceback() -> None:
    program = (
        "import sys\n"
        "from tidepost.cli.app import run\n"
        "from tidepost.cli.command import command\n"
        "@command('version', example='')\n"
        "def broken(session):\n"
        f"    raise RuntimeError({CANARY!r})\n"
        "sys.exit(run(['version', *sys.argv[1:]]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error: a bug in tidepost: RuntimeError\n")
    assert CANARY not in done.stderr
    file = Path(done.stderr.rpartition("traceback in ")[2].strip().rstrip("."))
    assert "RuntimeError" in file.read_text()
    file.unlink()
    verbose = subprocess.run(
        [sys.executable, "-c", program, "--verbose", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert json.loads(verbose.stdout)["error"]["exit_code"] == 1
    assert "Traceback" in verbose.stderr


def test_a_missing_extra_is_named() -> None:
    with pytest.raises(Misconfigured) as error:
        installed("sandbox", "json", "a_package_that_nobody_has")
    assert error.value.message == "a_package_that_nobody_has is not installed"
    assert "pip install 'tidepost[sandbox]'" in error.value.hint


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59, "59 s"), (67, "1 min 7 s"), (7200, "2 h"), (100_000, "1 d 3 h")]
)
def test_lengths_of_time_are_short(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_bytes_are_in_powers_of_ten() -> None:
    assert [size(amount) for amount in (0, 999, 1000, 12_345_678)] == ["0 B", "999 B", "1.0 kB", "12.3 MB"]


@pytest.mark.parametrize(
    ("position", "text"),
    [
        ("2013-01-03T05:00:00Z", "2013-01-03T05:00Z"),
        ("2013-01-03T05:00:07Z", "2013-01-03T05:00:07Z"),
        ("2013-01-03T05:00:00.5Z", "2013-01-03T05:00Z"),
        ("2013-01-03", "2013-01-03"),
        ("4711", "4711"),
    ],
)
def test_positions_are_shown_without_what_is_zero(position: str, text: str) -> None:
    assert short(position) == text
