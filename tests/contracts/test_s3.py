"""Objects in S3: what a store does, what DuckDB reads of it, and what goes wrong with it."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.retries.standard import ExponentialBackoff
from tests.s3 import SECRET, NewPlace, S3Server, free_port

from tidepost.engine import translated
from tidepost.errors import Misconfigured, Retryable, TidepostError
from tidepost.s3.connection import Connection, Store
from tidepost.s3.duckdb import readable
from tidepost.s3.once import put_once, refuses_a_second


@pytest.fixture
def store(new_place: NewPlace) -> Store:
    """A store with a client of its own, whose requests can be watched and changed."""
    return Store.at(new_place(), Connection())


class Requests:
    """What a store was asked since `of`: operations, and bytes of ranges."""

    def __init__(self, of: Store) -> None:
        self.names: Counter[str] = Counter()
        self.bytes = 0
        of.client.meta.events.register("before-call.s3", self._count)

    def _count(self, model: Any, params: Any, **_: Any) -> None:
        self.names[model.name] += 1
        if (span := params["headers"].get("Range")) is not None:
            start, end = span.removeprefix("bytes=").split("-")
            self.bytes += int(end) - int(start) + 1


def answered_twice(store: Store, operation: str) -> Iterator[int]:
    """Let the answer to the next such request be lost, so that it is made again; empty once that has happened."""
    again = iter([0])

    def lost(**_: Any) -> Any:
        return next(again, None)

    store.client.meta.events.register_first(f"needs-retry.s3.{operation}", lost)
    return again


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried at once."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0)


def large(path: Path, megabytes: int = 40) -> Path:
    """A file that goes up in pieces, no two of which are alike."""
    with path.open("wb") as file:
        for number in range(megabytes * 16):
            file.write(number.to_bytes(4, "big") * (1 << 14))
    return path


# ------------------------------------------------------------------------------------------------------ addresses


@pytest.mark.parametrize(
    ("url", "bucket", "key"),
    [
        ("s3://bucket", "bucket", "a"),
        ("s3://bucket/", "bucket", "a"),
        ("s3://bucket/one/two/", "bucket", "one/two/a"),
        ("s3://bucket/it's [odd] #1?", "bucket", "it's [odd] #1?/a"),
    ],
)
def test_an_address_names_a_bucket_and_a_prefix(url: str, bucket: str, key: str) -> None:
    store = Store.at(url)
    assert (store.bucket, store.key("a"), store.name(key)) == (bucket, key, "a")
    assert store.url("a") == f"s3://{bucket}/{key}"


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///prefix", "https://bucket/a", "bucket/a", f"s3://me:{SECRET}@bucket/a"]
)
def test_what_is_no_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(Misconfigured, match="no address in S3") as error:
        Store.at(url)
    assert SECRET not in str(error.value)


# ------------------------------------------------------------------------------------------------------ objects


def test_a_large_file_goes_up_in_pieces_and_comes_back_whole(store: Store, tmp_path: Path) -> None:
    file = large(tmp_path / "large")
    requests = Requests(store)
    etag = store.upload("large", file, about={"sha256": "abc"})
    assert requests.names == {"CreateMultipartUpload": 1, "UploadPart": 3, "CompleteMultipartUpload": 1}
    found = store.find("large")
    assert found is not None
    assert (found.size, found.etag, dict(found.about)) == (file.stat().st_size, etag, {"sha256": "abc"})
    with store.open("large") as stream:
        assert stream.read() == file.read_bytes()
    assert store.copy("large", "copy", etag=etag)
    copied = store.find("copy")
    assert copied is not None
    assert (copied.size, dict(copied.about)) == (found.size, {"sha256": "abc"})


def test_a_small_file_goes_up_in_one_request(store: Store, tmp_path: Path) -> None:
    requests = Requests(store)
    store.upload("large", large(tmp_path / "small", 1))
    assert requests.names == {"PutObject": 1}


def test_an_upload_that_fails_leaves_nothing(store: Store, tmp_path: Path) -> None:
    def fail(params: Any, **_: Any) -> None:
        if params["url_path"].endswith("large") and params["query_string"]["partNumber"] == 2:
            raise RuntimeError

    store.client.meta.events.register("before-call.s3.UploadPart", fail)
    with pytest.raises(RuntimeError):
        store.upload("large", large(tmp_path / "large"))
    assert store.find("large") is None
    assert list(store.unfinished("")) == []


def test_what_is_damaged_on_its_way_is_refused(store: Store, tmp_path: Path) -> None:
    def damage(request: Any, **_: Any) -> None:
        request.data = io.BytesIO(b"x2345")

    store.client.meta.events.register("request-created.s3.PutObject", damage)
    with pytest.raises(Retryable, match="BadDigest"):
        store.put("a", b"12345")
    assert store.get("a") is None


def test_an_upload_whose_last_answer_was_lost_has_succeeded(store: Store, tmp_path: Path) -> None:
    again = answered_twice(store, "CompleteMultipartUpload")
    requests = Requests(store)
    etag = store.upload("large", large(tmp_path / "large"))
    assert next(again, None) is None
    found = store.find("large")
    assert found is not None
    assert found.etag == etag
    assert requests.names["AbortMultipartUpload"] == 0


def test_what_was_left_of_uploads_is_told_and_given_up(store: Store) -> None:
    begun = store.client.create_multipart_upload(Bucket=store.bucket, Key=store.key("p/a"))
    assert list(store.unfinished("p/")) == [("p/a", begun["UploadId"])]
    assert list(store.unfinished("q/")) == []
    for _ in range(2):
        store.abort("p/a", begun["UploadId"])
    assert list(store.unfinished("")) == []


def test_more_objects_than_one_answer_holds_are_listed(store: Store) -> None:
    def few(params: Any, **_: Any) -> None:
        params["MaxKeys"] = 2

    store.client.meta.events.register("before-parameter-build.s3.ListObjectsV2", few)
    requests = Requests(store)
    names = [f"n/{number}" for number in range(5)]
    for name in names:
        store.put(name, b"")
    assert [store.name(one.key) for one in store.list("n/")] == names
    assert [store.name(one.key) for one in store.list("n/", after="n/2")] == names[3:]
    assert requests.names["ListObjectsV2"] == 4


def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed(store: Store, tmp_path: Path) -> None:
    store.upload("large", large(tmp_path / "large", 17))
    with store.open("large") as stream:
        stream.read(10)
        store.put("large", b"another one")
        with pytest.raises(Retryable, match="removed or replaced"):
            stream.read()


def test_an_answer_that_breaks_off_is_asked_for_again(store: Store) -> None:
    store.put("a", b"0123456789")
    broken = iter([True])

    def shorten(parsed: Any, **_: Any) -> None:
        if next(broken, False):
            parsed["Body"].read()  # so that nothing is left, and its length does not agree
            parsed["Body"]._amount_read = 0

    store.client.meta.events.register("after-call.s3.GetObject", shorten)
    with store.open("a") as stream:
        assert stream.read() == b"0123456789"
    assert next(broken, None) is None


# ------------------------------------------------------------------------------------------- writing only once


def test_a_store_that_refuses_a_second_is_found_out_and_nothing_is_left_of_the_trial(store: Store) -> None:
    requests = Requests(store)
    assert refuses_a_second(store)
    assert refuses_a_second(Store(store.bucket, "elsewhere", store.connection))
    assert requests.names == {"PutObject": 2, "DeleteObject": 1}
    assert list(store.list("")) == []


def test_a_store_that_overwrites_in_spite_of_it_is_found_out(store: Store) -> None:
    def deaf(params: Any, **_: Any) -> None:
        params["headers"].pop("If-None-Match", None)

    store.client.meta.events.register("before-call.s3.PutObject", deaf)
    assert not refuses_a_second(store)
    assert put_once(store, "a", b"one")
    assert not put_once(store, "a", b"two")
    assert store.get("a") == b"one"


def test_a_store_that_does_not_know_the_condition_is_found_out(store: Store) -> None:
    def unknown(request: Any, **_: Any) -> Any:
        if "If-None-Match" not in request.headers:
            return None
        body = b"<Error><Code>NotImplemented</Code></Error>"
        raw: Any = SimpleNamespace(stream=lambda *_, **__: iter([body]))
        return AWSResponse(request.url, 501, HTTPHeaders(), raw)

    store.client.meta.events.register("before-send.s3.PutObject", unknown)
    assert put_once(store, "a", b"one")
    assert not put_once(store, "a", b"two")


def test_a_write_whose_answer_was_lost_is_known_for_ones_own(store: Store) -> None:
    assert refuses_a_second(store)
    again = answered_twice(store, "PutObject")
    assert put_once(store, "a", b"one")
    assert next(again, None) is None
    assert not put_once(store, "a", b"one")


# -------------------------------------------------------------------------------------------------------- DuckDB


def wide(path: Path, rows: int = 200_000) -> Path:
    """A file of which one column is a small share."""
    noise = pa.array([f"{(number * 2654435761) % 2**32:08x}" * 4 for number in range(rows)])
    table = pa.table({"id": pa.array(range(rows), pa.int32()), **{f"noise{n}": noise for n in range(4)}})
    pq.write_table(table, path, row_group_size=50_000, use_dictionary=False, compression="none")
    return path


def test_a_query_fetches_the_columns_that_it_reads(store: Store, tmp_path: Path) -> None:
    file = wide(tmp_path / "wide.parquet")
    store.upload("d/wide.parquet", file)
    with duckdb.connect() as connection:
        readable(connection, store, store.list("d/"))
        requests = Requests(store)
        assert connection.execute(f"SELECT sum(id) FROM '{store.url('d/wide.parquet')}'").fetchall() == [
            (19_999_900_000,)
        ]
    assert set(requests.names) == {"GetObject"}
    assert requests.bytes < file.stat().st_size / 10


def test_files_tell_their_names_and_rows_and_may_differ_in_columns(store: Store, tmp_path: Path) -> None:
    for name, table in (("p=1/a", {"x": [1, 2]}), ("p=2/b", {"x": [3], "y": ["z"]})):
        pq.write_table(pa.table(table), tmp_path / "file")
        store.upload(f"{name}.parquet", tmp_path / "file")
    first, second = (store.url(name) for name in ("p=1/a.parquet", "p=2/b.parquet"))
    with duckdb.connect() as connection:
        readable(connection, store)
        found = connection.execute(
            f"SELECT x, y, f, file_row_number FROM read_parquet(['{first}', '{second}'], filename = 'f', "
            "file_row_number = true, union_by_name = true, hive_partitioning = false) ORDER BY ALL"
        ).fetchall()
        columns = connection.execute(f"DESCRIBE FROM read_parquet('{first}', hive_partitioning = false)").fetchall()
    assert found == [(1, None, first, 0), (2, None, first, 1), (3, "z", second, 0)]
    assert [name for name, *_ in columns] == ["x"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.parquet", ["a.parquet", "b.parquet"]),
        ("a.*", ["a.parquet"]),
        ("d=*/*.parquet", ["d=1/c.parquet"]),
        ("**/*.parquet", ["a.parquet", "b.parquet", "d=1/c.parquet"]),
        ("[x].parquet", ["[x].parquet"]),
    ],
)
def test_patterns_are_matched_as_on_a_disk(store: Store, tmp_path: Path, pattern: str, found: list[str]) -> None:
    names = {"a.parquet", "b.parquet", "d=1/c.parquet", "z.txt", *(name for name in found if "[" in name)}
    for name in names:
        pq.write_table(pa.table({"x": [1]}), tmp_path / "file")
        store.upload(name, tmp_path / "file")
    with duckdb.connect() as connection:
        readable(connection, store)
        there = connection.execute(f"SELECT filename FROM read_parquet('{store.url(pattern)}', filename = true)")
        assert sorted(one for (one,) in there.fetchall()) == [store.url(name) for name in found]


def test_an_error_of_the_store_leaves_duckdb_as_one_of_ours(store: Store, tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "file")
    store.upload("a.parquet", tmp_path / "file")
    with duckdb.connect() as connection:
        readable(connection, store, store.list(""))
        store.remove("a.parquet")
        with pytest.raises(duckdb.Error) as error:
            connection.execute(f"SELECT * FROM '{store.url('a.parquet')}'")
        with pytest.raises(duckdb.Error) as other:
            connection.execute("SELECT * FROM 's3://no-such-bucket/a.parquet'")
    gone, nowhere = translated(error.value, "here"), translated(other.value, "here")
    assert isinstance(gone, Retryable)
    assert gone.message == f"here: {store.url('a.parquet')} was removed or replaced while it was read"
    assert isinstance(nowhere, Misconfigured)
    assert "no bucket no-such-bucket" in nowhere.message


# --------------------------------------------------------------------------------------------------------- errors


@pytest.fixture
def answering() -> Iterator[Callable[[int, str], str]]:
    """Starts a server that gives the same answer to everything; returns its address."""
    servers = []

    def start(status: int, code: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = f"<Error><Code>{code}</Code><Message>of {SECRET}</Message></Error>".encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = answer  # noqa: N815

            def log_message(self, *_: Any) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "kind", "hint"),
    [
        (403, "AccessDenied", Misconfigured, "docs/staging.md"),
        (403, "InvalidAccessKeyId", Misconfigured, "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", Misconfigured, "AWS_ACCESS_KEY_ID"),
        (400, "ExpiredToken", Misconfigured, "AWS_ACCESS_KEY_ID"),
        (404, "NoSuchBucket", Misconfigured, "Create it"),
        (400, "AuthorizationHeaderMalformed", Misconfigured, "AWS_REGION"),
        (418, "SomethingElse", Misconfigured, "Check the bucket"),
        (503, "SlowDown", Retryable, "later"),
        (500, "InternalError", Retryable, "later"),
        (429, "TooMany", Retryable, "later"),
    ],
)
def test_a_refusal_tells_what_to_mend_and_no_secret(
    *,
    impatient: None,
    s3: S3Server,
    answering: Callable[[int, str], str],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    code: str,
    kind: type[TidepostError],
    hint: str,
) -> None:
    url = answering(status, code)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
    store = Store("bucket", "place")
    for act in (lambda: store.get("a"), lambda: store.put("a", b""), lambda: list(store.list(""))):
        with pytest.raises(kind) as error:
            act()
        assert "s3://bucket/place" in error.value.message
        assert url in error.value.message
        assert hint in error.value.hint
        assert SECRET not in str(error.value)


def test_a_store_that_is_not_there_is_asked_again_later(
    impatient: None, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://me:{SECRET}@127.0.0.1:{port}")
    with pytest.raises(Retryable, match=f"no answer from http://127.0.0.1:{port}") as error:
        Store("bucket").get("a")
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no credentials"),
        ({"AWS_PROFILE": "nobody"}, "no credentials"),
        ({"AWS_ENDPOINT_URL_S3": "nonsense"}, "no address"),
    ],
)
def test_what_boto3_does_not_find_is_named(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], words: str
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Misconfigured, match=words) as error:
        Store("bucket").get("a")
    assert "AWS_ACCESS_KEY_ID" in error.value.hint
    assert SECRET not in str(error.value)
