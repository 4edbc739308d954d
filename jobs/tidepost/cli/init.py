"""`tidepost init`: a new project."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final

import typer

from tidepost.cli.command import command
from tidepost.cli.session import Session
from tidepost.errors import Misconfigured

FILES: Final = {
    "tidepost.yaml": "tidepost.yaml",
    "example.yaml": "jobs/example.yaml",
    "gitignore": ".gitignore",
}
"""Name in the package's templates → path in the project."""


@command("init", example="tidepost init uploads")
def init(
    session: Session,
    *,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The project's folder; made if it is missing.")],
) -> int:
    """Make a new project with one example job.

    Files that are there already are never overwritten.
    """
    root = directory.resolve()
    there = [path for path in FILES.values() if (root / path).exists()]
    if there:
        raise Misconfigured(
            f"{root} holds {', '.join(there)} already", safe="Nothing was written.", hint="Name another folder."
        )
    templates = files("tidepost.cli") / "templates"
    for name, path in FILES.items():
        target = root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("x", encoding="utf-8") as file:
                file.write((templates / name).read_text(encoding="utf-8"))
        except OSError as error:
            raise Misconfigured(f"{target} cannot be written: {error.strerror}") from None
    here = [] if root == Path.cwd() else [f"cd {os.path.relpath(root)}"]
    steps = [
        *here,
        "edit jobs/example.yaml   say where your log is, and which columns are what",
        "export ARTHUR_URL=…      the platform; or none, for a trial beside:  tidepost sandbox",
        "export ARTHUR_API_KEY=…  its key",
        "tidepost validate        is the definition right, does it fit the log?",
        "tidepost plan example    what would be uploaded?",
        "tidepost run example",
    ]
    session.answer(
        {"project": str(root), "created": list(FILES.values())},
        f"a new project is in {root}: {', '.join(FILES.values())}\n\nNext:\n"
        + "\n".join(f"  {one}" for one in steps),
    )
    return 0
