"""Sessions on a PostgreSQL server: one read-only transaction each, closed with its block, and its errors as ours.

No text of the driver's leaves this module but what the server says of names and rights: the rest may hold the URL,
the statement or values of rows.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import adbc_driver_manager
import pyarrow as pa
from adbc_driver_postgresql import StatementOptions, dbapi

from tidepost.errors import Misconfigured, Retryable, TidepostError
from tidepost.libpq import CONNECTING, connects_later, never_connects, of_class

BATCH_BYTES: Final = 4 * 2**20
# For the transaction alone, so that they hold behind a pooler too. Who limits the user at the server knows better.
SETTINGS: Final = """
SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true),
  set_config('standard_conforming_strings', 'on', true), set_config('extra_float_digits', '1', true),
  set_config('statement_timeout', CASE current_setting('statement_timeout') WHEN '0' THEN '1h'
    ELSE current_setting('statement_timeout') END, true),
  set_config('lock_timeout', CASE current_setting('lock_timeout') WHEN '0' THEN '1min'
    ELSE current_setting('lock_timeout') END, true)
"""

# By SQLSTATE, or by its class: https://www.postgresql.org/docs/current/errcodes-appendix.html
LATER: Final = {
    "08": "the connection to it was lost",
    "25P": "its server ended the transaction, which took too long",
    "40": "another transaction of the server was in the way",
    "53": "its server is at its limits",
    "55P03": "a lock that reading needs is held by somebody else",
    "57014": "reading was cancelled at the server, or took longer than its statement_timeout",
    "57": "its server is being stopped or started, or ended the connection",
    "58": "its server's disk reported an error",
}
NEVER: Final = {
    "22": "a value could not be computed there",
    "22023": "it does not know a value that it was given, such as cursor.timezone",
    "25006": "reading it would write something",
    "28": "its server refuses the user or the password",
    "3D": "there is no such database",
    "XX001": "it is damaged",
    "XX002": "it is damaged",
}
NAMES: Final = ("0A", "3F", "42")
"""Of these classes the server's own words name tables, columns, rights and places of the statement: never values."""

# A connection that breaks while rows arrive carries words only, too.
BREAKS: Final = {
    "statement timeout": LATER["57014"],
    "canceling statement": LATER["57014"],
    "ERROR:": "",
}
SAFE: Final = "Nothing was lost: the mark stays where it is."
MEND: Final = "Mend the source, the URL that source.postgres refers to, or the user's rights at the server."
RUN_AGAIN: Final = "Run again when the server can be read."


class Server:
    """A PostgreSQL database, and how to reach it.

    name: host, port and database, for messages: without user and password
    """

    def __init__(self, url: str) -> None:
        self.name = _shown(url)
        given = parse_qs(urlsplit(url).query, keep_blank_values=True)
        options = "&".join(f"{key}={value}" for key, value in CONNECTING.items() if key not in given)
        self._url = f"{url.rstrip('?&')}{'&' if given else '?'}{options}"

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One snapshot of the database, read only and in UTC. Nothing of it is left when the block ends.
        Raises Misconfigured or Retryable."""
        try:
            connection = dbapi.connect(self._url)
        except adbc_driver_manager.Error as error:
            raise self._not_connected(str(error)) from None
        session = Session(self, connection)
        try:
            session.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            session.rows(SETTINGS)
            yield session
        finally:
            with suppress(adbc_driver_manager.Error):  # it may be lost already
                connection.close()

    def refused(self, error: adbc_driver_manager.Error) -> TidepostError:
        """What a statement's error means."""
        state = error.sqlstate or ""
        if why := of_class(LATER, state):
            return self._later(why)
        if state.startswith(NAMES):
            return self._never(f"its server says: {_words(error)}")
        if why := of_class(NEVER, state):
            return self._never(f"{why} (SQLSTATE {state})")
        return self._never(f"its server refuses to read it (SQLSTATE {state})") if state else self.broken(str(error))

    def broken(self, text: str) -> TidepostError:
        """What an error means that came while rows arrived."""
        why = next((why for part, why in BREAKS.items() if part in text), LATER["08"])
        return self._later(why) if why else self._never(of_class(NEVER, "22") or "")

    def _not_connected(self, text: str) -> TidepostError:
        why = never_connects(text)
        return self._later(connects_later(text)) if why is None else self._never(why)

    def _later(self, why: str) -> Retryable:
        return Retryable(f"source {self.name}: {why}", safe=SAFE, hint=RUN_AGAIN)

    def _never(self, why: str) -> Misconfigured:
        return Misconfigured(f"source {self.name}: {why}", safe=SAFE, hint=MEND)


class Session:
    """One transaction. For one thread; only what it streams may be read from another."""

    def __init__(self, server: Server, connection: dbapi.Connection) -> None:
        self._server = server
        self._connection = connection

    def run(self, sql: str) -> None:
        """A statement without rows."""
        with self._cursor(copy=False) as cursor:
            cursor.execute(sql)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a small result."""
        with self._cursor(copy=False) as cursor:
            cursor.execute(sql)
            found: list[tuple[Any, ...]] = cursor.fetchall()
            return found

    def described(self, sql: str) -> pa.Schema:
        """The columns of a SELECT, with PostgreSQL's names of their types in each field's metadata."""
        with self._cursor(copy=False) as cursor:
            cursor.execute(f"SELECT * FROM ({sql}) AS source LIMIT 0")
            return cursor.fetch_record_batch().schema

    @contextmanager
    def stream(self, sql: str) -> Iterator[Stream]:
        """The rows of a SELECT as they arrive, without keeping them."""
        with self._cursor(copy=True) as cursor:
            cursor.execute(sql)
            stream = Stream(cursor)
            try:
                yield stream
            except Exception:
                if stream.failure is not None:
                    raise self._server.broken(stream.failure) from None
                raise
            finally:
                stream.close()

    @contextmanager
    def _cursor(self, *, copy: bool) -> Iterator[dbapi.Cursor]:
        cursor = self._connection.cursor()
        options = {
            StatementOptions.USE_COPY.value: "true" if copy else "false",
            StatementOptions.BATCH_SIZE_HINT_BYTES.value: str(BATCH_BYTES),
        }
        try:
            cursor.adbc_statement.set_options(**options)
            yield cursor
        except adbc_driver_manager.Error as error:
            raise self._server.refused(error) from None
        finally:
            with suppress(adbc_driver_manager.Error):
                cursor.close()


class Stream:
    """Arrow batches on their way from the server to whoever reads `reader`, in any thread.

    failure: what broke it, in the driver's words
    """

    def __init__(self, cursor: dbapi.Cursor) -> None:
        self._cursor = cursor
        self._batches = cursor.fetch_record_batch()
        self._lock = threading.Lock()
        self._open = True
        self._ending = False
        self.failure: str | None = None
        self.reader = pa.RecordBatchReader.from_batches(self._batches.schema, self._each())

    def _each(self) -> Iterator[pa.RecordBatch]:
        while True:
            with self._lock:
                if not self._open:
                    return
                try:
                    batch = self._batches.read_next_batch()
                except StopIteration:
                    self._open = False
                    return
                except Exception as error:
                    if not self._ending:
                        self.failure = str(error)
                    raise
            yield batch

    def close(self) -> None:
        """Read no further: the server stops, and nobody reads from what is freed."""
        self._ending = True
        if self._open:
            with suppress(adbc_driver_manager.Error):
                self._cursor.adbc_cancel()
        with self._lock:
            self._open = False
            with suppress(adbc_driver_manager.Error, OSError):
                self._batches.close()


def _shown(url: str) -> str:
    """Host, port and database of a URL. Misconfigured for one that cannot be read; nothing of it is repeated."""
    at = "write postgresql://USER:PASSWORD@HOST/DATABASE, and in a password @ as %40, / as %2F, # as %23, ? as %3F"
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise Misconfigured(f"source.postgres: the variable holds no PostgreSQL URL; {at}")
    if parts.netloc.count("@") > 1 or "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise Misconfigured(f"source.postgres: the URL cannot be read, for there is an @ too many in it; {at}")
    query = parse_qs(parts.query)
    place = parts.netloc.rpartition("@")[2] or query.get("host", ["localhost"])[0]
    port = f":{query['port'][0]}" if "port" in query else ""
    return f"{place}{port}/{parts.path.lstrip('/') or query.get('dbname', [''])[0]}"


def _words(error: adbc_driver_manager.Error) -> str:
    """The server's own first line, without the statement that the driver repeats."""
    told: dict[Any, Any] = dict(error.details or ())  # stubs say text, the driver gives bytes
    return bytes(told.get(b"PG_DIAG_MESSAGE_PRIMARY", b"it cannot be read")).decode(errors="replace")
