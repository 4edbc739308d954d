"""A destination that can be asked nothing: the part of the contract that holds of it too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.contracts.destination_contract import ReceiptContract
from tests.contracts.sandbox_world import fresh
from tests.contracts.test_destination_arthur import ArthurWorld
from tests.showing import Showing

from tidepost.model import Proof
from tidepost.ports import Destination
from tidepost.sandbox import SandboxProcess


class SilentWorld(ArthurWorld):
    """A sandbox that takes files and answers no question."""

    def destination(self, **options: Any) -> Destination:
        return Showing(super().destination(**options), Proof.RECEIPT)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with SandboxProcess(tmp_path_factory.mktemp("sandbox"), api_key=SilentWorld.key) as running:
        yield running


@pytest.fixture
def world(sandbox: SandboxProcess) -> Iterator[SilentWorld]:
    yield from fresh(sandbox, SilentWorld)


class TestByReceipt(ReceiptContract):
    pass
