"""One row of MultiSPA: the published conversation and, beside it, exact numbers; Parquet in and out.

`gt_value` and the conversation hold what is published: whole millimetres, whole degrees, 0-1000
coordinates, words. `spatial` holds what that text was rounded from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spatial_mllm_core.errors import ErrorCode, SpatialError, one_line


@dataclass(frozen=True)
class RowPoint:
    """A pixel that the row names, draws or answers with; see multispa.draft.DraftPoint.

    Attributes:
        u_px, v_px: integers are pixel centres of the undrawn image.
        drawn: whether a dot stands there in the row's image.
        radius_px, rgb: of the dot; 0 and black where none is drawn.
    """

    image: int
    u_px: float
    v_px: float
    depth_m: float
    point_in_world_m: tuple[float, float, float]
    role: str
    label: str
    drawn: bool
    radius_px: int
    rgb: tuple[int, int, int]


@dataclass(frozen=True)
class Spatial:
    """Exact geometry of a row.

    Attributes:
        scene, source, split: where the row comes from; split is "train" or "benchmark".
        frames: frame names, in the question's order.
        source_image: paths of the images without dots, beside the row's own.
        k: nine numbers of K per image, row by row.  size: (width, height) per image, px.
        distortion, d: distortion model and coefficients per image; () where the image has none.
        world_from_camera: sixteen numbers per image, row by row.
        world_up: unit vector against gravity in the world, () where unknown.
        truth: exact numbers in `unit`: "m" (one or three, in the first camera's optical frame),
            "deg", "px" (pixel of the answer's image), or () with `label`.
        variant, category, group: see multispa.draft.Draft.
        templates: numbers of the description, question and answer wording.
    """

    scene: str
    source: str
    split: str
    frames: tuple[str, ...]
    source_image: tuple[str, ...]
    k: tuple[tuple[float, ...], ...]
    size: tuple[tuple[int, int], ...]
    distortion: tuple[str, ...]
    d: tuple[tuple[float, ...], ...]
    world_from_camera: tuple[tuple[float, ...], ...]
    world_up: tuple[float, ...]
    points: tuple[RowPoint, ...]
    truth: tuple[float, ...]
    unit: str
    label: str
    variant: str = ""
    category: str = ""
    group: str = ""
    templates: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Row:
    """A question with its images and answer.

    Attributes:
        id: unique in the data set.
        image: paths relative to the data set's `images` folder, dots drawn where the subtask has dots.
        question, answer: the human's and the model's turn, as published.
        gt_value: int, [int, int], [int, int, int] or a word, as published (lengths in mm).
    """

    id: str
    question_type: str
    image: tuple[str, ...]
    question: str
    answer: str
    gt_value: int | list[int] | str
    spatial: Spatial = field(repr=False)

    def conversation(self) -> dict[str, Any]:
        """The row in the published JSON layout, with our `spatial` beside."""
        return {
            "id": self.id,
            "image": list(self.image),
            "conversations": [
                {"from": "human", "value": self.question},
                {"from": "gpt", "value": self.answer},
            ],
            "height_list": [height for _, height in self.spatial.size],
            "width_list": [width for width, _ in self.spatial.size],
            "question_type": self.question_type,
            "gt_value": self.gt_value,
            "spatial": asdict(self.spatial),
        }

    @classmethod
    def from_conversation(cls, record: dict[str, Any]) -> Row:
        """Inverse of `conversation`; raises KeyError, TypeError or ValueError for another layout."""
        spatial = dict(record["spatial"])
        points = tuple(
            RowPoint(**{**p, "point_in_world_m": tuple(p["point_in_world_m"]), "rgb": tuple(p["rgb"])})
            for p in spatial.pop("points")
        )
        nested = ("k", "size", "d", "world_from_camera")
        values = {
            key: tuple(tuple(v) for v in value)
            if key in nested
            else (tuple(value) if isinstance(value, (list, tuple)) else value)
            for key, value in spatial.items()
        }
        human, model = record["conversations"]
        return cls(
            id=record["id"],
            question_type=record["question_type"],
            image=tuple(record["image"]),
            question=human["value"],
            answer=model["value"],
            gt_value=record["gt_value"],
            spatial=Spatial(points=points, **values),
        )


_F64S = pa.list_(pa.float64())
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.list_(pa.string())),
        ("conversations", pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))),
        ("height_list", pa.list_(pa.int32())),
        ("width_list", pa.list_(pa.int32())),
        ("question_type", pa.string()),
        ("gt_value", pa.string()),  # JSON: the published value is a number, a list or a word
        (
            "spatial",
            pa.struct(
                [
                    ("scene", pa.string()),
                    ("source", pa.string()),
                    ("split", pa.string()),
                    ("frames", pa.list_(pa.string())),
                    ("source_image", pa.list_(pa.string())),
                    ("k", pa.list_(_F64S)),
                    ("size", pa.list_(pa.list_(pa.int32()))),
                    ("distortion", pa.list_(pa.string())),
                    ("d", pa.list_(_F64S)),
                    ("world_from_camera", pa.list_(_F64S)),
                    ("world_up", _F64S),
                    (
                        "points",
                        pa.list_(
                            pa.struct(
                                [
                                    ("image", pa.int32()),
                                    ("u_px", pa.float64()),
                                    ("v_px", pa.float64()),
                                    ("depth_m", pa.float64()),
                                    ("point_in_world_m", _F64S),
                                    ("role", pa.string()),
                                    ("label", pa.string()),
                                    ("drawn", pa.bool_()),
                                    ("radius_px", pa.int32()),
                                    ("rgb", pa.list_(pa.int32())),
                                ]
                            )
                        ),
                    ),
                    ("truth", _F64S),
                    ("unit", pa.string()),
                    ("label", pa.string()),
                    ("variant", pa.string()),
                    ("category", pa.string()),
                    ("group", pa.string()),
                    ("templates", pa.list_(pa.int32())),
                ]
            ),
        ),
    ]
)


def to_table(rows: Iterable[Row]) -> pa.Table:
    """Rows as an Arrow table of `SCHEMA`."""
    records = [{**r.conversation(), "gt_value": json.dumps(r.gt_value)} for r in rows]
    return pa.Table.from_pylist(records, schema=SCHEMA)


def from_table(table: pa.Table) -> Iterator[Row]:
    """Inverse of `to_table`."""
    for batch in table.to_batches(max_chunksize=1024):
        for record in batch.to_pylist():
            yield Row.from_conversation({**record, "gt_value": json.loads(record["gt_value"])})


def shard_files(folder: Path) -> list[Path]:
    """The Parquet shards of a data set folder, in order."""
    return sorted(folder.glob("rows-*.parquet"))


def read_rows(folder: Path) -> Iterator[Row]:
    """All rows of a data set folder, shard by shard.

    Raises:
        SpatialError: NOT_READY, with the shard that does not open or holds something else.
    """
    for file in shard_files(folder):
        try:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=1024):
                yield from from_table(pa.Table.from_batches([batch]))
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as fault:
            raise SpatialError(
                ErrorCode.NOT_READY, f"{file} is not a whole shard of MultiSPA rows: {one_line(str(fault))}"
            ) from None
