"""A small data set of rows, and a way to change its rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from spatial_mllm_training.data.packing import Format
from spatial_mllm_training.data.pictures import Viewer
from spatial_mllm_training.multispa.rows import read_rows, to_table
from spatial_mllm_training.multispa.run import make_dataset
from spatial_mllm_training.sources.simulated import find_scenes

FIXTURES = Path(__file__).parents[2] / "fixtures" / "simulated"
SUBTASKS = (
    "depth_estimation_coor",
    "depth_estimation_dot",
    "total_distance",
    "tapvid3d_total_distance_coord_adt",
)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("rows") / "data"
    make_dataset(find_scenes(FIXTURES), out, dict.fromkeys(SUBTASKS, 8), split=None, quiet=True)
    return out


@pytest.fixture
def rewritten(made, tmp_path):
    """A function (change: Row -> Row) that copies the data set with changed rows."""

    def write(change) -> Path:
        out = tmp_path / "rewritten"
        shutil.copytree(made, out)
        pq.write_table(to_table([change(row) for row in read_rows(made)]), out / "rows-00000.parquet")
        return out

    return write


@pytest.fixture
def form(tokenizer):
    return Format(
        lambda words: tokenizer.encode(words, add_special_tokens=False).ids,
        tokenizer.token_to_id("<|image_pad|>"),
    )


@pytest.fixture
def viewer(small_model):
    return Viewer(small_model.framing, small_model.processing, (192, 144))


@pytest.fixture(scope="session")
def mini() -> Path:
    """The stored miniature: 6 rows of each of the 26 subtasks."""
    return FIXTURES.parent / "multispa_sim_mini"


@pytest.fixture(scope="session")
def stored_rows(mini):
    return list(read_rows(mini))


@pytest.fixture
def build_again():
    from spatial_mllm_training.data.tokenizer import build_tokenizer

    return build_tokenizer
