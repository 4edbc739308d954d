"""Objects in a bucket of S3, or of a store that speaks as S3 does.

Where the store is, and who asks, is what boto3 finds: `AWS_ENDPOINT_URL_S3`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`, a
profile, a role of the machine; or what a connection says that a definition names (see `account.py`). Nothing of
that is kept anywhere else.

Objects are written whole: until the request that writes one has succeeded, nobody sees anything of it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

from tidepost.errors import Misconfigured, Retryable
from tidepost.s3.account import Account
from tidepost.s3.errors import (
    CONDITION_FAILED,
    CREDENTIALS,
    IN_CONFLICT,
    NO_SUCH_KEY,
    NO_SUCH_RANGE,
    broken_streams,
    code_of,
    told,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from mypy_boto3_s3 import S3Client

PIECE: Final = 16 << 20
"""Bytes: a longer file goes up in pieces of this size, `AT_ONCE` of them at the same time."""
AT_ONCE: Final = 4
MOST_PIECES: Final = 10_000
"""Of one object, as S3 has it."""
FIRST_AHEAD, MOST_AHEAD = 64 << 10, 8 << 20
"""Bytes that a read fetches at least, and that reads which follow each other fetch at most."""
TRIES: Final = 3
"""How often bytes are asked for that stop coming, and a write is tried that meets another."""


@dataclass(frozen=True, slots=True)
class Object:
    """One object, as its store tells of it.

    key:   the bucket's own
    size:  bytes
    about: what was written with it; a list does not tell
    """

    key: str
    size: int
    etag: str
    modified: datetime
    about: Mapping[str, str] = field(default_factory=dict, compare=False)


class Connection:
    """One client: it keeps its connections open, and renews credentials that end. Thread-safe; it is made when it is
    first needed.

    account: who asks, and where; what it leaves out is what boto3 finds
    """

    def __init__(self, account: Account | None = None) -> None:
        self._account = account or Account()
        self._lock = threading.Lock()

    @staticmethod
    def shared(account: Account | None = None) -> Connection:
        """The process's own of an account; another one where the environment that boto3 looks at has changed."""
        return _shared(account, tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))))

    @property
    def client(self) -> S3Client:
        """Raises Misconfigured for a profile that does not exist, or an endpoint that is no address."""
        with self._lock:
            return self._client

    @cached_property
    def _client(self) -> S3Client:
        from botocore.config import Config  # noqa: PLC0415 - heavy, and not needed by projects without S3

        config = Config(
            connect_timeout=10,
            read_timeout=60,
            retries={"mode": "standard", "total_max_attempts": 4},
            max_pool_connections=32,
            tcp_keepalive=True,
            request_checksum_calculation="when_required",  # not every store knows what is newer than Content-MD5
            response_checksum_validation="when_required",
        )
        with told("s3", "", "opening it"):
            try:
                return self._account.client(config)
            except ValueError:
                raise Misconfigured("s3: the endpoint is no address", hint=CREDENTIALS) from None


@cache
def _shared(account: Account | None, _: tuple[tuple[str, str], ...]) -> Connection:
    return Connection(account)


class Store:
    """A place in a bucket: `s3://bucket/prefix`. Thread-safe; nothing is asked before its first use.

    Its methods take names below the prefix. Each of them raises Misconfigured (no credentials, no access, no such
    bucket) and Retryable (no answer, or one that passes).
    """

    def __init__(self, bucket: str, prefix: str = "", connection: Connection | None = None) -> None:
        self.bucket, self.prefix = bucket, prefix
        self.connection = connection or Connection.shared()

    @classmethod
    def at(cls, url: str, connection: Connection | None = None) -> Store:
        """The place that a URL names. Raises Misconfigured where it names no bucket."""
        scheme, _, rest = url.partition("://")
        bucket, _, prefix = rest.partition("/")
        if scheme != "s3" or not bucket or "@" in bucket:
            raise Misconfigured(
                "this is no address in S3; it holds a bucket and a prefix, and no credentials",
                hint=f"Write s3://BUCKET/PREFIX.\n  {CREDENTIALS}",
            )
        return cls(bucket, prefix.strip("/"), connection)

    def __str__(self) -> str:
        return self.url("").rstrip("/")

    def url(self, name: str) -> str:
        return f"s3://{self.bucket}/{self.key(name)}"

    def key(self, name: str) -> str:
        """A name as the key that the bucket has."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def name(self, key: str) -> str:
        """The name that a key of the bucket has here."""
        return key[len(self.key("")) :]

    @property
    def client(self) -> S3Client:
        return self.connection.client

    def _told(self, doing: str) -> AbstractContextManager[None]:
        return told(str(self), self.client.meta.endpoint_url, doing)

    # ------------------------------------------------------------------------------------------- reading

    def find(self, name: str) -> Object | None:
        """The object of that name, or None."""
        client, key = self.client, self.key(name)
        with self._told("HeadObject"):
            try:
                found = client.head_object(Bucket=self.bucket, Key=key)
            except client.exceptions.ClientError as error:
                if code_of(error) in NO_SUCH_KEY:
                    return None
                raise
        return Object(key, found["ContentLength"], found["ETag"], found["LastModified"], found["Metadata"])

    def get(self, name: str) -> bytes | None:
        """The bytes of a small object, or None where there is none."""
        client = self.client
        with self._told("GetObject"):
            for left in reversed(range(TRIES)):
                try:
                    return client.get_object(Bucket=self.bucket, Key=self.key(name))["Body"].read()
                except client.exceptions.NoSuchKey:
                    return None
                except broken_streams():
                    if not left:
                        raise
        raise AssertionError

    def list(self, start: str, *, after: str = "") -> Iterator[Object]:
        """The objects whose names begin with `start`, and lie after `after`; in the store's order, a thousand to a
        request."""
        later: Any = {"StartAfter": self.key(after)} if after else {}
        with self._told("ListObjectsV2"):
            pages = self.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.key(start), **later):
                for one in page.get("Contents", ()):
                    yield Object(one["Key"], one["Size"], one["ETag"], one["LastModified"])

    def level(self, start: str) -> Iterator[Object | str]:
        """As `list`, but of what lies below a slash after `start` only the folders' names, which end in it."""
        with self._told("ListObjectsV2"):
            pages = self.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.key(start), Delimiter="/"):
                for one in page.get("Contents", ()):
                    yield Object(one["Key"], one["Size"], one["ETag"], one["LastModified"])
                for each in page.get("CommonPrefixes", ()):
                    yield self.name(each["Prefix"])

    def open(self, name: str) -> IO[bytes]:
        """An object's bytes, in any order, a few MiB of them in memory. Raises Retryable where there is none."""
        found = self.find(name)
        if found is None:
            raise Retryable(f"{self.url(name)} is not there")
        return self.reader(found)

    def reader(self, found: Object) -> IO[bytes]:
        """As `open`, of an object that was found."""
        return cast(IO[bytes], _Ranges(self, found))

    def read(self, found: Object, start: int, end: int) -> bytes:
        """A range of an object's bytes, end excluded. Raises Retryable where it is not the one that was found."""
        client, url = self.client, f"s3://{self.bucket}/{found.key}"
        span = f"bytes={start}-{end - 1}"
        with self._told("GetObject"):
            for left in reversed(range(TRIES)):
                try:
                    answer = client.get_object(Bucket=self.bucket, Key=found.key, Range=span, IfMatch=found.etag)
                    data = answer["Body"].read()
                except client.exceptions.ClientError as error:
                    if code_of(error) in NO_SUCH_KEY | CONDITION_FAILED | NO_SUCH_RANGE:
                        raise Retryable(f"{url} was removed or replaced while it was read") from None
                    raise
                except broken_streams():
                    if not left:
                        raise
                else:
                    if len(data) == end - start:
                        return data
                    break
        raise Retryable(f"{url}: the store gives other bytes than it was asked for")

    # ------------------------------------------------------------------------------------------- writing

    def put(self, name: str, data: bytes, *, about: Mapping[str, str] | None = None, absent: bool = False) -> bool:
        """Write a small object, with a few words about it. With `absent` the store is told to do so only where there
        is none: False where it says that there is one. Not every store does as it is told."""
        condition: Any = {"IfNoneMatch": "*"} if absent else {}
        client = self.client
        with self._told("PutObject"):
            for left in reversed(range(TRIES)):
                try:
                    client.put_object(
                        Bucket=self.bucket,
                        Key=self.key(name),
                        Body=data,
                        ContentMD5=_md5(data),
                        Metadata=dict(about or {}),
                        **condition,
                    )
                except client.exceptions.ClientError as error:
                    if absent and code_of(error) in CONDITION_FAILED:
                        return False
                    if code_of(error) not in IN_CONFLICT or not left:
                        raise
                else:
                    break
        return True

    def upload(self, name: str, file: Path, *, about: Mapping[str, str] | None = None) -> str:
        """Write a file of any size, of which a few pieces are in memory at a time; gives the object's ETag."""
        size = file.stat().st_size
        piece = max(PIECE, -(-size // MOST_PIECES))
        client = self.client
        there: Any = {"Bucket": self.bucket, "Key": self.key(name)}
        with self._told("PutObject"):
            if size <= piece:
                data = file.read_bytes()
                return client.put_object(**there, Body=data, ContentMD5=_md5(data), Metadata=dict(about or {}))[
                    "ETag"
                ]
            begun = client.create_multipart_upload(**there, Metadata=dict(about or {}))
            there["UploadId"] = begun["UploadId"]
            try:
                pieces = self._pieces(there, file, size, piece)
                return client.complete_multipart_upload(**there, MultipartUpload={"Parts": pieces})["ETag"]
            except client.exceptions.NoSuchUpload:
                found = self.find(name)  # the answer to the last request may have been lost, and it was made again
                if found is None or found.size != size:
                    raise
                return found.etag
            except BaseException:
                with suppress(Exception):  # `unfinished` finds what is left
                    client.abort_multipart_upload(**there)
                raise

    def _pieces(self, upload: Any, file: Path, size: int, piece: int) -> Sequence[Any]:
        client = self.client

        def send(number: int) -> Any:
            with file.open("rb") as source:
                source.seek((number - 1) * piece)
                data = source.read(piece)
            sent = client.upload_part(**upload, PartNumber=number, Body=data, ContentMD5=_md5(data))
            return {"PartNumber": number, "ETag": sent["ETag"]}

        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="tidepost-s3") as pool:
            try:
                return list(pool.map(send, range(1, -(-size // piece) + 1)))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def copy(self, source: str, target: str, *, etag: str) -> bool:
        """Copy an object of at most 5 GiB, and what was written about it, inside the store. False where the source
        is gone, or is not the one of that ETag."""
        client = self.client
        with self._told("CopyObject"):
            try:
                client.copy_object(
                    Bucket=self.bucket,
                    Key=self.key(target),
                    CopySource={"Bucket": self.bucket, "Key": self.key(source)},
                    CopySourceIfMatch=etag,
                )
            except client.exceptions.ClientError as error:
                if code_of(error) in NO_SUCH_KEY | CONDITION_FAILED:
                    return False
                raise
        return True

    def remove(self, *names: str) -> None:
        """Remove objects; harmless where there are none."""
        client = self.client

        def delete(name: str) -> None:
            with self._told("DeleteObject"):
                client.delete_object(Bucket=self.bucket, Key=self.key(name))

        if len(names) < 2:
            for name in names:
                delete(name)
            return
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="tidepost-s3") as pool:
            list(pool.map(delete, names))

    def unfinished(self, start: str) -> Iterator[tuple[str, str]]:
        """Uploads in pieces that were begun and never ended, of names that begin with `start`: name, upload id."""
        with self._told("ListMultipartUploads"):
            pages = self.client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.key(start)):
                for one in page.get("Uploads", ()):
                    yield self.name(one["Key"]), one["UploadId"]

    def abort(self, name: str, upload: str) -> None:
        """Give an upload in pieces up; harmless where there is none."""
        client = self.client
        with self._told("AbortMultipartUpload"), suppress(client.exceptions.NoSuchUpload):
            client.abort_multipart_upload(Bucket=self.bucket, Key=self.key(name), UploadId=upload)


def _md5(data: bytes) -> str:
    """`Content-MD5`: the store compares it with what arrived."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


class _Ranges(io.RawIOBase):
    """An object's bytes, by ranged requests. Reads that follow each other fetch more ahead each time."""

    def __init__(self, store: Store, found: Object) -> None:
        self._store, self._object = store, found
        self._at = self._first = 0
        self._ahead = FIRST_AHEAD // 2
        self._data = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._object.size}[whence]
        if base + offset < 0:
            raise ValueError("before the first byte")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        self._data = b""
        super().close()

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fills the buffer, but at the object's end. Raises what `Store.read` raises."""
        into = memoryview(buffer).cast("B")
        into = into[: max(0, self._object.size - self._at)]
        filled = 0
        while filled < len(into):
            if not self._first <= self._at < self._first + len(self._data):
                self._fetch(len(into) - filled)
            begin = self._at - self._first
            count = min(len(into) - filled, len(self._data) - begin)
            into[filled : filled + count] = memoryview(self._data)[begin : begin + count]
            filled += count
            self._at += count
        return filled

    def _fetch(self, wanted: int) -> None:
        """The bytes from here on: as many as are wanted, and some ahead. Near the end, all that lie there: a parquet
        file's footer is read from its last bytes backwards."""
        following = self._at == self._first + len(self._data)
        self._ahead = min(2 * self._ahead, MOST_AHEAD) if following else FIRST_AHEAD
        start = min(self._at, max(0, self._object.size - FIRST_AHEAD))
        end = min(self._at + max(wanted, self._ahead), self._object.size)
        self._data = self._store.read(self._object, start, end)
        self._first = start
