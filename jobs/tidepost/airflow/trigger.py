"""Waiting without a worker: a trigger that sleeps. Looking is the worker's, who has the keys and the ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent


class Later(BaseTrigger):
    """Fires at an instant, in seconds since 1970, and hands back what it was given, as JSON values."""

    def __init__(self, at: float, kept: dict[str, Any]) -> None:
        super().__init__()
        self.at = at
        self.kept = kept

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (f"{Later.__module__}.{Later.__qualname__}", {"at": self.at, "kept": self.kept})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await asyncio.sleep(max(0.0, self.at - time.time()))
        yield TriggerEvent(self.kept)
