"""Who may call: an access key, or a token from a login, raw in the header `Authorization`.

Arthur API v3, as its Python SDK 3.33.3 speaks it: no `Bearer` before the key; a login answers a JWT (HS256, with
`exp`) in the cookie `Authorization`, which then stands for the key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from typing import Final

TOKEN_SECONDS: Final = 3600


class Keys:
    """The keys that are accepted: exactly `api_key`, or any that is not empty when it is None."""

    def __init__(self, api_key: str | None) -> None:
        self._api_key = api_key
        self._secret = hashlib.sha256(b"tidepost sandbox " + (api_key or "").encode()).digest()

    def accepts(self, header: str | None) -> bool:
        """Whether a call with this header may go on."""
        if not header:
            return False
        if self._api_key is None or hmac.compare_digest(header.encode(), self._api_key.encode()):
            return True
        return self._is_token(header)

    def login(self, password: str) -> str | None:
        """A token for an hour, or None when the password is not the key."""
        if not password or (
            self._api_key is not None and not hmac.compare_digest(password.encode(), self._api_key.encode())
        ):
            return None
        header = _encoded(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
        payload = _encoded(json.dumps({"exp": int(time.time()) + TOKEN_SECONDS}).encode())
        return f"{header}.{payload}.{self._signature(f'{header}.{payload}')}"

    def _is_token(self, token: str) -> bool:
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(signed).encode()):
            return False
        try:
            payload = json.loads(base64.urlsafe_b64decode(signed.partition(".")[2] + "=="))
        except (binascii.Error, ValueError):
            return False
        return bool(payload["exp"] > time.time())

    def _signature(self, signed: str) -> str:
        return _encoded(hmac.new(self._secret, signed.encode(), hashlib.sha256).digest())


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
