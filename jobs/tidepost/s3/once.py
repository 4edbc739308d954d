"""Writing an object only where there is none, on stores that know how and on those that do not.

S3 refuses the second of two writes that say `If-None-Match: *`. Not every store that speaks as S3 does: some write
again as if nothing had been said. So it is tried once for each bucket, and never believed. Where it does not work,
the store is asked first and written to then: two writers that ask at the same moment both write, and the later one's
content stays. Only what keeps them apart otherwise, such as a lease, prevents that.
"""

from __future__ import annotations

import secrets
import threading
from contextlib import suppress
from typing import Final
from weakref import WeakKeyDictionary

from tidepost.errors import Misconfigured, TidepostError
from tidepost.s3.connection import Connection, Store

WRITER: Final = "writer"
_lock = threading.Lock()
_tried: WeakKeyDictionary[Connection, dict[str, bool]] = WeakKeyDictionary()


def put_once(store: Store, name: str, data: bytes) -> bool:
    """Write a small object where there is none of its name; False where there is one. Raises as `Store` does."""
    if not refuses_a_second(store):
        return store.find(name) is None and store.put(name, data)
    writer = secrets.token_hex(8)
    if store.put(name, data, about={WRITER: writer}, absent=True):
        return True
    # A request whose answer was lost is made again, and then meets what it wrote itself.
    found = store.find(name)
    return found is not None and found.about.get(WRITER) == writer


def refuses_a_second(store: Store) -> bool:
    """Whether the store keeps the first of two writes that may only be the first."""
    with _lock:
        tried = _tried.setdefault(store.connection, {})
        if store.bucket not in tried:
            tried[store.bucket] = _try(store, f"_tidepost/probe-{secrets.token_hex(8)}")
        return tried[store.bucket]


def _try(store: Store, name: str) -> bool:
    try:
        return store.put(name, b"first", absent=True) and not store.put(name, b"second", absent=True)
    except Misconfigured:  # it does not know the condition; or nothing can be written, as the next write will tell
        return False
    finally:
        with suppress(TidepostError):
            store.remove(name)
