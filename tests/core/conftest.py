"""The shipped bundle, loaded once for the tests that need a real model."""

from __future__ import annotations

from pathlib import Path

import pytest

from spatial_mllm_core.model import SpatialModel

SHIPPED_BUNDLE = Path(__file__).resolve().parents[2] / "models" / "spatial-mllm-mini"


@pytest.fixture(scope="session")
def bundle_folder() -> Path:
    return SHIPPED_BUNDLE


@pytest.fixture(scope="session")
def model() -> SpatialModel:
    return SpatialModel.load(SHIPPED_BUNDLE)
