"""What a job says of its Arize destination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tidepost.destinations.arize.schema import ENVIRONMENTS, MODEL_TYPES
from tidepost.destinations.arthur.options import is_url
from tidepost.errors import Misconfigured

API: Final = "/v1"


@dataclass(frozen=True, slots=True)
class ArizeOptions:
    """Where to send, as whom, and how patiently. Raises Misconfigured for what cannot be.

    url:          the platform's address; `/v1` is added where it is not there
    api_key:      shows in no text; white space around it is dropped
    space_id:     the space that the model belongs to
    version:      of the model, for predictions; actuals join whatever it is
    environment, model_type: see `arize_schema`
    batch_id:     of rows that have none of their own; a validation set needs one
    predictions:  the staged columns that are predictions, in the job's order
    inputs, non_inputs: the staged columns that are features, and tags, unless they are named otherwise
    prediction_label, prediction_score, actual_label, actual_score, group, rank: columns, empty where there is none
    shap:         feature → column of its SHAP values
    request_rows, request_bytes: at most in one request (a batch of rows is not split for its bytes)
    timeout:      seconds of one request, all in all
    retries:      attempts after the first, of what provably did not land
    connections:  at most open at a time
    ca_file:      certificates of authorities to trust, in place of all others
    name:         of its deliveries in the ledger
    """

    url: str
    api_key: str = field(repr=False)
    space_id: str
    model: str
    version: str = ""
    environment: str = "production"
    model_type: str = "regression"
    batch_id: str = ""
    predictions: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    non_inputs: tuple[str, ...] = ()
    prediction_label: str = ""
    prediction_score: str = ""
    actual_label: str = ""
    actual_score: str = ""
    group: str = ""
    rank: str = ""
    shap: Mapping[str, str] = field(default_factory=dict)
    request_rows: int = 500_000
    request_bytes: int = 512_000_000
    timeout: float = 300.0
    retries: int = 5
    connections: int = 4
    ca_file: Path | None = None
    name: str = "arize"

    def __post_init__(self) -> None:
        if any(mark in self.url for mark in "@?#") or not is_url(self.url):
            raise Misconfigured(
                "`url` of arize is not one, or holds a user, password, query or fragment",
                hint="Write it as https://host.",
            )
        for key in ("api_key", "space_id"):
            value = getattr(self, key).strip()
            if not (value and value.isascii() and value.isprintable()):
                raise Misconfigured(
                    f"`{key}` of arize is empty or holds characters that none has",
                    hint="See the variable that it refers to.",
                )
        if not self.model.strip():
            raise Misconfigured("`model` of arize is empty")
        if self.environment not in ENVIRONMENTS or self.model_type not in MODEL_TYPES:
            raise Misconfigured(f"arize knows no {self.environment!r} or no {self.model_type!r}")
        if min(self.timeout, self.connections, self.request_rows, self.request_bytes) <= 0 or self.retries < 0:
            raise Misconfigured("`timeout`, `connections` and requests of arize must be above 0, `retries` from 0")

    @property
    def base(self) -> str:
        """The address below which all paths are."""
        url = self.url.rstrip("/")
        return url if url.endswith(API) else url + API
