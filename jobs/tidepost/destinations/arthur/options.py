"""What a job says of its Arthur destination."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from tidepost.errors import Misconfigured

API: Final = "/api/v3"


@dataclass(frozen=True, slots=True)
class ArthurOptions:
    """Where to send, as whom, and how patiently. Raises Misconfigured for what cannot be.

    url:          the platform's address; `/api/v3` is added. Without TLS the key and the rows can be read on the
                  way: plain `http` is taken as it is, for networks that are private
    api_key:      shows in no text; white space around it is dropped
    organization: its UUID, or None: asked for
    model:        the model's id, or the partner model id
    model_is_id:  which of the two; None: its id where it looks like one and is known, else its partner model id
    batches:      every file is sent with a batch id
    timeout:      seconds of one request, all in all
    retries:      attempts after the first, of what provably did not land
    connections:  at most open at a time
    ca_file:      certificates of authorities to trust, in place of all others
    loading:      seconds that the platform may take to load what it accepted
    name:         of its deliveries in the ledger
    """

    url: str
    api_key: str = field(repr=False)
    model: str
    organization: str | None = None
    model_is_id: bool | None = None
    batches: bool = False
    timeout: float = 300.0
    retries: int = 5
    connections: int = 4
    ca_file: Path | None = None
    loading: float = 3600.0
    name: str = "arthur"

    def __post_init__(self) -> None:
        if any(mark in self.url for mark in "@?#"):
            raise Misconfigured("`url` of arthur must hold no user, password, query or fragment")
        if not is_url(self.url):
            raise Misconfigured(f"`url` of arthur is not one: {self.url!r}", hint="Write it as https://host.")
        key = self.api_key.strip()
        if not (key and key.isascii() and key.isprintable()):
            raise Misconfigured(
                "`api_key` of arthur is empty or holds characters that no key has",
                hint="See the variable that it refers to.",
            )
        if self.organization is not None and not is_uuid(self.organization):
            raise Misconfigured(f"`organization` of arthur is not a UUID: {self.organization!r}")
        if not self.model.strip():
            raise Misconfigured("`model` of arthur is empty")
        if not (self.timeout > 0 and self.retries >= 0 and self.connections > 0 and self.loading >= 0):
            raise Misconfigured(
                "`timeout` and `connections` of arthur must be above 0, `retries` and `loading` from 0"
            )

    @property
    def base(self) -> str:
        """The address below which all paths are."""
        url = self.url.rstrip("/")
        return url if url.endswith(API) else url + API


def is_url(text: str) -> bool:
    """Whether a text is an http or https URL with a host."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def is_uuid(text: str) -> bool:
    """Whether a text is a UUID in its usual form."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
