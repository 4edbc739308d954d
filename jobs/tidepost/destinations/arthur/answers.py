"""What an answer of Arthur API v3 means for what was sent. Nothing is believed that does not add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tidepost.destinations.answers import Reading
from tidepost.destinations.transport import Answer
from tidepost.errors import Unknown
from tidepost.model import Receipt

ACCEPTED: Final = (207,)
FEW: Final = 5


def reading(platform: str, secret: str) -> ArthurReading:
    """How the answers of one account at Arthur are read."""
    return ArthurReading(
        platform,
        secret,
        key_hint="See the variable that `api_key` refers to, the key's rights, and `organization`.",
        absent="does not know the model",
        absent_hint="See the destination's `model` and `url`.",
        size_hint="Lower `staging.file_bytes` of the job.",
    )


class ArthurReading(Reading):
    """With the counts that Arthur answers. Nothing is believed that does not add up."""

    def receipt(self, answer: Answer, *, rows: int, what: str) -> Receipt:
        """The counts of a 207. Raises Unknown where they are missing or do not add up to `rows`."""
        content = answer.json()
        counts = content.get("counts") if isinstance(content, Mapping) else None
        numbers = [counts.get(key) for key in ("success", "failure", "total")] if isinstance(counts, Mapping) else []
        match numbers:
            case [int(success), int(failure), int(total)] if (
                success >= 0 and failure >= 0 and success + failure == total == rows
            ):
                return Receipt(success, failure, self._messages(content))
        seen = ", ".join(str(number) for number in numbers) or "no counts"
        raise Unknown(
            f"{self.platform} accepted {what}, but its counts are not believed: "
            f"{self.words(seen)} (success, failure, total) for {rows} rows"
        )

    def _messages(self, content: Mapping[str, Any]) -> tuple[str, ...]:
        entries = [*entries_of(content, "failures"), *entries_of(content, "results")]
        failed = (one.get("message") for one in entries if not succeeded(one))
        return tuple(dict.fromkeys(self.words(message) for message in failed if message))[:FEW]


def entries_of(content: object, key: str) -> Sequence[Mapping[str, Any]]:
    """The entries below a key of an answer that are objects."""
    found = content.get(key) if isinstance(content, Mapping) else None
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def succeeded(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of `results` or `failures` says that its row was accepted."""
    status = entry.get("status")
    return isinstance(status, int) and 200 <= status < 300


def already_there(entry: Mapping[str, Any]) -> bool:
    """Whether an entry says that its row's id is there already: status 409, or words to that effect."""
    if succeeded(entry):
        return False
    message = str(entry.get("message", "")).lower()
    return entry.get("status") == 409 or any(words in message for words in ("already exist", "duplicate"))


def no_inference(entry: Mapping[str, Any]) -> bool:
    """Whether an entry says of a label that no inference has its id: status 404, or words to that effect."""
    if succeeded(entry):
        return False
    message = str(entry.get("message", "")).lower()
    missing = any(words in message for words in ("not found", "not exist", "no inference", "unknown inference"))
    return entry.get("status") == 404 or ("inference" in message and missing)
