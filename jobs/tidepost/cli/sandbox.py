"""`tidepost sandbox`: a platform on this machine to upload to."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from tidepost.cli.command import command
from tidepost.cli.session import Session
from tidepost.errors import Misconfigured

_DATA = Path(".tidepost") / "sandbox"


@command("sandbox", example="tidepost sandbox\ntidepost sandbox --fault lose_reply,kind=file,count=1")
def sandbox(
    session: Session,
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is any free one.")] = 8765,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where it keeps what it gets. Default: .tidepost/sandbox of the project."),
    ] = None,
    on_repeat: Annotated[
        str, typer.Option(metavar="WHAT", help="What an id that is already there comes to: refuse, merge or keep.")
    ] = "refuse",
    loading_delay: Annotated[
        float, typer.Option(min=0, metavar="S", help="Seconds from accepting a file to loading it.")
    ] = 0.0,
    fault: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="How to misbehave, such as throttle,share=0.2; may be repeated."),
    ] = None,
) -> int:
    """Serve a platform on this machine until Ctrl-C.

    It speaks Arthur's and Arize's APIs, keeps what it gets, and misbehaves on demand; but it is neither.
    """
    from tidepost.sandbox.settings import Fault, Settings  # noqa: PLC0415 - only this command serves

    settings = Settings(
        data=_data(session) if data is None else data,
        port=port,
        on_repeat=on_repeat,  # type: ignore[arg-type]  # Settings refuses what is none of the three
        loading_delay=loading_delay,
        faults=tuple(Fault.from_text(text) for text in fault or ()),
    )
    installed("sandbox", "fastapi", "uvicorn")
    from tidepost.sandbox.server import serve  # noqa: PLC0415

    def announce(url: str) -> None:
        session.answer(
            {"url": url, "data": str(settings.data)},
            f"a platform for trials is at {url} (open it to see what arrived)\n"
            f"  it keeps what it gets in {settings.data}\n"
            f"  to upload to it:  export SANDBOX_URL={url} ARTHUR_API_KEY=any",
        )

    serve(settings, announce=announce)
    return 0


def installed(extra: str, *packages: str) -> None:
    """Raises Misconfigured where a package of an extra is missing, naming the extra."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise Misconfigured(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed",
            hint=f"Install it:  pip install 'tidepost[{extra}]'",
        )


def _data(session: Session) -> Path:
    """The project's, or one below the working directory where there is no project."""
    try:
        return session.project().root / _DATA
    except Misconfigured:
        if session.folder is not None:
            raise
        return Path.cwd() / _DATA
