"""What leaves for Arthur, byte for byte, and what is made of every way in which an answer can fail to come."""

from __future__ import annotations

import io
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import IO, Any

import pytest
from tests.integration.raw_server import (
    MODEL,
    ORGANIZATION,
    TLS,
    Exchange,
    Proxy,
    RawServer,
    Step,
    about_the_model,
    accept,
    accepted,
    answering,
    answering_early,
    cutting,
    losing,
)

from tidepost import __version__
from tidepost.destinations import connection, transport
from tidepost.destinations.arthur.destination import ArthurDestination, ArthurOptions
from tidepost.destinations.arthur.labels import labels
from tidepost.destinations.arthur.model import Attribute, Model
from tidepost.errors import LeaseLost, Misconfigured, Refused, Retryable, Unknown
from tidepost.model import Receipt, StreamName
from tidepost.ports import Upload, unguarded
from tidepost.ranges import Range

INFERENCES, LABELS = StreamName.INFERENCES, StreamName.GROUND_TRUTH
KEY = "the-key-that-must-not-show"
SMALL = b"PAR1 a small file, its end"
LARGE = bytes(range(256)) * (1 << 16) + b"its end"  # 16 MiB: more than the buffers on the way hold

NO_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC")

Make = Callable[..., ArthurDestination]


def upload(
    content: bytes = SMALL, *, rows: int = 3, name: str = "data/00000007-00000.parquet", **rest: Any
) -> Upload:
    return Upload(name, rows, len(content), lambda: io.BytesIO(content), rest.pop("guard", unguarded), **rest)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NO_PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def make(waits: list[float]) -> Iterator[Make]:
    """Makes destinations that never wait in truth."""
    made: list[ArthurDestination] = []

    def one(server: RawServer | None = None, **changes: Any) -> ArthurDestination:
        options = {"api_key": KEY, "organization": ORGANIZATION, "model": "flights", "timeout": 20.0, **changes}
        if server is not None:
            options.setdefault("url", server.url)
        made.append(ArthurDestination(ArthurOptions(**options), sleep=waits.append, random=lambda: 1.0))
        return made[-1]

    yield one
    for destination in made:
        destination.close()


# ------------------------------------------------------------------------------------------------- exact bytes


def test_a_file_goes_as_one_form_with_exact_length_and_base_name(make: Make) -> None:
    with RawServer(accept(3)) as server:
        assert make(server).send(INFERENCES, upload()) == Receipt(3, 0)
    (sent,) = server.sent
    assert sent.line == f"POST /api/v3/models/{MODEL}/inferences/file HTTP/1.1"
    boundary = sent.headers["content-type"].removeprefix("multipart/form-data; boundary=")
    assert sent.headers == {
        "host": f"127.0.0.1:{server.port}",
        "authorization": KEY,
        "arthur-organization-id": ORGANIZATION,
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": f"tidepost/{__version__}",
        "content-type": f"multipart/form-data; boundary={boundary}",
        "content-length": str(len(sent.content)),
    }
    disposition = "\r\nContent-Disposition: form-data; "
    assert sent.content.decode() == (
        f'--{boundary}{disposition}name="batch_id"\r\n\r\n\r\n'
        f'--{boundary}{disposition}name="inference_data"; filename="00000007-00000.parquet"\r\n\r\n'
        f"{SMALL.decode()}\r\n--{boundary}--\r\n"
    )


def test_a_batch_id_goes_in_its_own_part(make: Make) -> None:
    with RawServer(accept(3)) as server:
        make(server).send(INFERENCES, upload(batch_id="2013-01-03/é"))
    assert 'name="batch_id"\r\n\r\n2013-01-03/é\r\n--'.encode() in server.sent[0].content


def test_a_file_name_cannot_break_out_of_its_quotes(make: Make) -> None:
    with RawServer(accept(3)) as server:
        make(server).send(INFERENCES, upload(name='day="3"/a"\r\nb é.parquet'))
    assert 'filename="a%22%0D%0Ab é.parquet"\r\n\r\n'.encode() in server.sent[0].content


def test_labels_go_in_a_part_of_their_own_without_a_batch(make: Make) -> None:
    with RawServer(accept(3)) as server:
        make(server).send(LABELS, upload(batch_id="none of it"))
    (sent,) = server.sent
    assert sent.line == f"POST /api/v3/models/{MODEL}/inferences/file HTTP/1.1"
    assert b'name="ground_truth_data"; filename="00000007-00000.parquet"\r\n\r\nPAR1' in sent.content
    assert b"batch_id" not in sent.content


def test_rows_go_as_one_json_array(make: Make) -> None:
    at = datetime(2013, 1, 3, 5, 0, 0, 250, tzinfo=UTC)
    results = [{"message": "success", "status": 200}] * 2
    answer = {"counts": {"success": 2, "failure": 0, "total": 2}, "results": results}
    rows = [
        {"partner_inference_id": "a", "inference_timestamp": at, "probability": 0.5, "batch_id": "one"},
        {
            "partner_inference_id": "é",
            "inference_timestamp": at,
            "probability": None,
            "late": True,
            "ground_truth_timestamp": at,
        },
    ]
    with RawServer(answering(207, answer)) as server:
        make(server).send_rows(INFERENCES, rows)
    (sent,) = server.sent
    assert sent.line == f"POST /api/v3/models/{MODEL}/inferences HTTP/1.1"
    assert sent.headers["content-type"] == "application/json"
    assert "transfer-encoding" not in sent.headers
    text = "2013-01-03T05:00:00.000250+00:00"
    assert json.loads(sent.content) == [
        {
            "partner_inference_id": "a",
            "inference_timestamp": text,
            "inference_data": {"probability": 0.5},
            "batch_id": "one",
        },
        {
            "partner_inference_id": "é",
            "inference_timestamp": text,
            "inference_data": {"probability": None},
            "ground_truth_timestamp": text,
            "ground_truth_data": {"late": True},
        },
    ]


def test_labels_by_rows_are_a_patch(make: Make) -> None:
    at = datetime(2013, 1, 3, 5, tzinfo=UTC)
    answer = {"counts": {"success": 1, "failure": 0, "total": 1}, "results": [{"message": "success", "status": 200}]}
    with RawServer(answering(207, answer)) as server:
        row = {"partner_inference_id": "a", "ground_truth_timestamp": at, "late": False}
        make(server).send_rows(LABELS, [row])
    (sent,) = server.sent
    assert sent.line == f"PATCH /api/v3/models/{MODEL}/inferences HTTP/1.1"
    assert json.loads(sent.content) == [
        {
            "partner_inference_id": "a",
            "ground_truth_timestamp": "2013-01-03T05:00:00+00:00",
            "ground_truth_data": {"late": False},
        }
    ]


def test_a_batch_with_a_slash_stays_one_segment_of_the_path(make: Make) -> None:
    with RawServer(answering(200, {})) as server:
        make(server).close_batch("2013/01 03%", 12)
    (sent,) = server.sent
    assert sent.line == f"PATCH /api/v3/models/{MODEL}/batches/2013%2F01%2003%25 HTTP/1.1"
    assert json.loads(sent.content) == {"status": "uploaded", "total_record_count": 12}


def test_the_organisation_is_asked_for_where_none_is_given(make: Make) -> None:
    with RawServer(accept(3)) as server:
        make(server, organization=None).send(INFERENCES, upload())
    who, model = (one for one in server.asked if one.line.startswith("GET"))
    assert who.line == "GET /api/v3/users/me HTTP/1.1"
    assert "arthur-organization-id" not in who.headers
    assert model.line == "GET /api/v3/models/flights?id_type=partner_model_id&expand=attributes HTTP/1.1"
    assert model.headers["arthur-organization-id"] == ORGANIZATION
    assert server.sent[0].headers["arthur-organization-id"] == ORGANIZATION


def test_a_key_that_may_not_read_its_user_says_its_organisation_otherwise(make: Make) -> None:
    organizations = [ORGANIZATION]

    def on_get(exchange: Exchange) -> None:
        if exchange.line.startswith("GET /api/v3/users/me "):
            exchange.answer(403, {"message": "no"})
        elif "auth_info" in exchange.line:
            exchange.answer(200, {"organization_ids": organizations})
        else:
            about_the_model(exchange)

    with RawServer(accept(3), on_get=on_get) as server:
        make(server, organization=None).send(INFERENCES, upload())
        assert server.sent[0].headers["arthur-organization-id"] == ORGANIZATION
        organizations.append("another")
        with pytest.raises(Misconfigured, match="which one organisation"):
            make(server, organization=None).send(INFERENCES, upload())


# ------------------------------------------------------------------- what the SDK's own bulk path gets wrong


def test_after_a_reset_the_whole_file_goes_again(make: Make, waits: list[float]) -> None:
    with RawServer(cutting(1 << 20), cutting(1 << 20), accept(3)) as server:
        assert make(server).send(INFERENCES, upload(LARGE)).accepted == 3
    assert [sent.whole for sent in server.sent] == [False, False, True]
    assert LARGE in server.sent[-1].content
    assert len(waits) == 2


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_no_answer_to_a_whole_file_is_unknown_and_it_goes_once(make: Make, content: bytes) -> None:
    with RawServer(losing) as server, pytest.raises(Unknown, match="may have arrived"):
        make(server).send(INFERENCES, upload(content))
    assert [sent.whole for sent in server.sent] == [True]


def test_an_answer_that_does_not_come_in_time_is_unknown(make: Make) -> None:
    over = threading.Event()

    def silent(exchange: Exchange) -> None:
        exchange.read()
        over.wait(20)
        exchange.close()

    with RawServer(silent) as server:
        with pytest.raises(Unknown, match="no answer in time"):
            make(server, timeout=0.3).send(INFERENCES, upload())
        over.set()
    assert len(server.sent) == 1


def test_an_answer_that_trickles_ends_at_the_deadline(make: Make) -> None:
    over = threading.Event()

    def trickling(exchange: Exchange) -> None:
        exchange.read()
        exchange.sock.sendall(b"HTTP/1.1 207 Multi-Status\r\nContent-Length: 1000000\r\n\r\n")
        while not over.wait(0.02):
            exchange.sock.sendall(b" ")

    with RawServer(trickling) as server:
        with pytest.raises(Unknown):
            make(server, timeout=0.4).send(INFERENCES, upload())
        over.set()


def test_too_many_requests_wait_as_long_as_asked(make: Make, waits: list[float]) -> None:
    now = time.time()
    dated = {"Retry_After": formatdate(now + 40, usegmt=True), "Date": formatdate(now, usegmt=True)}
    steps = (
        answering(429, {}, Retry_After="7"),
        answering(429, {}, **dated),
        answering(429, {}, Retry_After="soon"),
        answering(429, {}),
        accept(3),
    )
    with RawServer(*steps) as server:
        make(server).send(INFERENCES, upload())
    assert waits == [7.5, 41.0, 2.0, 4.0]
    assert all(sent.whole and SMALL in sent.content for sent in server.sent)


def test_whoever_asks_for_an_hour_is_left_alone_for_an_hour(make: Make, waits: list[float]) -> None:
    with RawServer(answering(429, {}, Retry_After="3600")) as server, pytest.raises(Retryable) as raised:
        make(server).send(INFERENCES, upload())
    assert raised.value.retry_after == 3600.0
    assert waits == []


def test_a_server_error_after_the_whole_file_is_unknown_and_not_repeated(make: Make, waits: list[float]) -> None:
    for status in (500, 502, 503, 504):
        step = answering(status, {"message": "down"}, Retry_After="1")
        with RawServer(step) as server, pytest.raises(Unknown, match=f"{status} down"):
            make(server).send(INFERENCES, upload())
        assert len(server.sent) == 1
    assert waits == []


def test_a_server_error_before_the_end_of_the_file_is_repeated_with_ever_longer_waits(
    make: Make, waits: list[float]
) -> None:
    with RawServer(*[answering_early(503, {"message": "down"})] * 4, accept(3)) as server:
        assert make(server).send(INFERENCES, upload(LARGE)).accepted == 3
    assert waits == [0.5, 1.0, 2.0, 4.0]
    assert server.sent[-1].whole


def test_a_refused_file_says_why_and_the_next_one_goes(make: Make) -> None:
    said = {"message": "column 'x'   is\nmissing " + "and so on " * 100}
    with RawServer(accept(3), answering(400, said), accept(4)) as server:
        destination = make(server)
        assert destination.send(INFERENCES, upload()).accepted == 3
        with pytest.raises(Refused, match="column 'x' is missing") as raised:
            destination.send(INFERENCES, upload())
        assert len(raised.value.message) < 450
        assert destination.send(INFERENCES, upload(rows=4)).accepted == 4


@pytest.mark.parametrize("key", ["failures", "results"])
def test_rows_that_failed_are_counted_and_their_messages_kept(make: Make, key: str) -> None:
    with RawServer(answering(207, accepted(9, failures=7, key=key))) as server:
        receipt = make(server).send(INFERENCES, upload(rows=9))
    assert (receipt.accepted, receipt.failed) == (2, 7)
    assert receipt.messages == tuple(f"row is wrong in way {number}" for number in range(5))


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (200, accepted(3)),
        (201, accepted(3)),
        (202, accepted(3)),
        (204, b""),
        (207, accepted(2)),
        (207, accepted(4)),
        (207, {}),
        (207, []),
        (207, b"<html>fine</html>"),
        (207, b""),
        (207, {"counts": {"success": 3, "failure": 1, "total": 3}}),
        (207, {"counts": {"success": 4, "failure": -1, "total": 3}}),
        (207, {"counts": {"success": "3", "failure": 0, "total": 3}}),
        (207, {"counts": {"success": 3, "failure": 0}}),
        (207, {"counts": {"success": 0, "failure": 0, "total": 0}}),
        (207, {"counts": 3}),
    ],
)
def test_an_answer_that_does_not_add_up_is_not_believed(make: Make, status: int, content: object) -> None:
    with RawServer(answering(status, content)) as server, pytest.raises(Unknown):
        make(server).send(INFERENCES, upload())
    assert len(server.sent) == 1


@pytest.mark.parametrize(
    "results",
    [
        [],
        [{"message": "success", "status": 200}],
        [{"message": "success", "status": 200}, {"message": "bad", "status": 400}],
        ["success", "success"],
    ],
)
def test_results_that_do_not_name_each_row_are_not_believed(make: Make, results: list[object]) -> None:
    at = datetime(2013, 1, 3, 5, tzinfo=UTC)
    answer = {"counts": {"success": 2, "failure": 0, "total": 2}, "results": results}
    rows = [{"partner_inference_id": one, "inference_timestamp": at, "probability": 0.5} for one in "ab"]
    with RawServer(answering(207, answer)) as server, pytest.raises(Unknown):
        make(server).send_rows(INFERENCES, rows)


def test_rows_whose_request_is_refused_as_a_whole_are_found_by_halving(make: Make) -> None:
    def judge(exchange: Exchange) -> None:
        rows = json.loads(exchange.read())
        if any(row["partner_inference_id"] == "5" for row in rows):
            exchange.answer(400, {"message": "a row is malformed"})
        else:
            results = [{"message": "success", "status": 200}] * len(rows)
            exchange.answer(
                207, {"counts": {"success": len(rows), "failure": 0, "total": len(rows)}, "results": results}
            )

    at = datetime(2013, 1, 3, 5, tzinfo=UTC)
    rows = [{"partner_inference_id": str(n), "inference_timestamp": at, "probability": 0.5} for n in range(8)]
    with RawServer(*[judge] * 7) as server:
        answers = make(server).send_rows(INFERENCES, rows)
    assert [answer.accepted for answer in answers] == [number != 5 for number in range(8)]
    assert "malformed" in answers[5].message
    assert len(server.sent) == 7


def test_several_files_go_at_once(make: Make) -> None:
    together = threading.Barrier(4)

    def step(exchange: Exchange) -> None:
        exchange.read()
        together.wait(20)
        exchange.answer(207, accepted(3))

    with RawServer(*[step] * 8) as server:
        destination = make(server, connections=4)
        with ThreadPoolExecutor(8) as pool:
            receipts = list(pool.map(lambda _: destination.send(INFERENCES, upload()), range(8)))
    assert receipts == [Receipt(3, 0)] * 8
    assert server.connections <= 5


# ------------------------------------------------------------------------------------------ guard and staging


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_guard_that_raises_leaves_the_request_unfinished(make: Make, content: bytes) -> None:
    calls: list[None] = []

    def guard() -> float:
        calls.append(None)
        if len(calls) == 2:
            raise LeaseLost("another process took over")
        return unguarded()

    with RawServer(losing) as server, pytest.raises(LeaseLost):
        make(server).send(INFERENCES, upload(content, guard=guard))
    (sent,) = server.sent
    assert not sent.whole
    assert b"its end" not in sent.content


def test_a_guard_that_raises_at_once_sends_nothing(make: Make) -> None:
    def guard() -> float:
        raise LeaseLost("another process took over")

    with RawServer() as server, pytest.raises(LeaseLost):
        make(server).send(INFERENCES, upload(guard=guard))
    assert server.sent == []


class _Broken(io.BytesIO):
    def readinto(self, buffer: Any) -> int:
        if self.tell() > 1 << 20:
            raise BrokenPipeError(32, "the store went away")
        return super().readinto(buffer)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (lambda: io.BytesIO(LARGE[:-1]), "shorter"),
        (lambda: io.BytesIO(LARGE + b"!"), "longer"),
        (lambda: _Broken(LARGE), "the store went away"),
        (lambda: open("/no/such/file", "rb"), "No such file"),  # noqa: SIM115, PTH123
    ],
    ids=["short", "long", "broken", "absent"],
)
def test_a_file_that_is_not_what_was_staged_never_arrives(
    make: Make, file: Callable[[], IO[bytes]], said: str
) -> None:
    with RawServer(losing) as server, pytest.raises(Retryable, match=said):
        make(server).send(INFERENCES, Upload("a.parquet", 3, len(LARGE), file, unguarded))
    assert not any(sent.whole for sent in server.sent)


def test_a_file_without_readinto_goes_as_well(make: Make) -> None:
    class Plain:
        def __init__(self) -> None:
            self._file = io.BytesIO(LARGE)

        def read(self, size: int) -> bytes:
            return self._file.read(min(size, 10_007))

        def close(self) -> None:
            pass

    plain = Upload("a.parquet", 3, len(LARGE), Plain, unguarded)  # type: ignore[arg-type]
    with RawServer(accept(3)) as server:
        make(server).send(INFERENCES, plain)
    assert LARGE in server.sent[0].content


# --------------------------------------------------------------------------------------------- early answers


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Misconfigured), (403, Misconfigured), (404, Misconfigured), (413, Refused), (400, Refused)],
)
def test_an_answer_before_the_end_is_read_and_used(
    make: Make, status: int, kind: type[Exception], silent: bool
) -> None:
    over = threading.Event()
    step = answering_early(status, {"message": "said early"}, silent=over if silent else None)
    with RawServer(step) as server:
        with pytest.raises(kind, match="said early"):
            make(server).send(INFERENCES, upload(LARGE))
        over.set()
    assert len(server.sent) == 1


def test_an_error_that_came_before_the_last_bytes_left_is_repeated(make: Make, waits: list[float]) -> None:
    answered = threading.Event()
    calls: list[None] = []

    def guard() -> float:
        calls.append(None)
        if len(calls) == 2:
            assert answered.wait(20)
        return unguarded()

    def early(exchange: Exchange) -> None:
        exchange.read(1)
        exchange.answer(503, {"message": "down"})
        answered.set()
        exchange.read()
        exchange.close()

    with RawServer(early, accept(3)) as server:
        assert make(server).send(INFERENCES, upload(guard=guard)).accepted == 3
    assert not server.sent[0].whole
    assert len(waits) == 1


def test_a_server_that_pauses_is_waited_for(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "CONNECT_SECONDS", 0.1)

    def pausing(exchange: Exchange) -> None:
        time.sleep(0.4)
        accept(3)(exchange)

    with RawServer(pausing) as server:
        assert make(server, retries=0).send(INFERENCES, upload(LARGE)).accepted == 3


def test_a_server_that_reads_slowly_is_left_at_the_deadline(make: Make) -> None:
    def slow(exchange: Exchange) -> None:
        exchange.sock.settimeout(20)
        while exchange.sock.recv(1 << 18):
            time.sleep(0.02)
        exchange.close()

    with RawServer(slow) as server, pytest.raises(Retryable, match="no answer in time"):
        make(server, timeout=0.3, retries=0).send(INFERENCES, upload(LARGE))


def test_too_many_requests_said_early_is_heard(make: Make, waits: list[float]) -> None:
    with RawServer(answering_early(429, {}, Retry_After="9"), accept(3)) as server:
        make(server).send(INFERENCES, upload(LARGE))
    assert waits == [9.5]
    assert server.sent[1].whole


def test_a_yes_before_the_end_is_not_believed(make: Make) -> None:
    with RawServer(answering_early(207, accepted(3))) as server, pytest.raises(Unknown):
        make(server).send(INFERENCES, upload(LARGE))


def test_a_connection_with_half_a_request_on_it_is_not_used_again(make: Make) -> None:
    def early(exchange: Exchange) -> None:
        exchange.answer(400, {"message": "no"})
        exchange.over = True
        exchange.sock.settimeout(20)
        while exchange.sock.recv(1 << 20):
            pass

    with RawServer(early, accept(3)) as server:
        destination = make(server)
        with pytest.raises(Refused):
            destination.send(INFERENCES, upload(LARGE))
        destination.send(INFERENCES, upload())
    assert server.connections == 2


def test_an_interim_answer_does_not_stop_the_file(make: Make) -> None:
    def interim(exchange: Exchange) -> None:
        exchange.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        accept(3)(exchange)

    with RawServer(interim) as server:
        assert make(server).send(INFERENCES, upload(LARGE)).accepted == 3
    assert server.sent[0].whole


def test_a_server_that_stops_reading_is_left_at_the_deadline(make: Make) -> None:
    over = threading.Event()

    def stuck(exchange: Exchange) -> None:
        over.wait(20)
        exchange.close()

    with RawServer(stuck) as server:
        with pytest.raises(Retryable, match="no answer in time"):
            make(server, timeout=0.3, retries=0).send(INFERENCES, upload(LARGE))
        over.set()


# ------------------------------------------------------------------------------------------------ connections


def test_a_connection_is_kept_for_the_next_file(make: Make) -> None:
    with RawServer(accept(3), accept(3), accept(3)) as server:
        destination = make(server)
        for _ in range(3):
            destination.send(INFERENCES, upload())
    assert server.connections == 1


def test_a_kept_connection_that_the_server_closed_is_replaced(make: Make, waits: list[float]) -> None:
    closed = threading.Event()

    def and_close(exchange: Exchange) -> None:
        accept(3)(exchange)
        exchange.close()
        closed.set()

    with RawServer(and_close, accept(3)) as server:
        destination = make(server)
        destination.send(INFERENCES, upload())
        assert closed.wait(20)
        destination.send(INFERENCES, upload())
    assert server.connections == 2


def test_a_connection_that_was_idle_is_not_trusted_with_a_file(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IDLE_SECONDS", 0.0)
    with RawServer(accept(3), accept(3)) as server:
        destination = make(server)
        destination.send(INFERENCES, upload())
        destination.send(INFERENCES, upload())
    assert server.connections == 3


def test_a_name_that_does_not_resolve_is_retryable(make: Make, waits: list[float]) -> None:
    with pytest.raises(Retryable, match="does not resolve"):
        make(url="http://nowhere.invalid", retries=1).check(INFERENCES, {})
    assert len(waits) == 1


def test_a_server_without_http_is_unknown_once_it_has_the_file(make: Make) -> None:
    def other(exchange: Exchange) -> None:
        exchange.read()
        exchange.sock.sendall(b"220 smtp.example ready\r\n")
        exchange.close()

    with RawServer(other) as server, pytest.raises(Unknown):
        make(server).send(INFERENCES, upload())


# ----------------------------------------------------------------------------------- redirects, keys, secrets


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_file_never_follows_a_redirect(make: Make, status: int) -> None:
    with RawServer() as other, RawServer(answering(status, None, Location=f"{other.url}/api/v3")) as server:
        with pytest.raises(Misconfigured, match="not followed"):
            make(server).send(INFERENCES, upload())
        assert len(server.sent) == 1
    assert other.asked == []


def test_a_file_does_not_follow_a_redirect_within_its_origin_either(make: Make) -> None:
    with RawServer(answering(307, None, Location="/elsewhere"), accept(3)) as server:
        with pytest.raises(Misconfigured, match="not followed"):
            make(server).send(INFERENCES, upload())
        assert len(server.sent) == 1


def test_a_question_follows_within_its_origin_only(make: Make) -> None:
    with RawServer() as other:
        targets = ["/elsewhere", f"{other.url}/elsewhere"]

        def on_get(exchange: Exchange) -> None:
            if "/elsewhere" in exchange.line:
                about_the_model(exchange)
            else:
                exchange.answer(302, None, Location=targets[0])

        with RawServer(accept(3), on_get=on_get) as server:
            make(server).send(INFERENCES, upload())
            assert server.asked[1].line == "GET /elsewhere HTTP/1.1"
            assert server.asked[1].headers["authorization"] == KEY
            targets.pop(0)
            with pytest.raises(Misconfigured, match="not followed"):
                make(server).check(INFERENCES, {})
    assert other.asked == []


def test_redirects_in_a_circle_end(make: Make) -> None:
    with RawServer(on_get=lambda exchange: exchange.answer(302, None, Location="/again")) as server:
        with pytest.raises(Misconfigured, match="redirects"):
            make(server).check(INFERENCES, {})
        assert len(server.asked) == 4


def test_the_key_is_in_no_text_even_if_the_server_repeats_it(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    steps: list[Step] = [answering(status, {"message": f"{KEY} is wrong"}) for status in (400, 401, 403, 429, 500)]
    with RawServer(*steps, answering(207, accepted(3))) as server:
        destination = make(server, retries=0)
        for kind in (Refused, Misconfigured, Misconfigured, Retryable, Unknown):
            with pytest.raises(kind) as raised:
                destination.send(INFERENCES, upload())
            assert KEY not in f"{raised.value!r} {raised.value} {raised.getrepr()}"
        destination.send(INFERENCES, upload())
    options = ArthurOptions(url="https://arthur.example", api_key=KEY, model="m")
    assert KEY not in f"{options!r} {options} {destination!r} {vars(destination)}"
    assert KEY not in caplog.text


def test_a_netrc_does_not_replace_the_key(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with RawServer(accept(3)) as server:
        make(server).send(INFERENCES, upload())
    assert {one.headers["authorization"] for one in server.asked} == {KEY}


@pytest.mark.parametrize("key", ["", "  ", "two\nlines", "schlüssel"])
def test_a_key_that_cannot_be_one_is_named_without_showing_it(key: str) -> None:
    with pytest.raises(Misconfigured, match="api_key") as raised:
        ArthurOptions(url="https://arthur.example", api_key=key, model="m")
    assert "lines" not in str(raised.value)
    assert "schl" not in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        {"url": "arthur.example"},
        {"url": "ftp://arthur.example"},
        {"url": "https://"},
        {"url": "https://arthur.example:port"},
        {"url": "https://me:hidden@arthur.example"},
        {"url": "https://arthur.example?key=hidden"},
        {"organization": "acme"},
        {"model": " "},
        {"timeout": 0.0},
        {"retries": -1},
        {"connections": 0},
    ],
)
def test_options_that_cannot_be_are_misconfigured(options: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured) as raised:
        ArthurOptions(**{"url": "https://arthur.example", "api_key": KEY, "model": "m", **options})
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://arthur.example",
        "https://arthur.example/",
        "https://arthur.example/api/v3",
        "https://arthur.example/api/v3/",
    ],
)
def test_the_api_s_path_is_added_once(url: str) -> None:
    assert ArthurOptions(url=url, api_key=KEY, model="m").base == "https://arthur.example/api/v3"


# ----------------------------------------------------------------------------------------------- TLS, proxies


def test_tls_needs_an_authority_that_is_trusted(make: Make, waits: list[float]) -> None:
    with RawServer(accept(3), tls=True) as server:
        with pytest.raises(Misconfigured, match="ca_file"):
            make(server).send(INFERENCES, upload())
        make(server, ca_file=TLS / "authority.pem").send(INFERENCES, upload(LARGE))
    assert LARGE in server.sent[0].content
    assert waits == []


def test_an_authority_from_the_environment_is_trusted(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(TLS / "authority.pem"))
    with RawServer(accept(3), tls=True) as server:
        assert make(server).send(INFERENCES, upload()).accepted == 3


@pytest.mark.parametrize("content", [None, "not a certificate"], ids=["absent", "other"])
def test_a_file_of_authorities_that_is_none_is_named(make: Make, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "authorities.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Misconfigured, match=r"authorities\.pem"):
        make(url="https://arthur.example", ca_file=path)


def test_an_environment_s_authorities_that_are_absent_are_named(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/authorities.pem")
    with RawServer(tls=True) as server, pytest.raises(Misconfigured, match=r"/no/such/authorities\.pem"):
        make(server).check(INFERENCES, {})


def test_a_server_without_tls_is_retryable(make: Make, waits: list[float]) -> None:
    with RawServer() as server, pytest.raises(Retryable):
        make(url=server.url.replace("http:", "https:"), retries=1, timeout=0.3).check(INFERENCES, {})
    assert len(waits) == 1


def test_over_tls_an_answer_before_the_end_is_read_and_used(make: Make) -> None:
    def early(exchange: Exchange) -> None:
        exchange.answer(413, {"message": "said early"})
        exchange.close()

    with RawServer(early, tls=True) as server, pytest.raises(Refused, match="said early"):
        make(server, ca_file=TLS / "authority.pem").send(INFERENCES, upload(LARGE))


def test_over_tls_a_reset_before_the_end_is_tried_again(make: Make) -> None:
    with RawServer(cutting(1 << 20), accept(3), tls=True) as server:
        make(server, ca_file=TLS / "authority.pem").send(INFERENCES, upload(LARGE))
    assert [sent.whole for sent in server.sent] == [False, True]


def test_plain_calls_go_through_the_environment_s_proxy(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(accept(3)) as server, Proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        make(server).send(INFERENCES, upload())
    assert proxy.lines[-1] == f"POST {server.url}/api/v3/models/{MODEL}/inferences/file HTTP/1.1"
    assert SMALL in server.sent[0].content


def test_calls_over_tls_tunnel_through_the_environment_s_proxy(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(accept(3), tls=True) as server, Proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        destination = make(server, ca_file=TLS / "authority.pem")
        destination.send(INFERENCES, upload(LARGE))
        destination.close()
    assert [line.rpartition(" ")[0] for line in proxy.lines] == [f"CONNECT 127.0.0.1:{server.port}"]
    assert LARGE in server.sent[0].content


def test_a_proxy_that_is_away_is_retryable_and_its_password_is_not_shown(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and never listens
        monkeypatch.setenv("HTTP_PROXY", f"http://me:hidden@127.0.0.1:{bound.getsockname()[1]}")
        with pytest.raises(Retryable) as raised:
            make(url="http://arthur.example", retries=0).check(INFERENCES, {})
    assert "hidden" not in str(raised.value)


# --------------------------------------------------------------------------------------------------- questions


@pytest.mark.parametrize(
    "content",
    [
        b"<html>",
        [],
        {},
        {"query_result": {}},
        {"query_result": [{"bucket": "2013-01-03T05:00:00.000Z", "rows": -1}]},
        {"query_result": [{"bucket": "2013-01-03T05:00:00.000Z", "rows": "3"}]},
        {"query_result": [{"bucket": "2013-01-03T05:30:00.000Z", "rows": 3}]},
        {"query_result": [{"bucket": "2013-01-04T05:00:00.000Z", "rows": 3}]},
        {"query_result": [{"bucket": "yesterday", "rows": 3}]},
        {"query_result": [{"bucket": "2013-01-03T05:00:00.000Z", "rows": 3}] * 2},
    ],
)
def test_counts_that_make_no_sense_are_not_believed(make: Make, content: object) -> None:
    hour = int(datetime(2013, 1, 3, 5, tzinfo=UTC).timestamp()) // 3600
    with RawServer(answering(200, content)) as server, pytest.raises(Retryable):
        make(server, retries=0).counts(INFERENCES, Range(hour, hour + 1))


def test_a_list_of_ids_that_was_cut_short_is_not_believed(make: Make) -> None:
    hour = int(datetime(2013, 1, 3, 5, tzinfo=UTC).timestamp()) // 3600
    counted = {"query_result": [{"bucket": "2013-01-03T05:00:00.000Z", "rows": 3}]}
    listed = {"query_result": [{"partner_inference_id": "a"}, {"partner_inference_id": "b"}]}
    with RawServer(answering(200, counted), answering(200, listed)) as server:
        window = Range(hour * 3_600_000_000, (hour + 1) * 3_600_000_000)
        with pytest.raises(Retryable, match="counts 3 rows and lists only 2"):
            list(make(server).ids(INFERENCES, window))
    assert server.sent[1].headers["content-type"] == "application/json"
    assert server.sent[1].headers["arthur-organization-id"] == ORGANIZATION
    question = json.loads(server.sent[1].content)
    assert question == {
        "select": [{"property": "partner_inference_id"}],
        "filter": [
            {"property": "inference_timestamp", "comparator": "gte", "value": "2013-01-03T05:00:00.000Z"},
            {"property": "inference_timestamp", "comparator": "lt", "value": "2013-01-03T06:00:00.000Z"},
        ],
    }


def test_labels_are_asked_for_with_their_values(make: Make) -> None:
    hour = int(datetime(2013, 1, 3, 5, tzinfo=UTC).timestamp()) // 3600
    counted = {"query_result": [{"bucket": "2013-01-03T05:00:00.000Z", "rows": 1}]}
    shown = {"partner_inference_id": "a", "ground_truth_timestamp": "2013-01-03T05:00:00.250Z", "late": False}
    with RawServer(answering(200, counted), answering(200, {"query_result": [shown]})) as server:
        (table,) = make(server).labels(Range(hour * 3_600_000_000, (hour + 1) * 3_600_000_000))
    assert table.to_pylist() == [
        shown | {"ground_truth_timestamp": datetime(2013, 1, 3, 5, 0, 0, 250_000, tzinfo=UTC)}
    ]
    assert json.loads(server.sent[1].content) == {
        "select": [
            {"property": "partner_inference_id"},
            {"property": "ground_truth_timestamp"},
            {"property": "late"},
        ],
        "from": "ground_truth",
        "filter": [
            {"property": "ground_truth_timestamp", "comparator": "gte", "value": "2013-01-03T05:00:00.000Z"},
            {"property": "ground_truth_timestamp", "comparator": "lt", "value": "2013-01-03T06:00:00.000Z"},
        ],
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"late": 0}, "a value of late in the platform's answer is no BOOLEAN"),
        ({"late": "false"}, "a value of late in the platform's answer is no BOOLEAN"),
        ({"partner_inference_id": 7}, "not a text"),
        ({"ground_truth_timestamp": None}, "makes no sense"),
    ],
)
def test_labels_that_make_no_sense_are_asked_for_again_later(
    make: Make, changes: Mapping[str, object], message: str
) -> None:
    counted = {"query_result": [{"bucket": "2013-01-03T05:00:00.000Z", "rows": 1}]}
    shown = {"partner_inference_id": "a", "ground_truth_timestamp": "2013-01-03T05:00:00.000Z", "late": None}
    start = int(datetime(2013, 1, 3, 5, tzinfo=UTC).timestamp()) * 1_000_000
    answers = [answering(200, counted), answering(200, {"query_result": [{**shown, **changes}]})]
    with RawServer(*answers) as server, pytest.raises(Retryable, match=message):
        list(make(server).labels(Range(start, start + 1)))


@pytest.mark.parametrize(
    ("value_type", "given", "shown"),
    [
        ("INTEGER", 1.0, 1),
        ("INTEGER", 1.5, None),
        ("INTEGER", True, None),
        ("INTEGER", float("inf"), None),
        ("INTEGER", 2**63, None),
        ("FLOAT", 0, 0.0),
        ("FLOAT", False, None),
        ("STRING", "", ""),
        ("STRING", 5, None),
        ("TIMESTAMP", "yesterday", None),
    ],
)
def test_a_label_is_of_its_attributes_type_or_not_believed(value_type: str, given: object, shown: object) -> None:
    model = Model(MODEL, "Ready", False, {"gt": Attribute("gt", value_type, "GROUND_TRUTH")})
    row = {"partner_inference_id": "a", "ground_truth_timestamp": "2013-01-03T05:00:00Z", "gt": given}
    answers = iter(([{"bucket": "1970-01-01T00:00:00Z", "rows": 1}], [row]))
    asked = labels(model, Range(0, 1), lambda _: next(answers))
    if shown is None:
        with pytest.raises(Retryable, match="makes no sense" if value_type == "TIMESTAMP" else f"no {value_type}"):
            next(asked)
    else:
        (found,) = next(asked).column("gt").to_pylist()
        assert (found, type(found)) == (shown, type(shown))


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"status": 404, "message": "?"}, True),
        ({"status": 400, "message": "Inference with partner_inference_id a does not exist"}, True),
        ({"status": 400, "message": "no inference found"}, True),
        ({"status": 400, "message": "late must be a BOOLEAN"}, False),
        ({"status": 200, "message": "success"}, False),
    ],
)
def test_a_label_without_an_inference_is_told_from_one_that_is_wrong(
    make: Make, result: Mapping[str, object], expected: bool
) -> None:
    good = int(result["status"] == 200)
    answer = {"counts": {"success": good, "failure": 1 - good, "total": 1}, "results": [result]}
    row = {
        "partner_inference_id": "a",
        "ground_truth_timestamp": datetime(2013, 1, 3, 5, tzinfo=UTC),
        "late": False,
    }
    with RawServer(answering(207, answer)) as server:
        (told,) = make(server).send_rows(LABELS, [row])
    assert (told.accepted, told.no_inference) == (bool(good), expected)
