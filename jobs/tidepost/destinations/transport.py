"""HTTP calls to one platform: pooled, bounded in time and memory, with credentials for one origin only.

It judges one thing, on which everything else rests: whether a call that failed may have landed.
"""

from __future__ import annotations

import json
import logging
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError, LocationParseError, NameResolutionError
from urllib3.util import Timeout

from tidepost import __version__
from tidepost.destinations.body import Body
from tidepost.destinations.connection import ListeningAdapter
from tidepost.errors import Misconfigured

CONNECT_SECONDS: Final = 10.0
LARGEST_ANSWER: Final = 64 << 20
"""Bytes of an answer that are read; a longer one is an answer that was not understood."""
HOPS: Final = 3

_log = logging.getLogger("tidepost.destinations")


class CallFailed(Exception):
    """No answer came.

    landed: whether the call may have landed; False is proven
    """

    def __init__(self, reason: str, *, landed: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.landed = landed


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    whole: whether the whole request had left before the answer was taken; False proves that it did not land
    """

    status: int
    headers: Mapping[str, str]
    content: bytes
    whole: bool = True

    def json(self) -> Any:
        """The content as JSON, or None where it is not JSON."""
        try:
            return json.loads(self.content)
        except ValueError:
            return None


class Transport:
    """Calls below one base URL.

    headers: sent with every call, and never to another origin; none of them shows in a text or log of ours
    timeout: seconds of one call, all in all, from the connection to the last byte of the answer
    connections: kept alive, and used at most, at one time
    ca_file: certificates to trust, in place of the environment's (`REQUESTS_CA_BUNDLE`) and the built-in ones

    Proxies and certificates come from the environment, as requests reads it; `.netrc` is not read, as it would
    replace the key. Safe for use by several threads.
    """

    def __init__(
        self,
        base: str,
        headers: Mapping[str, str],
        *,
        timeout: float,
        connections: int,
        ca_file: Path | None = None,
    ) -> None:
        self.base = base
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"tidepost/{__version__}",
            **headers,
        }
        self._timeout = timeout
        self._verify: bool | str = True if ca_file is None else str(_readable(ca_file))
        self._session = requests.Session()
        self._adapter = ListeningAdapter(connections, connections, pool_block=True)

    def close(self) -> None:
        self._adapter.close()
        self._session.close()

    def call(
        self, method: str, path: str, body: Body | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One call, tried once. A GET follows redirects within its origin, at most three; nothing else does.

        Raises CallFailed; Misconfigured where no call can be made at all (a proxy or a certificate that is not
        one, a certificate of the server that is not trusted); and whatever the body raises, in which case the
        connection is closed and the request stays unfinished.
        """
        deadline = time.monotonic() + self._timeout
        url = self.base + path
        answer = self._once(method, url, body, headers or {}, deadline)
        for _ in range(HOPS):
            target = urljoin(url, answer.headers.get("Location", ""))
            if method != "GET" or answer.status not in (301, 302, 303, 307, 308) or _origin(target) != _origin(url):
                break
            url = target
            answer = self._once(method, url, None, headers or {}, deadline)
        return answer

    def _once(self, method: str, url: str, body: Body | None, headers: Mapping[str, str], deadline: float) -> Answer:
        started = time.monotonic()
        try:
            answer = self._exchange(method, url, body, headers, deadline)
        except (requests.RequestException, HTTPError, TimeoutError) as error:
            _raise_if_misconfigured(error)
            landed = body is None or body.finishing
            raise CallFailed(_reason(error), landed=landed) from error
        taken = time.monotonic() - started
        _log.debug("%s %s: %d after %.3f s", method, urlsplit(url).path, answer.status, taken)
        return answer

    def _exchange(
        self, method: str, url: str, body: Body | None, headers: Mapping[str, str], deadline: float
    ) -> Answer:
        left = max(deadline - time.monotonic(), 0.001)
        request = requests.Request(method, url, headers={**self._headers, **headers}, data=body).prepare()
        if body is not None:
            body.deadline = deadline
        environment = self._session.merge_environment_settings(url, {}, True, self._verify, None)
        found = environment["verify"]
        try:
            response = self._adapter.send(
                request,
                stream=True,
                timeout=Timeout(connect=min(CONNECT_SECONDS, left), read=left, total=left),  # type: ignore[arg-type]
                verify=True if found is None else found,
                proxies=environment["proxies"],
            )
        except requests.RequestException:
            raise
        except OSError as error:
            raise Misconfigured(f"certificates cannot be read: {error}", hint="See REQUESTS_CA_BUNDLE.") from error
        try:
            content = b"".join(_content(response, deadline))
        except BaseException:
            response.close()
            raise
        return Answer(response.status_code, response.headers, content, body is None or body.finishing)


def _content(response: requests.Response, deadline: float) -> Iterator[bytes]:
    size = 0
    while block := response.raw.read1(1 << 16):
        size += len(block)
        if size > LARGEST_ANSWER:
            raise HTTPError(f"the answer is longer than {LARGEST_ANSWER} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("the answer did not end in time")
        yield block


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _readable(ca_file: Path) -> Path:
    try:
        ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:
        raise Misconfigured(f"{ca_file} is no file of certificates: {error.strerror or error}") from error
    return ca_file


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what lies behind it, as requests and urllib3 wrap it, outermost first."""
    seen: list[BaseException] = []
    todo = [error]
    while todo:
        one = todo.pop(0)
        if one in seen:
            continue
        seen.append(one)
        yield one
        inner = [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
        todo.extend(cause for cause in inner if isinstance(cause, BaseException))


def _raise_if_misconfigured(error: BaseException) -> None:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise Misconfigured(
                f"the server's certificate is not trusted: {cause.verify_message}",
                hint="Name the file of the authority's certificates as `ca_file`, or in REQUESTS_CA_BUNDLE.",
            ) from error
        # InvalidURL and its kin are ValueErrors; an answer that is not HTTP can be one, too, but not of theirs.
        if isinstance(cause, requests.exceptions.InvalidProxyURL):
            raise Misconfigured("the proxy's URL is not one; see HTTP_PROXY and HTTPS_PROXY") from error
        if isinstance(cause, (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL, LocationParseError)):
            raise Misconfigured(f"no call can be made: {cause}") from error


def _reason(error: BaseException) -> str:
    """Why no answer came, in a few words, without URL, proxy or header."""
    causes = list(_causes(error))
    if any(isinstance(cause, NameResolutionError) for cause in causes):
        return "the host's name does not resolve"
    if any(isinstance(cause, (TimeoutError, requests.Timeout)) for cause in causes):
        return "no answer in time"
    for cause in causes:
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException) and cause.strerror:
            return cause.strerror.lower()
    deepest = causes[-1]
    return f"{type(deepest).__name__}: {str(deepest)[:200]}"
