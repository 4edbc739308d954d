"""Staging on S3: the contract, and what is S3's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.contracts.staging_contract import StagingContract
from tests.s3 import NewPlace

from tidepost.s3 import Store
from tidepost.staging.s3 import S3Staging


class TestS3Staging(StagingContract):
    @pytest.fixture
    def place(self, new_place: NewPlace) -> str:
        return new_place()

    @pytest.fixture
    def staging(self, place: str, tmp_path: Path) -> S3Staging:
        return S3Staging(Store.at(place), tmp_path / "here")

    @pytest.fixture
    def again(self, place: str, tmp_path: Path) -> Callable[[], S3Staging]:
        return lambda: S3Staging(Store.at(place), tmp_path / "elsewhere")
