"""What an answer over HTTP means for what was sent. Nothing is believed that does not say so."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from tidepost.destinations.backoff import NotLanded, retry_after
from tidepost.destinations.transport import Answer
from tidepost.errors import Misconfigured, Refused, Unknown

LONGEST_MESSAGE: Final = 300

_TOO_MANY: Final = frozenset({425, 429})
_INCOMPLETE: Final = 408


@dataclass(frozen=True, slots=True)
class Reading:
    """How the answers of one account are read.

    platform: its name, for messages
    secret:   never repeated, should the server do so (if it has six characters or more, as a key does)
    key_hint, absent, absent_hint, size_hint: what to do about a refused key; what is not there where a 404 comes, and
              what to do about it; and about a body that is too large
    """

    platform: str
    secret: str = field(repr=False)
    key_hint: str
    absent: str
    absent_hint: str
    size_hint: str

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

    def expect(self, answer: Answer, *, status: Collection[int], what: str, harmless: bool = False) -> Answer:
        """The answer, if its status is one of `status`.

        harmless: the call may be repeated, whatever became of it
        Raises NotLanded (429; with an answer that came before the last bytes left, or a harmless call, also 5xx),
        Unknown (5xx, and any other success), Misconfigured (also every refusal of a harmless call), Refused.
        """
        code = answer.status
        if code in status and (answer.whole or harmless):
            return answer
        if code in _TOO_MANY:
            raise NotLanded(f"too many requests ({self.said(answer)})", retry_after=retry_after(answer.headers))
        if code >= 500 or code == _INCOMPLETE:
            if harmless or not answer.whole:
                raise NotLanded(self.said(answer), retry_after=retry_after(answer.headers))
            raise Unknown(f"{self.platform} answered {self.said(answer)} to {what}: it may have arrived")
        if code >= 300:
            self._raise_refusal(answer, what, harmless=harmless)
        wanted = " or ".join(map(str, status))
        if harmless:
            raise NotLanded(f"answered {code}, where {wanted} was expected")
        if not answer.whole:
            raise Unknown(f"{self.platform} answered {code} to {what} before it had all of it")
        raise Unknown(f"{self.platform} answered {code} to {what}, where only {wanted} says that it was accepted")

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
            raise Misconfigured(f"{self.platform} refuses the key for {what}: {said}", hint=self.key_hint)
        if code == 407:
            raise Misconfigured("the proxy wants credentials", hint="See HTTP_PROXY and HTTPS_PROXY.")
        if code == 404:
            raise Misconfigured(f"{self.platform} {self.absent} of {what}: {said}", hint=self.absent_hint)
        if harmless:
            raise Misconfigured(f"{self.platform} refuses {what}: {said}")
        if code == 413:
            raise Refused(f"{self.platform} refuses {what} as too large: {said}", hint=self.size_hint)
        raise Refused(f"{self.platform} refuses {what}: {said}")
