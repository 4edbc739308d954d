"""References to environment variables, `${NAME}` and `${NAME:-default}`, and secrets, which are nothing else.

A definition keeps its references as written; they are replaced when a run starts. No error here holds a value of
the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tidepost.errors import Misconfigured

_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_REFERENCE: Final = re.compile(rf"\$\{{({_NAME})(?::-([^{{}}]*))?\}}")

SECRET_PATTERN: Final = rf"^\$\{{{_NAME}\}}$"


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret by the name of the variable that holds it; every text of it shows only the reference.

    ValueError: anything but exactly one `${NAME}`; its message never repeats what was given. A default is refused
    too, as it would be the secret itself.
    """

    reference: str

    def __post_init__(self) -> None:
        if not re.fullmatch(SECRET_PATTERN, self.reference):
            raise ValueError("is not a reference; put the secret in a variable and write ${NAME} here")

    def __str__(self) -> str:
        return self.reference


def check_references(text: str) -> None:
    """ValueError: `text` holds a `${` that begins no reference."""
    if "${" in _REFERENCE.sub("", text):
        raise ValueError("holds a ${ that begins no reference; write ${NAME} or ${NAME:-default}")


def resolve(text: str, env: Mapping[str, str] | None = None, *, where: str = "") -> str:
    """`text` with each reference replaced by its variable in `env` (default: the process's environment).

    A variable that is set but empty counts as missing, as in a shell's `${NAME:-default}`. Values are taken as
    they are: a reference inside a value is not followed.

    where: the file, line and key that `text` comes from, for the message
    Misconfigured: a variable without default is missing; all missing ones are named, never a value.
    """
    env = os.environ if env is None else env
    prefix = f"{where}: " if where else ""
    try:
        check_references(text)
    except ValueError as error:
        raise Misconfigured(f"{prefix}{error}") from None
    found = _REFERENCE.finditer(text)
    missing = list(dict.fromkeys(one[1] for one in found if not env.get(one[1]) and one[2] is None))
    if missing:
        listed = ", ".join(missing)
        verb = "is" if len(missing) == 1 else "are"
        raise Misconfigured(
            f"{prefix}{listed} {verb} not set in the environment", hint=f"Set it:  export {missing[0]}=…"
        )
    return _REFERENCE.sub(lambda found: env.get(found[1]) or found[2] or "", text)
