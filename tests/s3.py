"""An S3 server for tests: a real one, of the session's own, on a port of this host, gone at its end.

place = new_place()   # `s3://…`, of a bucket with nothing in it; of a new one each time

While a test uses it, boto3 finds the server and its credentials in the environment, and nothing else there.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
import requests
from tests.environment import environment

from tidepost.s3.connection import Store

NewPlace = Callable[[], str]

SECRET: Final = "not-to-be-seen-anywhere"
SECONDS: Final = 30.0
_numbers = itertools.count(1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


class S3Server:
    """A server in a folder of its own, which outlives its process."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tidepost-s3-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """What boto3 is to find."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": str(self.folder / "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "no-credentials"),
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "SERVICES": "s3",
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(self.folder / "data"),
            "PATH": os.environ["PATH"],
            "TMPDIR": str(self.folder),
        }
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [environment("s3-server") / "ministack"], cwd=self.folder, env=settings, stdout=log, stderr=log
            )
        until = time.monotonic() + SECONDS
        while True:
            try:
                requests.get(self.url, timeout=SECONDS)
            except requests.ConnectionError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < until, (self.folder / "log").read_text()
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Stop it; what it holds stays."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(SECONDS)

    def new_place(self) -> str:
        """A new bucket's address."""
        bucket = f"bucket-{os.getpid()}-{next(_numbers)}"
        Store(bucket).client.create_bucket(Bucket=bucket)
        return f"s3://{bucket}/some/place"


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server for the block."""
    server = S3Server()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder)


@pytest.fixture(scope="session")
def _s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The session's server, as boto3 finds it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in _s3.env.items():
        monkeypatch.setenv(name, value)
    return _s3


@pytest.fixture
def new_place(s3: S3Server) -> NewPlace:
    """Makes places in S3 that hold nothing, each in a bucket of its own; gives their addresses."""
    return s3.new_place
