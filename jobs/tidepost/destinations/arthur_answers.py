"""What an answer of Arthur API v3 means for what was sent. Nothing is believed that does not add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from tidepost.destinations.backoff import NotLanded, retry_after
from tidepost.destinations.transport import Answer
from tidepost.errors import Misconfigured, Refused, Unknown
from tidepost.model import Receipt

ACCEPTED: Final = 207
LONGEST_MESSAGE: Final = 300
FEW: Final = 5

_TOO_MANY: Final = frozenset({425, 429})
_INCOMPLETE: Final = 408


@dataclass(frozen=True, slots=True)
class Reading:
    """How the answers of one account are read.

    platform: its name, for messages
    secret:   never repeated, should the server do so (if it has six characters or more, as a key does)
    """

    platform: str
    secret: str = field(repr=False)

    def words(self, text: object) -> str:
        """The server's words in one line, at most 300 characters."""
        line = " ".join(str(text).split())
        if len(self.secret) >= 6:
            line = line.replace(self.secret, "…")
        return line if len(line) <= LONGEST_MESSAGE else line[: LONGEST_MESSAGE - 1] + "…"

    def said(self, answer: Answer) -> str:
        """The status and the server's own words on it."""
        content = answer.json()
        text: object = None
        if isinstance(content, Mapping):
            text = next((content[key] for key in ("message", "detail", "error", "errors") if content.get(key)), None)
        text = text or answer.content[:4096].decode(errors="replace")
        words = self.words(text)
        return f"{answer.status} {words}" if words else str(answer.status)

    def expect(self, answer: Answer, *, status: int, what: str, harmless: bool = False) -> Answer:
        """The answer, if its status is `status`.

        harmless: the call may be repeated, whatever became of it
        Raises NotLanded (429; with an answer that came before the last bytes left, or a harmless call, also 5xx),
        Unknown (5xx, and any other success), Misconfigured (also every refusal of a harmless call), Refused.
        """
        code = answer.status
        if code == status and (answer.whole or harmless):
            return answer
        if code in _TOO_MANY:
            raise NotLanded(f"too many requests ({self.said(answer)})", retry_after=retry_after(answer.headers))
        if code >= 500 or code == _INCOMPLETE:
            if harmless or not answer.whole:
                raise NotLanded(self.said(answer), retry_after=retry_after(answer.headers))
            raise Unknown(f"{self.platform} answered {self.said(answer)} to {what}: it may have arrived")
        if code >= 300:
            self._raise_refusal(answer, what, harmless=harmless)
        if harmless:
            raise NotLanded(f"answered {code}, where {status} was expected")
        if not answer.whole:
            raise Unknown(f"{self.platform} answered {code} to {what} before it had all of it")
        raise Unknown(f"{self.platform} answered {code} to {what}, where only {status} says that it was accepted")

    def _raise_refusal(self, answer: Answer, what: str, *, harmless: bool) -> None:
        code, said = answer.status, self.said(answer)
        if code < 400:
            target = urlsplit(answer.headers.get("Location", ""))
            where = f" to {target.scheme}://{target.hostname}" if target.hostname else ""
            raise Misconfigured(
                f"{self.platform} redirects {what}{where} ({code}), which is not followed: the key stays here",
                hint="Correct the destination's `url`.",
            )
        if code in (401, 403):
            raise Misconfigured(
                f"{self.platform} refuses the key for {what}: {said}",
                hint="See the variable that `api_key` refers to, the key's rights, and `organization`.",
            )
        if code == 407:
            raise Misconfigured("the proxy wants credentials", hint="See HTTP_PROXY and HTTPS_PROXY.")
        if code == 404:
            raise Misconfigured(
                f"{self.platform} does not know the model of {what}: {said}",
                hint="See the destination's `model` and `url`.",
            )
        if harmless:
            raise Misconfigured(f"{self.platform} refuses {what}: {said}")
        if code == 413:
            raise Refused(
                f"{self.platform} refuses {what} as too large: {said}", hint="Lower `staging.file_bytes` of the job."
            )
        raise Refused(f"{self.platform} refuses {what}: {said}")

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
