"""How connections to PostgreSQL are made, and what it means when one is not: for the ledger and for sources.

Both drivers are built on libpq. A refused connection carries no SQLSTATE, only words. Where a server speaks another
language than English, its refusal is taken for one that may pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Unless the URL tells it otherwise: a server that is gone without a word is noticed in about a minute, the length of
# a lease.
CONNECTING: Final = {
    "application_name": "tidepost",
    "client_encoding": "utf8",
    "connect_timeout": "10",
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "50000",
}

NEVER_CONNECTS: Final = {
    "root certificate": "its server's certificate cannot be checked",
    "certificate verify failed": "its server's certificate is not to be trusted",
    "does not support SSL": "its server does not encrypt connections",
    "authentication failed": "its server refuses the user or the password",
    "no password supplied": "its server asks for a password",
    "no pg_hba.conf entry": "its server lets this user in from other places only",
    "is not permitted to log in": "its server refuses the user",
    "does not exist": "there is no such user or database",
    "permission denied for database": "the user has no right to it",
    "not currently accepting connections": "its server keeps everybody out of that database",
    "invalid URI query parameter": "its URL has an option that PostgreSQL does not know",
    "invalid sslmode value": "an option of its URL has no such value",
    "invalid integer value": "an option of its URL has no such value",
    "invalid port number": "its URL has no such port",
}
CONNECTS_LATER: Final = {
    "too many": "its server takes no more connections",
    "remaining connection slots": "its server takes no more connections",
    "database system is": "its server is being stopped or started",
    "failed to resolve": "the name of its host is not known",
    "could not translate host name": "the name of its host is not known",
    "Connection refused": "nothing listens there",
    "No such file or directory": "nothing listens there",
    "timeout": "its host does not answer",
    "No route to host": "its host cannot be reached",
    "read-only": "it takes no writes now",
}


def never_connects(words: str) -> str | None:
    """Why trying again cannot help, by the words of a refused connection; None where it may."""
    return next((why for part, why in NEVER_CONNECTS.items() if part in words), None)


def connects_later(words: str) -> str:
    """Why a connection was not made that may be made later, by the words of its refusal."""
    return next((why for part, why in CONNECTS_LATER.items() if part in words), "no connection to it could be made")


def of_class(reasons: Mapping[str, str], state: str) -> str | None:
    """The reason of the longest beginning of an SQLSTATE that has one."""
    return next((reasons[state[:length]] for length in range(len(state), 1, -1) if state[:length] in reasons), None)
